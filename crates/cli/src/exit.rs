//! What the process tells its caller.

use std::process::ExitCode;

/// Scripts branch on these numbers: never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything was done.
    Done = 0,
    /// Some of it failed; stderr says what.
    Failed = 1,
    /// The command line cannot be followed, nothing was done. The same number as clap's.
    Usage = 2,
    /// What should be the same differs, or was tried again and failed again.
    Different = 3,
    /// The broker or a service cannot be reached.
    Unreachable = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
