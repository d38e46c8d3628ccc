//! One open file: its writer, its readers, and what is known of its health.

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

/// How often a file that is to be closed is looked at: whether its last user is gone.
const RETIRE_PAUSE: Duration = Duration::from_millis(10);

/// A database file that is open.
#[derive(Debug)]
pub(super) struct File {
    pub(super) path: PathBuf,
    pub(super) epoch: Arc<str>,
    pub(super) writer: Writer,
    pub(super) readers: Readers,
    pub(super) damage: Damage,
    pub(super) keys: Keys,
    /// Where the file must stay; a read store may be deleted, and is rebuilt at the next start.
    pub(super) identity: Option<Arc<Identity>>,
}

impl File {
    /// Opens the file and brings its tables up to date.
    pub(super) async fn open(opening: Opening) -> anyhow::Result<Self> {
        let (owner, config) = (opening.owner, opening.config.clone());
        let damage = Damage::default();
        // Shared by reads, alone for the moment in which the writer empties the WAL.
        let gate = Arc::new(RwLock::new(()));
        let (writer, opened) = Writer::start(opening, Arc::clone(&gate), damage.clone()).await?;
        let readers = Readers::start(owner, &config, &gate, &damage, &opened)?;
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

    /// Closes the file in order: what waits is done, the WAL is moved into it and removed.
    pub(super) async fn close(&self) {
        self.readers.clone().close().await;
        self.writer.clone().close().await;
    }

    /// Closes and removes the file, one of those of the database `base`, once nobody reads from it
    /// or writes to it any more.
    pub(super) async fn retire(mut self: Arc<Self>, base: &Path) -> anyhow::Result<()> {
        let file = loop {
            match Arc::try_unwrap(self) {
                Ok(file) => break file,
                Err(in_use) => self = in_use,
            }
            tokio::time::sleep(RETIRE_PAUSE).await;
        };
        file.close().await;
        Ok(generation::remove_replaced(base, &file.path)?)
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
        assert_eq!(
            head.await.unwrap(),
            0,
            "it reads from the old file to the end"
        );
        drop(user);
        retiring.await.unwrap();
        assert!(!path.exists());
    }
}
