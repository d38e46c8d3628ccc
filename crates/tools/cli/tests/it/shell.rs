//! Completion scripts and manual pages.

use crate::tool;

#[tokio::test]
async fn shells_learn_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let ended = tool::start(&["completions", shell], &[]).end().await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        for command in ["status", "doctor", "provision", "dead-letter"] {
            assert!(ended.stdout.contains(command), "{shell}: {command}");
        }
    }
    let ended = tool::start(&["completions", "abacus"], &[]).end().await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
}

#[tokio::test]
async fn there_is_a_manual_page_for_each_command() {
    let ended = tool::start(&["man"], &[]).end().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains(".TH headwater 1"), "{ended:?}");
    let folder = tempfile::tempdir().expect("make a folder");
    let path = folder.path().join("man1");
    let ended = tool::start(&["man", path.to_str().expect("UTF-8")], &[])
        .end()
        .await;
    assert_eq!((ended.code, &*ended.stdout), (Some(0), ""), "{ended:?}");
    for page in [
        "headwater.1",
        "headwater-status.1",
        "headwater-projection-pause.1",
    ] {
        let text = std::fs::read_to_string(path.join(page)).expect(page);
        assert!(text.contains(".SH NAME"), "{page}");
    }
}

#[tokio::test]
async fn a_reader_that_has_gone_is_no_error() {
    let mut tool = tool::start(&["completions", "bash"], &[]);
    tool.read_and_close(1).await;
    let ended = tool.end().await;
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{ended:?}");
}
