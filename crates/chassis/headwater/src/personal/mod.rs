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

mod file;

use std::fmt;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use ring::rand::SecureRandom as _;
use ring::{aead, hmac};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sea_orm::{ConnectionTrait, DbErr, Statement, Value};
use tokio_util::sync::CancellationToken;

use crate::crash;
use crate::database::{Database, Snapshot, Tx};
use crate::health::{Health, State};
use crate::outbox::{signed, unsigned};
use file::KeyFile;

/// How often it is looked whether keys are to be destroyed.
pub const DESTROY_EVERY: Duration = Duration::from_millis(500);

/// Keys that are destroyed with one fsync.
const DESTROYED_AT_ONCE: u32 = 1_000;

/// Bytes of the nonce that every sealed text begins with.
const NONCE: usize = aead::NONCE_LEN;

/// The keys of a database: the secret of its hashes, and its key file if it has one. Cheap to
/// clone.
#[derive(Clone)]
pub struct Keys(Arc<Inner>);

struct Inner {
    digests: hmac::Key,
    file: Option<KeyFile>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.0.file.as_ref().map(|file| &file.path);
        f.debug_struct("Keys")
            .field("file", &path)
            .finish_non_exhaustive()
    }
}

/// Whether the key file at `path` can open a database of the service `owner` whose key file has
/// this id and at least so many keys.
pub(crate) fn check_key_file(
    path: &Path,
    owner: &str,
    id: &[u8],
    slots: u64,
) -> anyhow::Result<()> {
    let name = path.display();
    let file = KeyFile::open(path, owner)
        .with_context(|| format!("open {name}"))?
        .with_context(|| format!("{name} is missing: put back the copy that you keep of it"))?;
    ensure!(
        file.id[..] == *id,
        "{name} is the key file of another database"
    );
    ensure!(
        file.slots() >= slots,
        "{name} is older than the copy: it has {} keys of {slots}",
        file.slots()
    );
    Ok(())
}

/// The key of one person.
#[derive(Debug)]
pub struct Key {
    slot: u64,
    key: aead::LessSafeKey,
}

impl Keys {
    /// The keys of the database `db`, which has no key file.
    pub(crate) fn in_database(db: &impl ConnectionTrait) -> anyhow::Result<Self> {
        let stored = Stored::load(db)?;
        ensure!(
            stored.key_file.is_none(),
            "its personal data is encrypted with the keys of a key file, and this program opens it \
             without one"
        );
        if let Some(secret) = stored.secret {
            return Ok(Self::new(&secret, None));
        }
        let secret = random::<{ file::SECRET }>();
        set(db, "secret = ?", [secret.to_vec().into()])?;
        Ok(Self::new(&secret, None))
    }

    /// The keys of the database `db` of the service `owner`, with the key file at `path`. A file is
    /// made for a database that had none.
    pub(crate) fn in_file(
        db: &impl ConnectionTrait,
        path: &Path,
        owner: &str,
    ) -> anyhow::Result<Self> {
        let stored = Stored::load(db)?;
        let context = || format!("open the key file {}", path.display());
        let file = match (
            KeyFile::open(path, owner).with_context(context)?,
            &stored.key_file,
        ) {
            (Some(file), None) => file,
            (None, None) => KeyFile::create(path, owner)
                .with_context(|| format!("make the key file {}", path.display()))?,
            (Some(file), Some(id)) if file.id[..] == id[..] => file,
            (Some(_), Some(_)) => bail!(
                "{} is the key file of another database; put back the one that belongs to this",
                path.display()
            ),
            (None, Some(_)) => bail!(
                "{} is missing, and without it nobody can read the personal data in this database; \
                 put back the copy that you keep of it",
                path.display()
            ),
        };
        ensure!(
            file.slots() >= stored.key_slots,
            "{} is older than the database: it has {} keys of {}; put back the newest copy of it",
            path.display(),
            file.slots(),
            stored.key_slots
        );
        if stored.key_file.is_none() {
            set(db, "key_file = ?", [file.id.to_vec().into()])?;
        }
        Ok(Self::new(&file.secret.clone(), Some(file)))
    }

    fn new(secret: &[u8], file: Option<KeyFile>) -> Self {
        let digests = hmac::Key::new(hmac::HMAC_SHA256, secret);
        Self(Arc::new(Inner { digests, file }))
    }

    /// The path of the key file, if there is one.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.0.file.as_ref().map(|file| file.path.as_path())
    }

    /// The keyed hash (HMAC-SHA-256, 32 bytes) by which `text` is found again; the same text has
    /// another one for each `purpose`. Whoever has no secret cannot guess at the text.
    pub fn digest(&self, purpose: &str, text: &[u8]) -> Vec<u8> {
        let mut context = hmac::Context::with_key(&self.0.digests);
        context.update(&(purpose.len() as u64).to_be_bytes());
        context.update(purpose.as_bytes());
        context.update(text);
        context.sign().as_ref().to_vec()
    }

    /// The key in `slot`; `None` if it was destroyed: what it encrypted is erased.
    ///
    /// # Errors
    /// The key file cannot be read.
    ///
    /// # Panics
    /// When the database has no key file.
    pub fn find(&self, slot: i64) -> Result<Option<Key>, DbErr> {
        let slot = unsigned(slot);
        let key = self
            .file()
            .find(slot)
            .map_err(|error| unreadable(slot, &error))?;
        Ok(key.map(|key| Key::new(slot, &key)))
    }

    fn file(&self) -> &KeyFile {
        let file = self.0.file.as_ref();
        file.expect("the service was started with `Service::start_with_personal_data`")
    }
}

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

impl Key {
    fn new(slot: u64, key: &[u8; file::KEY]) -> Self {
        let key = aead::UnboundKey::new(&aead::CHACHA20_POLY1305, key).expect("32 bytes");
        Self {
            slot,
            key: aead::LessSafeKey::new(key),
        }
    }

    /// Where the key is: to be stored with what it encrypts.
    pub fn slot(&self) -> i64 {
        signed(self.slot)
    }

    /// `text`, encrypted and authenticated (ChaCha20-Poly1305 with a random nonce; 28 bytes more).
    /// It opens only with the same `about`, such as the id of its row.
    pub fn seal(&self, about: &[u8], text: &[u8]) -> Vec<u8> {
        let nonce = random::<NONCE>();
        let mut sealed = Vec::with_capacity(NONCE + text.len() + self.key.algorithm().tag_len());
        sealed.extend(nonce);
        sealed.extend(text);
        let (nonce, about) = (
            aead::Nonce::assume_unique_for_key(nonce),
            aead::Aad::from(about),
        );
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce, about, &mut sealed[NONCE..]);
        sealed.extend(tag.expect("far shorter than the limit of 256 GiB").as_ref());
        sealed
    }

    /// The way back from [`seal`](Self::seal).
    ///
    /// # Errors
    /// It was sealed with another key, about something else, or altered since.
    pub fn open(&self, about: &[u8], sealed: &[u8]) -> Result<Vec<u8>, DbErr> {
        let about = aead::Aad::from(about);
        let opened = sealed.split_at_checked(NONCE).and_then(|(nonce, text)| {
            let nonce = aead::Nonce::try_assume_unique_for_key(nonce).ok()?;
            let mut text = text.to_vec();
            let length = self.key.open_in_place(nonce, about, &mut text).ok()?.len();
            text.truncate(length);
            Some(text)
        });
        opened.ok_or_else(|| {
            DbErr::Custom(format!("what the key {} encrypted was altered", self.slot))
        })
    }
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

/// What the database knows of its keys.
struct Stored {
    secret: Option<Vec<u8>>,
    key_file: Option<Vec<u8>>,
    key_slots: u64,
}

impl Stored {
    fn load(db: &impl ConnectionTrait) -> anyhow::Result<Self> {
        let row = db
            .query_one_raw(Statement::from_string(
                db.get_database_backend(),
                "SELECT secret, key_file, key_slots FROM headwater_database",
            ))?
            .context("headwater_database is empty")?;
        Ok(Self {
            secret: row.try_get_by("secret")?,
            key_file: row.try_get_by("key_file")?,
            key_slots: unsigned(row.try_get_by("key_slots")?),
        })
    }
}

fn set<const N: usize>(
    db: &impl ConnectionTrait,
    what: &str,
    values: [Value; N],
) -> Result<(), DbErr> {
    db.query_one_raw(Statement::from_sql_and_values(
        db.get_database_backend(),
        format!("UPDATE headwater_database SET {what}"),
        values,
    ))
    .map(drop)
}

fn unreadable(slot: u64, error: &std::io::Error) -> DbErr {
    DbErr::Custom(format!("read the key {slot} of personal data: {error}"))
}

/// Lets the process leave no core dump: what it has in memory would be in it.
pub(crate) fn forbid_core_dumps() -> rustix::io::Result<()> {
    let limit = getrlimit(Resource::Core);
    // To a program that takes the dumps (`core_pattern` with a pipe), 1 is none and 0 is no limit.
    let current = Some(1.min(limit.maximum.unwrap_or(1)));
    setrlimit(Resource::Core, Rlimit { current, ..limit })
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    ring::rand::SystemRandom::new()
        .fill(&mut bytes)
        .expect("the kernel has random numbers");
    bytes
}
