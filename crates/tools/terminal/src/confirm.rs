//! Confirmation before an action that cannot be undone.

use std::io::{IsTerminal as _, Write as _};

use anyhow::Context as _;

/// The action was not confirmed, and nothing was done.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unconfirmed(pub String);

/// Asks on a terminal whether to do `what`; elsewhere requires `--yes`. Returns [`Unconfirmed`] if
/// refused.
pub fn confirm(what: &str, is_confirmed: bool) -> anyhow::Result<()> {
    if is_confirmed {
        return Ok(());
    }
    ask(what, "--yes")
}

/// Asks on a terminal whether to do `what`; elsewhere requires the flags that `how` names. Returns
/// [`Unconfirmed`] if refused.
pub fn ask(what: &str, how: &str) -> anyhow::Result<()> {
    if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        let message = format!("{what}: nothing was done; confirm with {how}");
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
