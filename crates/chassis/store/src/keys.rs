//! The keys of a database: for hashes and for personal data.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use ring::{aead, hmac};
use sea_orm::{ConnectionTrait, DbErr, Statement, Value};

use crate::error::Error;
use crate::key_file::{KEY, KeyFile, SECRET, random};
use crate::number::{signed, unsigned};
use crate::reason;

/// Bytes of the nonce at the beginning of every sealed text.
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

/// Checks that the key file at `path` fits a database of the service `owner` whose key file has
/// this id and at least `slots` keys.
///
/// # Errors
/// [`Error::KeyFile`]; or it cannot be read.
pub fn check_key_file(path: &Path, owner: &str, id: &[u8], slots: u64) -> Result<(), Error> {
    let name = path.display();
    let opened = KeyFile::open(path, owner).with_context(|| format!("open {name}"));
    let unfit = |why: String| Err(Error::KeyFile(why.into()));
    match opened.map_err(|error| reason::of(error, path))? {
        None => unfit(format!("{name} is missing; restore your copy of it")),
        Some(file) if file.id[..] != *id => {
            unfit(format!("{name} is the key file of another database"))
        }
        Some(file) if file.slots() < slots => unfit(format!(
            "{name} is older than the copy: it has {} of {slots} keys",
            file.slots()
        )),
        Some(_) => Ok(()),
    }
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
        let why = "its personal data is encrypted with the keys of a key file, but this program \
                   opens it without one";
        ensure!(stored.key_file.is_none(), Error::KeyFile(why.into()));
        if let Some(secret) = stored.secret {
            return Ok(Self::new(&secret, None));
        }
        let secret = random::<{ SECRET }>();
        set(db, "secret = ?", [secret.to_vec().into()])?;
        Ok(Self::new(&secret, None))
    }

    /// The keys of the database `db` of the service `owner`, with the key file at `path`. Creates
    /// the file for a database that had none.
    pub(crate) fn in_file(
        db: &impl ConnectionTrait,
        path: &Path,
        owner: &str,
    ) -> anyhow::Result<Self> {
        let stored = Stored::load(db)?;
        let context = || format!("open the key file {}", path.display());
        let unfit = |what: &str| Error::KeyFile(format!("{} {what}", path.display()).into());
        let file = match (
            KeyFile::open(path, owner).with_context(context)?,
            &stored.key_file,
        ) {
            (Some(file), None) => file,
            (None, None) => KeyFile::create(path, owner)
                .with_context(|| format!("create the key file {}", path.display()))?,
            (Some(file), Some(id)) if file.id[..] == id[..] => file,
            (Some(_), Some(_)) => {
                let what = "is the key file of another database; put back that of this database";
                bail!(unfit(what))
            }
            (None, Some(_)) => bail!(unfit(
                "is missing, and without it the personal data in this database cannot be read; \
                 restore your copy of it"
            )),
        };
        let (has, needed) = (file.slots(), stored.key_slots);
        if has < needed {
            bail!(unfit(&format!(
                "is older than the database: it has {has} of {needed} keys; restore its newest copy"
            )));
        }
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

    /// The keyed hash (HMAC-SHA-256, 32 bytes) of `text`, for lookups. It differs for each
    /// `purpose`. Without the secret, the text cannot be guessed from the hash.
    pub fn digest(&self, purpose: &str, text: &[u8]) -> Vec<u8> {
        let mut context = hmac::Context::with_key(&self.0.digests);
        context.update(&(purpose.len() as u64).to_be_bytes());
        context.update(purpose.as_bytes());
        context.update(text);
        context.sign().as_ref().to_vec()
    }

    /// The key in `slot`; `None` if it was destroyed and so its data erased.
    ///
    /// # Errors
    /// The key file cannot be read.
    ///
    /// # Panics
    /// If the database has no key file.
    pub fn find(&self, slot: i64) -> Result<Option<Key>, DbErr> {
        let slot = unsigned(slot);
        let key = self
            .file()
            .find(slot)
            .map_err(|error| unreadable(slot, &error))?;
        Ok(key.map(|key| Key::new(slot, &key)))
    }

    pub(crate) fn file(&self) -> &KeyFile {
        let file = self.0.file.as_ref();
        file.expect("the service was started with `Service::start_with_personal_data`")
    }
}

impl Key {
    pub(crate) fn new(slot: u64, key: &[u8; KEY]) -> Self {
        let key = aead::UnboundKey::new(&aead::CHACHA20_POLY1305, key).expect("32 bytes");
        Self {
            slot,
            key: aead::LessSafeKey::new(key),
        }
    }

    /// The slot of the key, to be stored with the encrypted data.
    pub fn slot(&self) -> i64 {
        signed(self.slot)
    }

    /// Encrypts and authenticates `text` (ChaCha20-Poly1305 with a random nonce; adds 28 bytes).
    /// The result opens only with the same `about`, such as the id of its row.
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
        sealed.extend(tag.expect("shorter than the limit of 256 GiB").as_ref());
        sealed
    }

    /// Decrypts a text from [`seal`](Self::seal).
    ///
    /// # Errors
    /// It was sealed with another key or another `about`, or was altered.
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
            DbErr::Custom(format!(
                "data encrypted with the key {} was altered",
                self.slot
            ))
        })
    }
}

/// What the database stores about its keys.
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

pub(crate) fn set<const N: usize>(
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
    DbErr::Custom(format!("read the key {slot} for personal data: {error}"))
}
