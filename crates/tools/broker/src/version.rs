//! Versions of nats-server.

use std::{
    fmt,
    io::Read,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use crate::deadline;

/// The oldest usable nats-server: relays need atomic batches, projections need consumer reset.
pub const OLDEST: Version = Version {
    major: 2,
    minor: 14,
    patch: 0,
};

/// How long a binary may take to print its version.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// A version of nats-server, without suffixes such as `-RC.1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The 2 of 2.15.1.
    pub major: u32,
    /// The 15 of 2.15.1.
    pub minor: u32,
    /// The 1 of 2.15.1.
    pub patch: u32,
}

impl Version {
    /// Parses the output of `nats-server --version`: `nats-server: v2.15.1`.
    pub fn parse(printed: &str) -> Option<Self> {
        let version = printed.trim().strip_prefix("nats-server: v")?;
        let release = version.split(['-', '+']).next()?;
        let mut parts = release.split('.').map(|part| part.parse().ok());
        let version = Self {
            major: parts.next()??,
            minor: parts.next()??,
            patch: parts.next()??,
        };
        parts.next().is_none().then_some(version)
    }

    /// Runs `<program> --version`; the error continues a sentence that begins with the program.
    pub(crate) fn of(program: &Path) -> Result<Self, String> {
        let mut child = Command::new(program)
            .arg("--version")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot be run ({error})"))?;
        let mut stdout = child.stdout.take().expect("stdout is piped");
        let ended = deadline::wait(&mut child, ANSWER_WITHIN).map_err(|error| error.to_string())?;
        let Some(status) = ended else {
            deadline::kill(&mut child);
            return Err(format!("did not answer --version within {ANSWER_WITHIN:?}"));
        };
        let mut printed = String::new();
        stdout
            .read_to_string(&mut printed)
            .map_err(|error| format!("printed no text ({error})"))?;
        Self::parse(&printed)
            .filter(|_| status.success())
            .ok_or_else(|| "is not a nats-server (its --version does not say so)".to_owned())
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}
