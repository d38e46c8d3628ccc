//! Asking before what cannot be undone.

use std::io::{IsTerminal as _, Write as _};

use anyhow::Context as _;

/// Nobody said that it may be done; nothing was.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unconfirmed(pub String);

/// Asks whether to do `what`, on a terminal; elsewhere only `--yes` will do. Errors with
/// [`Unconfirmed`].
pub fn confirm(what: &str, is_confirmed: bool) -> anyhow::Result<()> {
    if is_confirmed {
        return Ok(());
    }
    ask(what, "--yes")
}

/// Asks whether to do `what`, on a terminal; elsewhere the flags named by `how` confirm it. Errors
/// with [`Unconfirmed`].
pub fn ask(what: &str, how: &str) -> anyhow::Result<()> {
    if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        let message = format!("{what}: nothing was done; say that you mean it with {how}");
        return Err(Unconfirmed(message).into());
    }
    let mut stderr = std::io::stderr();
    write!(stderr, "{what}? [y/N] ").context("ask on stderr")?;
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .context("read the answer")?;
    if ["y", "yes"].contains(&&*answer.trim().to_ascii_lowercase()) {
        return Ok(());
    }
    Err(Unconfirmed(format!("{what}: nothing was done")).into())
}
