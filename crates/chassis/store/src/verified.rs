//! When outboxes, streams and a projection were last verified to agree. The time is kept in a file
//! next to the database, so that it outlives restarts, rebuilds and swaps.

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
    /// The file of `projection`, next to the database `db`.
    pub fn of(db: &Database, projection: &str) -> Self {
        Self(appended(db.base(), &format!(".{projection}-verified")))
    }

    /// Records a verification at `now_ms`.
    pub fn note(&self, now_ms: i64) -> io::Result<()> {
        private::stamp(&self.0, now_ms)
    }

    /// The time of the last verification; 1970 if it cannot be read. If there was none, `now_ms` is
    /// recorded and counts as the last one.
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
