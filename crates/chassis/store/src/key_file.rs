//! The key file: a header, and slots with one random key each.
//!
//! ```text
//! 0      magic, owner, id, secret, SHA-256 of these; zeros up to
//! 4096   slot 0: 32 random bytes; zeros once the key is destroyed
//! 4128   slot 1 …
//! ```
//!
//! Slots are only appended, in blocks, and overwritten with zeros in place. Each start begins a
//! new block, so a slot that an earlier process may have used is never issued again, even if the
//! database was restored from an older copy and has no record of the slot.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, ensure};
use ring::rand::SecureRandom as _;
use sha2::{Digest as _, Sha256};

use crate::error::Error;
use crate::private;

/// The first bytes of every key file; the last digit is the version of its layout.
const MAGIC: &[u8; 16] = b"headwater-keys-1";

/// Bytes of the owner's name in the header.
const OWNER: usize = 64;

/// Bytes of the header's fields, and of the header with its free space.
const FIELDS: usize = MAGIC.len() + OWNER + ID + SECRET + 32;
const HEADER: u64 = 4096;

/// Bytes of the id, of the secret, and of a key.
pub(crate) const ID: usize = 16;
pub(crate) const SECRET: usize = 32;
pub(crate) const KEY: usize = 32;

/// The number of keys that are generated at a time and written with one fsync.
const BLOCK: usize = 512;

/// An open key file.
#[derive(Debug)]
pub(crate) struct KeyFile {
    file: File,
    pub(crate) path: PathBuf,
    pub(crate) id: [u8; ID],
    pub(crate) secret: [u8; SECRET],
    slots: Mutex<Slots>,
}

/// Slots from `next` to `end` hold keys that are not issued yet.
#[derive(Debug, Clone, Copy)]
struct Slots {
    next: u64,
    end: u64,
}

impl KeyFile {
    /// Creates the file of the service `owner` atomically.
    pub(crate) fn create(path: &Path, owner: &str) -> anyhow::Result<Self> {
        let fields = [
            &MAGIC[..],
            &padded(owner)?,
            &random::<ID>(),
            &random::<SECRET>(),
        ]
        .concat();
        let new = path.with_extension("keys-new");
        let mut file = private::options()
            .create(true)
            .truncate(true)
            .write(true)
            .open(&new)?;
        file.write_all(&fields)?;
        file.write_all(&Sha256::digest(&fields))?;
        file.set_len(HEADER)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
        Self::open(path, owner)?.context("it was removed")
    }

    /// Opens the file of the service `owner`, if it exists.
    pub(crate) fn open(path: &Path, owner: &str) -> anyhow::Result<Option<Self>> {
        let mut file = match private::options().read(true).write(true).open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        private::narrow(path);
        let mut fields = [0; FIELDS];
        let is_whole = file.read_exact(&mut fields).is_ok();
        let (fields, checksum) = fields.split_at(FIELDS - 32);
        ensure!(
            is_whole && fields.starts_with(MAGIC) && Sha256::digest(fields)[..] == *checksum,
            Error::KeyFile("it is damaged or not a key file; restore your copy of it".into())
        );
        let (head, secret) = fields.split_at(fields.len() - SECRET);
        let (head, id) = head.split_at(head.len() - ID);
        let other = || format!("it is the key file of another service; put back that of `{owner}`");
        ensure!(
            head[MAGIC.len()..] == padded(owner)?,
            Error::KeyFile(other().into())
        );
        // A slot that a crash left incomplete was never issued.
        let end = file
            .metadata()?
            .len()
            .saturating_sub(HEADER)
            .div_ceil(KEY as u64);
        Ok(Some(Self {
            path: path.to_owned(),
            id: id.try_into().expect("split there"),
            secret: secret.try_into().expect("split there"),
            slots: Mutex::new(Slots { next: end, end }),
            file,
        }))
    }

    /// The number of slots.
    pub(crate) fn slots(&self) -> u64 {
        self.slots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .end
    }

    /// Issues a new slot and its key, which is already on the disk.
    pub(crate) fn issue(&self) -> io::Result<(u64, [u8; KEY])> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.next == slots.end {
            let block = random::<{ KEY * BLOCK }>();
            self.file.write_all_at(&block, offset(slots.end))?;
            self.file.sync_data()?;
            slots.end += BLOCK as u64;
        }
        let slot = slots.next;
        slots.next += 1;
        Ok((slot, self.read(slot)?))
    }

    /// The key in `slot`; `None` if it was destroyed.
    pub(crate) fn find(&self, slot: u64) -> io::Result<Option<[u8; KEY]>> {
        let key = self.read(slot)?;
        Ok((key != [0; KEY]).then_some(key))
    }

    /// Overwrites `slots` with zeros, on the disk.
    pub(crate) fn destroy(&self, slots: &[u64]) -> io::Result<()> {
        for slot in slots {
            // A slot beyond the end of the file never existed in it.
            if *slot < self.slots() && self.find(*slot)?.is_some() {
                self.file.write_all_at(&[0; KEY], offset(*slot))?;
            }
        }
        headwater_telemetry::crash::point("erasure.overwritten");
        self.file.sync_data()
    }

    fn read(&self, slot: u64) -> io::Result<[u8; KEY]> {
        let mut key = [0; KEY];
        self.file.read_exact_at(&mut key, offset(slot))?;
        Ok(key)
    }
}

fn offset(slot: u64) -> u64 {
    HEADER + slot * KEY as u64
}

fn padded(owner: &str) -> anyhow::Result<[u8; OWNER]> {
    let mut padded = [0; OWNER];
    ensure!(owner.len() <= OWNER, "the name {owner} is too long");
    padded[..owner.len()].copy_from_slice(owner.as_bytes());
    Ok(padded)
}

/// Random bytes from the kernel.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    ring::rand::SystemRandom::new()
        .fill(&mut bytes)
        .expect("the kernel supplies random numbers");
    bytes
}
