//! What the process tells its caller.

use std::process::ExitCode;

/// Scripts branch on these numbers: never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything was done.
    Done,
    /// Some of it failed; stderr says what.
    Failed,
    /// The command line cannot be followed, nothing was done. The same number as clap's.
    Usage,
    /// What should be the same differs, lags, or was tried again and failed again.
    Different,
    /// The broker or a service cannot be reached.
    Unreachable,
    /// Ctrl-C or SIGTERM ended it early; what was done until then was said.
    Interrupted,
    /// `check` only, which has the numbers of Nagios: something should be looked at.
    Warning,
    /// The same: something does not work.
    Critical,
    /// The same: it could not be checked.
    Unknown,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed | Exit::Warning => 1,
            Exit::Usage | Exit::Critical => 2,
            Exit::Different | Exit::Unknown => 3,
            Exit::Unreachable => 4,
            Exit::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
