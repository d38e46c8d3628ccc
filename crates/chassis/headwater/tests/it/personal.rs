//! Once its key is destroyed, personal data is unreadable in every file and every copy.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use headwater::database::{Config, Database, Error, Migration, WriteError};
use headwater::personal::{self, Shredder};
use headwater::{Clock, Health, causes};
use sea_orm::{ConnectionTrait as _, DbErr, Statement};
use tempfile::TempDir;

use crate::support::{backup, execute, folder, integers};

const PEOPLE: &[Migration] = &[Migration::sql(
    "0001_people",
    "CREATE TABLE person (id INTEGER PRIMARY KEY, key_slot INTEGER NOT NULL, name BLOB NOT NULL)",
)];

/// The offset of the first slot, and the length of a slot.
const HEADER: usize = 4096;
const KEY: usize = 32;

fn database(folder: &TempDir) -> PathBuf {
    folder.path().join("people.db")
}

fn key_file(folder: &TempDir) -> PathBuf {
    folder.path().join("people.keys")
}

async fn try_open(folder: &TempDir) -> Result<Database, Error> {
    let config = Config::at(database(folder));
    Database::open_with_personal_data("people", &config, PEOPLE, Clock::system()).await
}

async fn people(folder: &TempDir) -> Database {
    try_open(folder).await.unwrap()
}

/// The error of opening the database.
async fn refusal(folder: &TempDir) -> String {
    let error = try_open(folder).await.unwrap_err();
    assert!(matches!(error, Error::KeyFile(_)), "{error:?}");
    causes(&error)
}

/// Adds a person; returns the slot of the key.
async fn add(db: &Database, id: i64, name: &'static str) -> i64 {
    let added = db.write(move |tx| {
        let key = personal::issue(tx)?;
        let sealed = key.seal(&id.to_be_bytes(), name.as_bytes());
        let row = [id.into(), key.slot().into(), sealed.into()];
        execute(tx, "INSERT INTO person VALUES (?, ?, ?)", row)?;
        Ok::<_, DbErr>(key.slot())
    });
    added.await.unwrap().value
}

/// The name of a person; `None` if the key was destroyed.
async fn name(db: &Database, id: i64) -> Option<String> {
    let found = db.read(move |snapshot| {
        let sql = format!("SELECT key_slot, name FROM person WHERE id = {id}");
        let row = Statement::from_string(snapshot.get_database_backend(), sql);
        let row = snapshot.query_one_raw(row)?.expect("the person is there");
        let Some(key) = snapshot.keys().find(row.try_get_by("key_slot")?)? else {
            return Ok(None);
        };
        let sealed: Vec<u8> = row.try_get_by("name")?;
        let name = key.open(&id.to_be_bytes(), &sealed)?;
        Ok::<_, DbErr>(Some(String::from_utf8(name).unwrap()))
    });
    found.await.unwrap()
}

/// Erases a person: deletes the row now; the task destroys the key.
async fn erase(db: &Database, id: i64) {
    let erased = db.write(move |tx| {
        let slots = integers(
            tx,
            &format!("SELECT key_slot AS n FROM person WHERE id = {id}"),
        )?;
        execute(tx, "DELETE FROM person WHERE id = ?", [id.into()])?;
        personal::destroy(tx, slots[0])
    });
    erased.await.unwrap();
}

async fn shred(db: &Database) {
    Shredder::new(db.clone(), Health::new())
        .try_destroy_all()
        .await;
}

fn is_destroyed(folder: &TempDir, slot: i64) -> bool {
    let bytes = fs::read(key_file(folder)).unwrap();
    let at = HEADER + usize::try_from(slot).unwrap() * KEY;
    bytes[at..at + KEY].iter().all(|byte| *byte == 0)
}

fn contains(file: &Path, text: &str) -> bool {
    let bytes = fs::read(file).unwrap();
    bytes
        .windows(text.len())
        .any(|part| part == text.as_bytes())
}

#[tokio::test]
async fn what_is_sealed_is_in_no_file_and_unreadable_once_its_key_is_destroyed() {
    let folder = folder();
    let db = people(&folder).await;
    let ada = add(&db, 1, "Ada Byron").await;
    let bob = add(&db, 2, "Robert Roe").await;
    let copy = folder.path().join("copy");
    backup(&database(&folder), &copy);
    erase(&db, 1).await;
    assert!(!is_destroyed(&folder, ada), "not before the commit");
    shred(&db).await;
    assert!(is_destroyed(&folder, ada) && !is_destroyed(&folder, bob));
    assert_eq!(name(&db, 2).await.as_deref(), Some("Robert Roe"));
    for file in fs::read_dir(folder.path()).unwrap() {
        let file = file.unwrap().path();
        for name in ["Ada Byron", "Robert Roe"] {
            assert!(!contains(&file, name), "{name} is in {}", file.display());
        }
    }
    db.close().await;
    fs::copy(&copy, database(&folder)).unwrap();
    let db = people(&folder).await;
    assert_eq!(name(&db, 1).await, None, "the row is back, and unreadable");
    assert_eq!(name(&db, 2).await.as_deref(), Some("Robert Roe"));
}

#[tokio::test]
async fn a_ciphertext_that_was_altered_or_belongs_to_another_row_is_refused() {
    let folder = folder();
    let db = people(&folder).await;
    let tried = db.write(|tx| {
        let (ada, bob) = (personal::issue(tx)?, personal::issue(tx)?);
        let sealed = ada.seal(b"1", b"Ada");
        assert_eq!(ada.open(b"1", &sealed)?, b"Ada");
        assert_ne!(ada.seal(b"1", b"Ada"), sealed, "the nonce is random");
        assert!(ada.open(b"2", &sealed).is_err());
        assert!(bob.open(b"1", &sealed).is_err());
        assert!(ada.open(b"1", &sealed[..sealed.len() - 1]).is_err());
        assert!(ada.open(b"1", b"short").is_err());
        Ok::<_, DbErr>(())
    });
    tried.await.unwrap();
}

#[tokio::test]
async fn an_erasure_that_was_committed_is_completed_at_the_next_start() {
    let folder = folder();
    let db = people(&folder).await;
    let ada = add(&db, 1, "Ada").await;
    erase(&db, 1).await;
    db.close().await;
    assert!(!is_destroyed(&folder, ada), "its task was killed first");
    let db = people(&folder).await;
    shred(&db).await;
    assert!(is_destroyed(&folder, ada));
}

#[tokio::test]
async fn a_slot_is_never_given_out_twice() {
    let folder = folder();
    let db = people(&folder).await;
    let mut slots = vec![add(&db, 1, "Ada").await];
    let copy = folder.path().join("copy");
    backup(&database(&folder), &copy);
    slots.push(add(&db, 2, "Bob").await);
    let refused = db.write(|tx| {
        let slot = personal::issue(tx)?.slot();
        Err::<(), _>(DbErr::Custom(slot.to_string()))
    });
    match refused.await {
        Err(WriteError::Refused(DbErr::Custom(slot))) => slots.push(slot.parse().unwrap()),
        other => panic!("{other:?}"),
    }
    slots.push(add(&db, 3, "Carl").await);
    db.close().await;

    let db = people(&folder).await;
    slots.push(add(&db, 4, "Dora").await);
    db.close().await;
    fs::copy(&copy, database(&folder)).unwrap();
    let db = people(&folder).await;
    slots.push(add(&db, 5, "Eve").await);
    assert!(slots.is_sorted_by(|a, b| a < b), "{slots:?}");
}

#[tokio::test]
async fn more_people_than_a_block_has_keys_get_one_each() {
    let folder = folder();
    let db = people(&folder).await;
    let issued = db.write(|tx| {
        let keys = (0..1_100).map(|_| Ok(personal::issue(tx)?.slot()));
        keys.collect::<Result<Vec<_>, DbErr>>()
    });
    let issued = issued.await.unwrap().value;
    assert!(issued.is_sorted_by(|a, b| a < b));
    let bytes = fs::read(key_file(&folder)).unwrap();
    let keys: std::collections::BTreeSet<_> = bytes[HEADER..].chunks(KEY).collect();
    assert_eq!(keys.len(), 3 * 512, "every key is different");
}

#[tokio::test]
async fn keys_that_are_back_with_an_older_key_file_are_destroyed_again() {
    let folder = folder();
    let db = people(&folder).await;
    let ada = add(&db, 1, "Ada").await;
    let older = fs::read(key_file(&folder)).unwrap();
    erase(&db, 1).await;
    shred(&db).await;
    db.close().await;
    fs::write(key_file(&folder), older).unwrap();
    assert!(!is_destroyed(&folder, ada));
    let db = people(&folder).await;
    shred(&db).await;
    assert!(is_destroyed(&folder, ada));
}

#[tokio::test]
async fn a_key_file_that_is_missing_damaged_foreign_or_too_old_is_named_and_left_alone() {
    let folder = folder();
    let other = tempfile::tempdir().unwrap();
    let db = people(&folder).await;
    let mode = fs::metadata(key_file(&folder))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    add(&db, 1, "Ada").await;
    db.close().await;
    let old = fs::read(key_file(&folder)).unwrap();
    let db = people(&folder).await;
    add(&db, 2, "Bob").await;
    db.close().await;
    let right = fs::read(key_file(&folder)).unwrap();
    people(&other).await.close().await;

    fs::remove_file(key_file(&folder)).unwrap();
    let missing = refusal(&folder).await;
    assert!(missing.contains("people.keys is missing"), "{missing}");
    assert!(
        !key_file(&folder).exists(),
        "no new key file for encrypted rows"
    );

    let mut damaged = right.clone();
    damaged[100] ^= 1;
    let foreign = fs::read(key_file(&other)).unwrap();
    for (content, reason) in [
        (&damaged, "it is damaged or not a key file"),
        (&right[..50].to_vec(), "it is damaged or not a key file"),
        (&foreign, "is the key file of another database"),
        (&old, "is older than the database: it has 512 of 1024 keys"),
    ] {
        fs::write(key_file(&folder), content).unwrap();
        let refused = refusal(&folder).await;
        assert!(refused.contains(reason), "{refused}");
        assert_eq!(&fs::read(key_file(&folder)).unwrap(), content);
    }

    fs::write(key_file(&folder), right).unwrap();
    let db = people(&folder).await;
    assert_eq!(name(&db, 1).await.as_deref(), Some("Ada"));
    db.close().await;
    let config = Config::at(database(&folder));
    let without = Database::open("people", &config, PEOPLE, Clock::system()).await;
    let refused = causes(&without.unwrap_err());
    assert!(refused.contains("the keys of a key file"), "{refused}");
}

#[tokio::test]
async fn what_a_crash_left_of_a_block_is_passed_over() {
    let folder = folder();
    let db = people(&folder).await;
    add(&db, 1, "Ada").await;
    db.close().await;
    let mut torn = fs::read(key_file(&folder)).unwrap();
    torn.extend([7; KEY + 5]);
    fs::write(key_file(&folder), torn).unwrap();
    let db = people(&folder).await;
    assert_eq!(add(&db, 2, "Bob").await, 512 + 2);
    assert_eq!(name(&db, 1).await.as_deref(), Some("Ada"));
    assert_eq!(name(&db, 2).await.as_deref(), Some("Bob"));
}

#[tokio::test]
async fn a_database_whose_key_file_is_not_where_it_was_opened_takes_no_write_until_it_is_back() {
    let folder = folder();
    let db = people(&folder).await;
    add(&db, 1, "Ada").await;
    let elsewhere = folder.path().join("elsewhere");
    fs::rename(key_file(&folder), &elsewhere).unwrap();
    let refused = db.write(|tx| personal::issue(tx).map(drop)).await;
    assert!(matches!(refused, Err(WriteError::Moved)), "{refused:?}");
    assert_eq!(name(&db, 1).await.as_deref(), Some("Ada"), "reads continue");
    fs::rename(&elsewhere, key_file(&folder)).unwrap();
    add(&db, 2, "Bob").await;
}

#[tokio::test]
async fn the_keys_of_a_database_behind_a_link_are_beside_the_database() {
    let folder = folder();
    let db = people(&folder).await;
    add(&db, 1, "Ada").await;
    db.close().await;
    let link = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(database(&folder), database(&link)).unwrap();
    let db = people(&link).await;
    assert_eq!(name(&db, 1).await.as_deref(), Some("Ada"));
    assert!(!key_file(&link).exists());
}

#[tokio::test]
async fn the_same_text_has_another_digest_for_each_purpose_and_in_each_database() {
    let (folder, other) = (folder(), tempfile::tempdir().unwrap());
    let digests = |db: Database| async move {
        let digests = db.read(|at| {
            let digest = |purpose, text: &str| at.keys().digest(purpose, text.as_bytes());
            Ok::<_, DbErr>([digest("a", "bc"), digest("a", "bc"), digest("ab", "c")])
        });
        digests.await.unwrap()
    };
    let here = digests(people(&folder).await).await;
    let there = digests(people(&other).await).await;
    let plain = digests(crate::support::open(&other, "sensors").await).await;
    assert!(here[0] == here[1] && here[0] != here[2]);
    assert!(here[0] != there[0] && here[0] != plain[0]);
    let again = digests(crate::support::open(&other, "sensors").await).await;
    assert_eq!(again, plain, "the secret is kept");
}
