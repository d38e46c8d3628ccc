//! Terminals that are written to as files.

use std::process::Stdio;

use tokio::process::Command;

use crate::shop::Shop;
use crate::tool::Files;

/// Runs the program on a terminal of its own, and gives what was written there.
async fn on_terminal(args: &[String], environment: &[(&str, &str)]) -> String {
    const SPAWN: &str = "import pty, sys; pty.spawn(sys.argv[1:])";
    let ended = Command::new("python3")
        .args(["-c", SPAWN, env!("CARGO_BIN_EXE_shop-import")])
        .args(args)
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .await
        .expect("run python3");
    String::from_utf8_lossy(&ended.stdout).into_owned()
}

#[tokio::test]
async fn a_terminal_that_cannot_or_shall_not_gets_no_bars() {
    let (shop, files) = (Shop::open().await, Files::of_users(500));
    let args = [
        format!("--users={}", files.path("users").display()),
        format!("--users-url={}", shop.url),
    ];
    let seen = on_terminal(&args, &[("TERM", "xterm")]).await;
    assert!(
        seen.contains('\x1b'),
        "the test sees what it should: {seen}"
    );
    for plain in [
        &[("TERM", "dumb")][..],
        &[],
        &[("TERM", "xterm"), ("NO_COLOR", "1")],
    ] {
        let seen = on_terminal(&args, plain).await;
        assert!(
            !seen.is_empty() && !seen.contains('\x1b'),
            "{plain:?}: {seen:?}"
        );
    }
}
