//! A database in a temporary folder.

use headwater::database::{Config, Migration};
use headwater::{Clock, Database};
use tempfile::TempDir;

/// A database in a temporary folder, which is removed with it.
#[derive(Debug)]
pub struct Store {
    /// The database.
    pub db: Database,
    config: Config,
    migrations: &'static [Migration],
    _folder: TempDir,
}

impl Store {
    /// A new database of the service `owner`.
    pub async fn open(owner: &'static str, migrations: &'static [Migration], clock: Clock) -> Self {
        let folder = TempDir::new().expect("make a folder");
        let config = Config::at(folder.path().join("store.db"));
        let db = Database::open(owner, &config, migrations, clock).await;
        Self {
            db: db.expect("open a database"),
            config,
            migrations,
            _folder: folder,
        }
    }

    /// Closes the database and opens it again, as when the service restarts.
    pub async fn reopen(&mut self) {
        let (owner, clock) = (self.db.owner(), self.db.clock().clone());
        self.db.clone().close().await;
        let db = Database::open(owner, &self.config, self.migrations, clock).await;
        self.db = db.expect("open the database again");
    }
}
