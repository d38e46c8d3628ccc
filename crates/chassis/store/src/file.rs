//! One open database file: its writer, readers and health.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use crate::connection::Damage;
use crate::generation;
use crate::identity::Identity;
use crate::keys::Keys;
use crate::opening::Opening;
use crate::readers::Readers;
use crate::writer::Writer;

/// The pause between checks whether a file that is being retired is still in use.
const RETIRE_PAUSE: Duration = Duration::from_millis(10);

/// An open database file.
#[derive(Debug)]
pub(super) struct File {
    pub(super) path: PathBuf,
    pub(super) epoch: Arc<str>,
    pub(super) writer: Writer,
    pub(super) readers: Readers,
    pub(super) damage: Damage,
    pub(super) keys: Keys,
    /// Where the file must stay; `None` for a read store, which may be deleted and is then rebuilt
    /// at the next start.
    pub(super) identity: Option<Arc<Identity>>,
}

impl File {
    /// Opens the file and migrates its tables.
    pub(super) async fn open(opening: Opening) -> anyhow::Result<Self> {
        let (owner, config) = (opening.owner, opening.config.clone());
        let damage = Damage::default();
        // Reads hold it shared; the writer holds it exclusively while it empties the WAL.
        let checkpoint_lock = Arc::new(RwLock::new(()));
        let (writer, opened) =
            Writer::start(opening, Arc::clone(&checkpoint_lock), damage.clone()).await?;
        let readers = Readers::start(owner, &config, &checkpoint_lock, &damage, &opened)?;
        Ok(Self {
            path: config.path,
            epoch: opened.epoch,
            writer,
            readers,
            damage,
            keys: opened.keys,
            identity: opened.identity,
        })
    }

    /// Closes the file in order: finishes waiting work, moves the WAL into the file and removes it.
    pub(super) async fn close(&self) {
        self.readers.clone().close().await;
        self.writer.clone().close().await;
    }

    /// Closes and removes this file of the database `base` once no reads or writes use it.
    pub(super) async fn retire(mut self: Arc<Self>, base: &Path) -> io::Result<()> {
        let file = loop {
            match Arc::try_unwrap(self) {
                Ok(file) => break file,
                Err(in_use) => self = in_use,
            }
            tokio::time::sleep(RETIRE_PAUSE).await;
        };
        file.close().await;
        generation::remove_replaced(base, &file.path)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::config::Config;
    use headwater_telemetry::clock::Clock;

    #[tokio::test]
    async fn a_file_is_not_closed_while_somebody_may_still_read_from_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db.1");
        let opening = Opening {
            owner: "a",
            config: Config::at(&path),
            migrations: &[],
            clock: Clock::system(),
            stays_at: None,
            has_key_file: false,
        };
        let file = Arc::new(File::open(opening).await.unwrap());
        let user = Arc::clone(&file);
        let base = folder.path().join("a.db");
        let mut retiring = Box::pin(file.retire(&base));
        assert!((&mut retiring).now_or_never().is_none());
        let head = user.readers.read(crate::outbox::head);
        assert_eq!(head.await.unwrap(), 0, "the old file stays readable");
        drop(user);
        retiring.await.unwrap();
        assert!(!path.exists());
    }
}
