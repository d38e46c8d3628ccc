//! External programs that check what the services return: schemathesis for the OpenAPI documents;
//! the [browser](crate::browser) for the pages. `.ci/run` installs and requires them.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::faults::can_or_must;

/// If 1, a test fails when its checker is missing.
pub(crate) const REQUIRED: &str = "HEADWATER_REQUIRE_CHECKERS";

/// The program `schemathesis`: `HEADWATER_SCHEMATHESIS`, or the one on `PATH`.
pub fn schemathesis() -> Option<PathBuf> {
    let program =
        PathBuf::from(variable("HEADWATER_SCHEMATHESIS").unwrap_or("schemathesis".into()));
    let found = succeeds(&program, &["--version"]);
    can_or_must(REQUIRED, "schemathesis (package of PyPI)", found).then_some(program)
}

pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

pub(crate) fn succeeds(program: &Path, args: &[&str]) -> Result<(), String> {
    let run = std::process::Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{}: {error}", program.display()))?;
    if run.status.success() {
        return Ok(());
    }
    Err(format!("{}: {}", program.display(), run.status))
}
