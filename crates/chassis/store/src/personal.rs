//! Personal data, encrypted with a key per person: destroying the key erases it everywhere
//! (crypto-shredding).
//!
//! SQLite overwrites what is deleted, but not what a b-tree left behind when it moved cells to
//! another page, and not the copies in the write-ahead log and in backups. So personal data is
//! never written in clear. Each person has a random key in the **key file** beside the database
//! (`users.keys` beside `users.db`), and rows hold ciphertext and the number of the key's slot.
//! Erasing a person overwrites 32 bytes in place; afterwards no copy of any row can be read, in
//! this database, its log, or a backup that was taken before.
//!
//! ```ignore
//! let key = personal::issue(tx)?;                               // one a person
//! let sealed = key.seal(id.as_bytes(), &json);                  // goes into the row,
//! row.key_slot = key.slot();                                    // with its slot
//!
//! let Some(key) = snapshot.keys().find(row.key_slot)? else {    // erased: as if there was no row
//!     return Ok(None);
//! };
//! let json = key.open(row.id.as_bytes(), &row.sealed)?;
//!
//! personal::destroy(tx, row.key_slot)?;                         // with the row's deletion
//! ```
//!
//! What must be found by its value (an e-mail address, an idempotency key) is stored as a keyed
//! hash: [`Keys::digest`]. Where the database has a key file, the secret of these hashes is in it;
//! otherwise in the database.
//!
//! **Order.** A key is on the disk before a transaction can refer to it. Destroying is noted in the
//! transaction of the erasure and done after its commit, within [`DESTROY_EVERY`], at an orderly
//! stop and at the next start: a crash at any point in between loses nothing.
//!
//! **Restored copies.** An older database with today's key file: who was erased since stays
//! unreadable. Keys that were destroyed and are back with an older key file are destroyed again at
//! the start, because the database keeps the slots of all of them. A key file that is missing,
//! damaged, of another database, or too old to have all keys is an error at the start.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
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

/// How often it is looked whether keys are to be destroyed.
pub const DESTROY_EVERY: Duration = Duration::from_millis(500);

/// Keys that are destroyed with one fsync.
const DESTROYED_AT_ONCE: u32 = 1_000;

/// A new key for one person, to be used in the transaction `tx`. If that is rolled back, so is the
/// person, and the key is never used.
///
/// # Errors
/// The database's, or the key file cannot be written.
///
/// # Panics
/// When the database has no key file.
pub fn issue(tx: &Tx) -> Result<Key, DbErr> {
    let file = tx.keys().file();
    let (slot, key) = file.issue().map_err(|error| {
        if error.kind() == ErrorKind::StorageFull {
            tx.note_full();
        }
        DbErr::Custom(format!("make a key for personal data: {error}"))
    })?;
    // By this an older key file is known at the start.
    let slots: Value = signed(file.slots()).into();
    set(
        tx,
        "key_slots = ? WHERE key_slots < ?",
        [slots.clone(), slots],
    )?;
    Ok(Key::new(slot, &key))
}

/// Notes in the transaction `tx` that the key in `slot` is to be destroyed, once that is committed.
///
/// # Errors
/// The database's.
pub fn destroy(tx: &Tx, slot: i64) -> Result<(), DbErr> {
    tx.run_raw(Statement::from_sql_and_values(
        tx.get_database_backend(),
        "INSERT INTO headwater_destroyed_key (slot) VALUES (?)",
        [slot.into()] as [Value; 1],
    ))
}

/// Destroys the keys of those who were erased, in the background.
#[derive(Debug, Clone)]
pub struct Shredder {
    db: Database,
    health: Health,
    /// Up to which note it is done; at the start all are looked at, as the key file may be a copy
    /// from before.
    done: Arc<AtomicI64>,
}

/// The name of the line in `/readyz?verbose`.
const PART: &str = "erasure";

impl Shredder {
    /// The task of the database `db`; `health` says when a key cannot be destroyed.
    pub fn new(db: Database, health: Health) -> Self {
        let done = Arc::default();
        Self { db, health, done }
    }

    /// Works until `stop`: a task for the supervisor.
    ///
    /// # Errors
    /// None: what fails is tried again.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        loop {
            self.try_destroy_all().await;
            let pause = tokio::time::sleep(DESTROY_EVERY);
            if stop.run_until_cancelled(pause).await.is_none() {
                return Ok(());
            }
        }
    }

    /// Destroys all keys that are noted by now, or says that it could not.
    pub async fn try_destroy_all(&self) {
        match self.destroy_all().await {
            Ok(()) => self.health.forget(PART),
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(
                    error,
                    "keys of erased people are not destroyed: mend the key file; it is tried again"
                );
                self.health.set(PART, State::Failed(error));
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

/// Keys that are to be destroyed, after the note `done`: their notes and slots.
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

/// Lets the process leave no core dump: what it has in memory would be in it.
pub fn forbid_core_dumps() -> rustix::io::Result<()> {
    let limit = getrlimit(Resource::Core);
    // To a program that takes the dumps (`core_pattern` with a pipe), 1 is none and 0 is no limit.
    let current = Some(1.min(limit.maximum.unwrap_or(1)));
    setrlimit(Resource::Core, Rlimit { current, ..limit })
}
