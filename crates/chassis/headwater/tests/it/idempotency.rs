//! Idempotency keys: one effect per key.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use headwater::database::{Config, Database, WriteError};
use headwater::http::Answer;
use headwater::idempotency::{self, Fingerprint, KEPT, Key, Refusal};
use headwater::{Clock, Position, outbox};
use rusqlite::params;
use sea_orm::DbErr;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::support::{MIGRATIONS, folder, integers, open, read};

#[derive(Debug, thiserror::Error)]
enum No {
    #[error(transparent)]
    Database(#[from] DbErr),
    #[error(transparent)]
    Key(#[from] Refusal),
    #[error("rejected")]
    Rejected,
}

fn key(scope: &'static str, text: Option<&str>) -> Key {
    Key {
        scope,
        text: text.map(str::to_owned),
    }
}

/// Reads a sensor, once per key. The object that it creates is the sensor.
async fn command(
    db: &Database,
    key: Key,
    sensor: &'static str,
    value: i64,
) -> Result<Answer, WriteError<No>> {
    let written = db.write(move |tx| {
        let fingerprint = Fingerprint::of(&(sensor, value));
        idempotency::once(tx, &key, &fingerprint, || {
            let position = outbox::append(tx, &read(sensor, value))?;
            if value < 0 {
                return Err(No::Rejected);
            }
            let location = format!("/sensors/{sensor}");
            Ok((
                Answer::created(location, position, &value),
                sensor.to_owned(),
            ))
        })
    });
    written.await.map(|committed| committed.value)
}

fn refused(outcome: Result<Answer, WriteError<No>>) -> Refusal {
    match outcome {
        Err(WriteError::Refused(No::Key(refusal))) => refusal,
        other => panic!("{other:?}"),
    }
}

async fn effects(db: &Database) -> usize {
    db.read(|snapshot| outbox::page(snapshot, 1, 100))
        .await
        .unwrap()
        .len()
}

#[tokio::test]
async fn the_same_command_again_gets_the_same_answer_and_has_one_effect() {
    let folder = folder();
    let db = open(&folder, "sensors").await;
    let first = command(&db, key("POST /a", Some("k")), "attic", 1)
        .await
        .unwrap();
    let again = command(&db, key("POST /a", Some("k")), "attic", 1)
        .await
        .unwrap();
    assert_eq!(first, again);
    assert_eq!(effects(&db).await, 1);
}

#[tokio::test]
async fn the_same_command_at_the_same_time_has_one_effect() {
    let folder = folder();
    let db = open(&folder, "sensors").await;
    let many = (0..50).map(|_| command(&db, key("POST /a", Some("k")), "attic", 1));
    let answers = futures_util::future::join_all(many).await;
    let first = answers[0].as_ref().unwrap();
    assert!(
        answers
            .iter()
            .all(|answer| answer.as_ref().unwrap() == first)
    );
    assert_eq!(effects(&db).await, 1);
}

#[tokio::test]
async fn another_command_under_the_same_key_is_refused() {
    let folder = folder();
    let db = open(&folder, "sensors").await;
    command(&db, key("POST /a", Some("k")), "attic", 1)
        .await
        .unwrap();
    let other = command(&db, key("POST /a", Some("k")), "attic", 2).await;
    assert_eq!(refused(other), Refusal::KeyReused);
    assert_eq!(effects(&db).await, 1);
}

#[tokio::test]
async fn the_same_key_in_another_scope_is_another_key() {
    let folder = folder();
    let db = open(&folder, "sensors").await;
    command(&db, key("POST /a", Some("k")), "attic", 1)
        .await
        .unwrap();
    command(&db, key("POST /b", Some("k")), "attic", 2)
        .await
        .unwrap();
    assert_eq!(effects(&db).await, 2);
}

#[tokio::test]
async fn a_refused_command_leaves_no_key() {
    let folder = folder();
    let db = open(&folder, "sensors").await;
    let rejected = command(&db, key("POST /a", Some("k")), "attic", -1).await;
    assert!(matches!(rejected, Err(WriteError::Refused(No::Rejected))));
    command(&db, key("POST /a", Some("k")), "attic", 1)
        .await
        .unwrap();
    assert_eq!(effects(&db).await, 1);
}

#[tokio::test]
async fn without_a_key_nothing_is_remembered() {
    let folder = folder();
    let db = open(&folder, "sensors").await;
    command(&db, key("POST /a", None), "attic", 1)
        .await
        .unwrap();
    command(&db, key("POST /a", None), "attic", 1)
        .await
        .unwrap();
    assert_eq!(effects(&db).await, 2);
}

#[tokio::test]
async fn a_late_retry_does_not_make_again_what_was_erased() {
    let folder = folder();
    let db = open(&folder, "sensors").await;
    command(&db, key("POST /a", Some("k")), "attic", 1)
        .await
        .unwrap();
    command(&db, key("POST /a", Some("other")), "cellar", 1)
        .await
        .unwrap();
    db.write(|tx| idempotency::forget(tx, ["attic".to_owned()]))
        .await
        .unwrap();
    let late = command(&db, key("POST /a", Some("k")), "attic", 1).await;
    assert_eq!(refused(late), Refusal::Erased);
    command(&db, key("POST /a", Some("other")), "cellar", 1)
        .await
        .unwrap();
    assert_eq!(effects(&db).await, 2);
    let left = "SELECT count(*) AS n FROM headwater_idempotency
                WHERE entity = 'attic' AND (answer IS NOT NULL OR fingerprint IS NOT NULL)";
    assert_eq!(
        db.read(|snapshot| integers(snapshot, left)).await.unwrap(),
        [0]
    );
}

#[tokio::test]
async fn an_earlier_answer_is_found_without_doing_anything() {
    let folder = folder();
    let db = open(&folder, "sensors").await;
    let first = command(&db, key("POST /a", Some("k")), "attic", 1)
        .await
        .unwrap();
    let find = async |key: Key, value: i64| {
        let fingerprint = Fingerprint::of(&("attic", value));
        db.read(move |snapshot| {
            idempotency::earlier::<Answer, No>(snapshot, snapshot.keys(), &key, &fingerprint)
        })
        .await
    };
    let known = find(key("POST /a", Some("k")), 1).await.unwrap();
    assert_eq!(known, Some(first));
    let other = find(key("POST /a", Some("k")), 2).await;
    assert!(matches!(other, Err(No::Key(Refusal::KeyReused))));
    for unknown in [key("POST /b", Some("k")), key("POST /a", None)] {
        assert_eq!(find(unknown, 1).await.unwrap(), None);
    }
    assert_eq!(effects(&db).await, 1);
}

/// A clock whose date and uptime are set in days.
#[derive(Clone, Default)]
struct Days {
    date: Arc<AtomicU64>,
    running: Arc<AtomicU64>,
}

impl Days {
    fn clock(&self) -> Clock {
        let Self { date, running } = self.clone();
        let days = |count: u64| Duration::from_hours(24 * count);
        let now = move || SystemTime::UNIX_EPOCH + days(20_000 + date.load(Ordering::SeqCst));
        Clock::from_fn(now).with_running(move || days(running.load(Ordering::SeqCst)))
    }

    async fn open(&self, folder: &TempDir) -> Database {
        let config = Config::at(folder.path().join("sensors.db"));
        let opened = Database::open("sensors", &config, MIGRATIONS, self.clock());
        opened.await.unwrap()
    }
}

/// Ten commands with different keys.
async fn ten(db: &Database, name: &str) {
    for number in 0..10 {
        let key = key("POST /a", Some(&format!("{name} {number}")));
        command(db, key, "attic", 1).await.unwrap();
    }
}

async fn keys(db: &Database) -> i64 {
    let count = "SELECT count(*) AS n FROM headwater_idempotency";
    let counted = db.read(move |snapshot| integers(snapshot, count));
    counted.await.unwrap()[0]
}

#[tokio::test]
async fn expired_keys_are_cleared_faster_than_new_ones_come() {
    let folder = folder();
    let days = Days::default();
    let db = days.open(&folder).await;
    ten(&db, "old").await;
    days.running.store(6, Ordering::SeqCst);
    command(&db, key("POST /a", Some("young")), "attic", 1)
        .await
        .unwrap();
    assert_eq!(keys(&db).await, 11, "none has expired");

    let kept_days = KEPT.as_secs() / (24 * 60 * 60);
    days.running.store(kept_days + 1, Ordering::SeqCst);
    for number in 0..5 {
        let key = key("POST /a", Some(&format!("new {number}")));
        command(&db, key, "attic", 1).await.unwrap();
    }
    assert_eq!(keys(&db).await, 6, "five new keys and the young one");
}

#[tokio::test]
async fn a_clock_that_jumps_makes_no_key_older() {
    let folder = folder();
    let days = Days::default();
    days.date.store(30, Ordering::SeqCst);
    let mut db = days.open(&folder).await;
    ten(&db, "first").await;
    // Eight days ahead, back, and further in both directions, in one run and across restarts.
    for (jump, date) in [38, 30, 9, 70, 30].into_iter().enumerate() {
        days.date.store(date, Ordering::SeqCst);
        ten(&db, &format!("jump {jump}")).await;
        db.close().await;
        db = days.open(&folder).await;
        ten(&db, &format!("restart {jump}")).await;
    }
    assert_eq!(keys(&db).await, 110);
    let before = effects(&db).await;
    ten(&db, "first").await;
    assert_eq!(
        effects(&db).await,
        before,
        "repeated commands have no effect"
    );
}

fn old_answer() -> Answer {
    let position = Position {
        source: "sensors".to_owned(),
        position: 1,
    };
    Answer::created("/sensors/attic".to_owned(), position, &1)
}

/// A database of the version before keyed hashes, with the keys of many commands, some of them
/// deleted.
fn old_database(folder: &TempDir) {
    let file = rusqlite::Connection::open(folder.path().join("sensors.db")).unwrap();
    file.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA secure_delete = ON;
         CREATE TABLE headwater_migration (name TEXT PRIMARY KEY, checksum TEXT NOT NULL) WITHOUT ROWID",
    )
    .unwrap();
    for (name, sql) in [
        (
            "0001_chassis",
            include_str!("../../../store/migrations/0001_chassis.sql"),
        ),
        (
            "0002_operators",
            include_str!("../../../store/migrations/0002_operators.sql"),
        ),
        (
            "0003_pause",
            include_str!("../../../store/migrations/0003_pause.sql"),
        ),
        (
            "0004_epochs",
            include_str!("../../../store/migrations/0004_epochs.sql"),
        ),
        (
            "0005_relay",
            include_str!("../../../store/migrations/0005_relay.sql"),
        ),
    ] {
        file.execute_batch(sql).unwrap();
        let digest = bytes::Bytes::copy_from_slice(&Sha256::digest(sql));
        let checksum = format!("{digest:x}");
        file.execute(
            "INSERT INTO headwater_migration VALUES (?, ?)",
            [name, &checksum],
        )
        .unwrap();
    }
    file.execute_batch("INSERT INTO headwater_database VALUES (1, 'sensors', 'e', 0); BEGIN")
        .unwrap();
    let answer = serde_json::to_string(&old_answer()).unwrap();
    let fingerprint = Fingerprint::of(&("attic", 1)).0;
    let mut insert = file
        .prepare("INSERT INTO headwater_idempotency VALUES ('POST /a', ?, ?, 'attic', ?, 1)")
        .unwrap();
    for number in 0..3_000 {
        // Unsorted, so that pages of the tree are split in the middle.
        let key = format!("clear-{:x}-{number}", number * 7_919 % 3_000);
        insert.execute(params![key, fingerprint, answer]).unwrap();
    }
    let forgotten = "UPDATE headwater_idempotency SET fingerprint = NULL, answer = NULL
                     WHERE key LIKE '%-1'";
    let deleted = "DELETE FROM headwater_idempotency WHERE recorded_at = 1 AND key LIKE '%3'";
    for sql in [forgotten, deleted, "COMMIT"] {
        file.execute_batch(sql).unwrap();
    }
    // The log stays, as after kill -9.
    std::mem::forget(insert);
    std::mem::forget(file);
}

#[tokio::test]
async fn keys_that_an_earlier_version_stored_as_text_are_hashed_and_no_text_is_left() {
    let folder = folder();
    old_database(&folder);
    assert!(!files_with(&folder, "clear-").is_empty());
    let db = open(&folder, "sensors").await;
    assert_eq!(
        files_with(&folder, "clear-"),
        Vec::<PathBuf>::new(),
        "while it is open"
    );
    let keys = db.read(|at| integers(at, "SELECT count(*) AS n FROM headwater_idempotency"));
    assert_eq!(keys.await.unwrap(), [2_700]);

    let before = |text| key("POST /a", Some(text));
    let again = command(&db, before("clear-0-0"), "attic", 1).await;
    assert_eq!(again.unwrap(), old_answer());
    let other = command(&db, before("clear-0-0"), "attic", 2).await;
    assert_eq!(refused(other), Refusal::KeyReused);
    let forgotten = command(&db, before("clear-77f-1"), "attic", 1).await;
    assert_eq!(refused(forgotten), Refusal::Erased);
    db.close().await;
    assert_eq!(files_with(&folder, "clear-"), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn the_text_of_a_key_is_stored_nowhere() {
    let folder = folder();
    let db = open(&folder, "sensors").await;
    let text = "ada@example.com registers";
    command(&db, key("POST /a", Some(text)), "attic", 1)
        .await
        .unwrap();
    assert_eq!(files_with(&folder, text), Vec::<PathBuf>::new());
    db.close().await;
    assert_eq!(files_with(&folder, text), Vec::<PathBuf>::new());
}

/// The files in `folder` that contain `text`.
fn files_with(folder: &TempDir, text: &str) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder.path()).unwrap();
    let files = files.map(|file| file.unwrap().path());
    let holds = |file: &PathBuf| {
        let bytes = std::fs::read(file).unwrap();
        bytes
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    };
    files.filter(holds).collect()
}
