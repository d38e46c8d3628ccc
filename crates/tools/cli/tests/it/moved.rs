//! Commands that are now separate programs.

use crate::tool;

#[tokio::test]
async fn an_import_is_told_which_program_does_it_now() {
    for line in [
        &["import"][..],
        &["import", "--users", "users.jsonl", "--orders=-"],
        &["import", "--help"],
    ] {
        let ended = tool::start(line, &[]).end().await;
        assert_eq!((ended.code, &*ended.stdout), (Some(2), ""), "{ended:?}");
        let said = "headwater: `headwater import` is now a separate program: run `shop-import`";
        assert!(ended.stderr.starts_with(said), "{ended:?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    }
    let ended = tool::start(&["-ojson", "import", "--users=-"], &[])
        .end()
        .await;
    assert_eq!((ended.code, &*ended.stderr), (Some(2), ""), "{ended:?}");
    assert!(ended.stdout.contains("run `shop-import`"), "{ended:?}");
    let ended = tool::start(&["--help"], &[]).end().await;
    assert!(!ended.stdout.contains("import"), "{ended:?}");
}
