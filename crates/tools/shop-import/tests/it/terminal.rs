//! Terminals without colours and redrawing.

use headwater_testkit::on_terminal;

use crate::shop::Shop;
use crate::tool::{Files, PROGRAM};

#[tokio::test]
async fn a_terminal_that_cannot_or_shall_not_gets_no_bars() {
    let (shop, files) = (Shop::open().await, Files::of_users(500));
    let args = [
        format!("--users={}", files.path("users").display()),
        format!("--users-url={}", shop.url),
    ];
    let seen = on_terminal(PROGRAM, &args, &[("TERM", "xterm")]).await;
    assert!(
        seen.contains('\x1b'),
        "the test sees what it should: {seen}"
    );
    for plain in [
        &[("TERM", "dumb")][..],
        &[],
        &[("TERM", "xterm"), ("NO_COLOR", "1")],
    ] {
        let seen = on_terminal(PROGRAM, &args, plain).await;
        assert!(
            !seen.is_empty() && !seen.contains('\x1b'),
            "{plain:?}: {seen:?}"
        );
    }
}
