//! The exit codes.

use std::process::ExitCode;

/// Scripts branch on these numbers: never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything was done.
    Done,
    /// Some of it failed. Stderr has the details.
    Failed,
    /// Usage error, nothing was done. The same number as clap's.
    Usage,
    /// A check found a difference or a lag, or a retry failed again.
    Different,
    /// The broker or a service cannot be reached.
    Unreachable,
    /// Ctrl-C or SIGTERM ended it early. A summary was printed.
    Interrupted,
    /// Only `check`, which has the numbers of Nagios: something needs attention.
    Warning,
    /// Only `check`: something does not work.
    Critical,
    /// Only `check`: the check itself failed.
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
