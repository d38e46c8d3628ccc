//! When it was last verified that outboxes, streams and a projection agree: a file beside the
//! database, so that a restart, a rebuild and an exchange of the database leave it as it is.

use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use crate::database::Database;
use crate::generation::appended;
use crate::private;

/// The file of one projection.
#[derive(Debug)]
pub struct Verified(PathBuf);

impl Verified {
    /// The file of `projection`, beside the database `db`.
    pub fn of(db: &Database, projection: &str) -> Self {
        Self(appended(db.base(), &format!(".{projection}-verified")))
    }

    /// Notes that it was at `now_ms`.
    pub fn note(&self, now_ms: i64) -> io::Result<()> {
        private::stamp(&self.0, now_ms)
    }

    /// When it was; 1970 where that cannot be read. A nightly verification is missed from the first
    /// look on, which is `now_ms`.
    pub fn last(&self, now_ms: i64) -> SystemTime {
        let last = private::stamped(&self.0).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                self.note(now_ms)?;
                private::stamped(&self.0)
            }
            _ => Err(error),
        });
        last.unwrap_or(SystemTime::UNIX_EPOCH)
    }
}
