//! When it was last verified that outboxes, streams and a projection agree: a file beside the
//! database, so that a restart, a rebuild and an exchange of the database leave it as it is.

use std::io::Write as _;
use std::path::PathBuf;
use std::{fs, io};

use crate::database::Database;
use crate::private;

/// The file of one projection.
#[derive(Debug)]
pub(crate) struct Verified(PathBuf);

impl Verified {
    pub(crate) fn of(db: &Database, projection: &str) -> Self {
        let mut path = db.base().as_os_str().to_owned();
        path.push(format!(".{projection}-verified"));
        Self(path.into())
    }

    /// Notes that it was at `now_ms`.
    pub(crate) fn note(&self, now_ms: i64) -> io::Result<()> {
        let mut options = private::options();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .open(&self.0)?;
        writeln!(file, "{now_ms}")
    }

    /// When it was, in milliseconds since 1970. A nightly verification is missed from the first
    /// look on, which is `now_ms`, and one whose file cannot be read from 1970 on.
    pub(crate) fn last_ms(&self, now_ms: i64) -> i64 {
        match fs::read_to_string(&self.0) {
            Ok(text) => text.trim().parse().unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => match self.note(now_ms) {
                Ok(()) => now_ms,
                Err(_) => 0,
            },
            Err(_) => 0,
        }
    }
}
