//! Personal data, encrypted with a key per person: destroying the key erases it everywhere
//! (crypto-shredding).
//!
//! SQLite overwrites deleted data, but not what a b-tree left behind when it moved cells to
//! another page, nor the copies in the write-ahead log and in backups. So personal data is never
//! written in clear text. Each person has a random key in the **key file** next to the database
//! (`users.keys` next to `users.db`). Rows hold ciphertext and the number of the key's slot.
//! Erasing a person overwrites 32 bytes in place. After that, no copy of their rows can be read: in
//! this database, in its log, or in an earlier backup.
//!
//! ```ignore
//! let key = personal::issue(tx)?;                               // one per person
//! let sealed = key.seal(id.as_bytes(), &json);                  // store it in the row,
//! row.key_slot = key.slot();                                    // with the key's slot
//!
//! let Some(key) = snapshot.keys().find(row.key_slot)? else {    // erased: treat as no row
//!     return Ok(None);
//! };
//! let json = key.open(row.id.as_bytes(), &row.sealed)?;
//!
//! personal::destroy(tx, row.key_slot)?;                         // when deleting the row
//! ```
//!
//! Values that must be looked up (an e-mail address, an idempotency key) are stored as keyed
//! hashes: [`Keys::digest`]. The secret of these hashes is in the key file if the database has one,
//! and otherwise in the database.
//!
//! **Order.** A key is on the disk before a transaction can refer to it. The transaction of an
//! erasure records that the key is to be destroyed. The key is destroyed after the commit: within
//! [`DESTROY_EVERY`], at an orderly stop, or at the next start. A crash in between loses nothing.
//!
//! **Restored copies.** If an older database is restored next to the current key file, people
//! erased since stay unreadable. If an older key file is restored, its destroyed keys are destroyed
//! again at the start, because the database keeps their slots. If the key file is missing, damaged,
//! of another database, or too old to have all keys, the start fails.

use std::convert::Infallible;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use headwater_telemetry::causes;
use headwater_telemetry::crash;
use headwater_telemetry::health::{Health, State};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sea_orm::{ConnectionTrait, DbErr, Statement, Value};
use tokio_util::sync::CancellationToken;

use crate::database::Database;
use crate::keys::set;
use crate::number::{signed, unsigned};
use crate::transaction::{Snapshot, Tx};

pub use crate::keys::{Key, Keys, check_key_file};

/// The pause between checks for keys to destroy.
pub const DESTROY_EVERY: Duration = Duration::from_millis(500);

/// The maximum number of keys destroyed with one fsync.
const DESTROYED_AT_ONCE: u32 = 1_000;

/// Issues a key for one person, for use in the transaction `tx`. If `tx` is rolled back, the key is
/// never used.
///
/// # Errors
/// A database error; or the key file cannot be written.
///
/// # Panics
/// If the database has no key file.
pub fn issue(tx: &Tx) -> Result<Key, DbErr> {
    let file = tx.keys().file();
    let (slot, key) = file.issue().map_err(|error| {
        if error.kind() == ErrorKind::StorageFull {
            tx.note_full();
        }
        DbErr::Custom(format!("create a key for personal data: {error}"))
    })?;
    // With this, the next start recognizes an older key file.
    let slots: Value = signed(file.slots()).into();
    set(
        tx,
        "key_slots = ? WHERE key_slots < ?",
        [slots.clone(), slots],
    )?;
    Ok(Key::new(slot, &key))
}

/// Records in `tx` that the key in `slot` is to be destroyed after the commit.
pub fn destroy(tx: &Tx, slot: i64) -> Result<(), DbErr> {
    tx.run_raw(Statement::from_sql_and_values(
        tx.get_database_backend(),
        "INSERT INTO headwater_destroyed_key (slot) VALUES (?)",
        [slot.into()] as [Value; 1],
    ))
}

/// Destroys the keys of erased people in the background.
#[derive(Debug, Clone)]
pub struct Shredder {
    db: Database,
    health: Health,
    /// The id of the last record that was handled. A start handles all records again, because the
    /// key file may be an older copy.
    done: Arc<AtomicI64>,
}

/// The name of the component in `/readyz?verbose`.
const COMPONENT: &str = "erasure";

impl Shredder {
    /// The task for the database `db`; reports to `health` if a key cannot be destroyed.
    pub fn new(db: Database, health: Health) -> Self {
        let done = Arc::default();
        Self { db, health, done }
    }

    /// Runs until `stop`: a task for the supervisor.
    ///
    /// # Errors
    /// None: failures are retried.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Infallible> {
        loop {
            self.try_destroy_all().await;
            let pause = tokio::time::sleep(DESTROY_EVERY);
            if stop.run_until_cancelled(pause).await.is_none() {
                return Ok(());
            }
        }
    }

    /// Destroys all keys that are recorded by now, or reports the failure.
    pub async fn try_destroy_all(&self) {
        match self.destroy_all().await {
            Ok(()) => self.health.forget(COMPONENT),
            Err(error) => {
                let error = causes(error.as_ref());
                tracing::error!(
                    error,
                    "cannot destroy the keys of erased people: repair the key file; retrying"
                );
                self.health.set(COMPONENT, State::Failed(error));
            }
        }
    }

    async fn destroy_all(&self) -> anyhow::Result<()> {
        loop {
            let done = self.done.load(Ordering::Relaxed);
            let due = self.db.read(move |snapshot| due(snapshot, done)).await?;
            let Some((last, _)) = due.last() else {
                return Ok(());
            };
            let last = *last;
            crash::point("erasure.committed");
            let keys = self.db.keys();
            let slots: Vec<u64> = due.into_iter().map(|(_, slot)| slot).collect();
            tokio::task::spawn_blocking(move || keys.file().destroy(&slots))
                .await?
                .context("overwrite keys")?;
            self.done.store(last, Ordering::Relaxed);
        }
    }
}

/// The records after `done` of keys to destroy: their ids and slots.
fn due(snapshot: &Snapshot, done: i64) -> Result<Vec<(i64, u64)>, DbErr> {
    let rows = snapshot.query_all_raw(Statement::from_sql_and_values(
        snapshot.get_database_backend(),
        "SELECT id, slot FROM headwater_destroyed_key WHERE id > ? ORDER BY id LIMIT ?",
        [done.into(), DESTROYED_AT_ONCE.into()] as [Value; 2],
    ))?;
    let each =
        |row: &sea_orm::QueryResult| Ok((row.try_get_by("id")?, unsigned(row.try_get_by("slot")?)));
    rows.iter().map(each).collect()
}

/// Disables core dumps, which would contain the keys in memory.
pub fn forbid_core_dumps() -> rustix::io::Result<()> {
    let limit = getrlimit(Resource::Core);
    // If `core_pattern` pipes dumps to a program, 1 means no dump and 0 means no limit.
    let current = Some(1.min(limit.maximum.unwrap_or(1)));
    setrlimit(Resource::Core, Rlimit { current, ..limit })
}
