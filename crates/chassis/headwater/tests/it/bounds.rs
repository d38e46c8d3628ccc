//! Limits on the write-ahead log and on the duration of a read.

#![expect(
    clippy::disallowed_methods,
    reason = "the test owns its background tasks"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use headwater::Clock;
use headwater::database::{Config, Database, Snapshot};
use headwater::http::Problem;
use tempfile::TempDir;

use crate::support::{MIGRATIONS, append, folder, integers, large};

/// Some milliseconds of work for SQLite in one snapshot.
const SLOW: &str = "WITH RECURSIVE number (n) AS
    (SELECT 1 UNION ALL SELECT n + 1 FROM number LIMIT 30000) SELECT count(*) AS n FROM number";

const ENDLESS: &str = "WITH RECURSIVE number (n) AS
    (SELECT 1 UNION ALL SELECT n + 1 FROM number) SELECT count(*) AS n FROM number";

/// Opens a database with another limit.
async fn open_with(folder: &TempDir, limit: impl FnOnce(&mut Config)) -> Database {
    let mut config = Config::at(folder.path().join("sensors.db"));
    limit(&mut config);
    let db = Database::open("sensors", &config, MIGRATIONS, Clock::system());
    db.await.unwrap()
}

/// Without the limit, the log grows to the size of all writes, some 24 MiB here: while reads
/// overlap, SQLite never restarts the log.
#[tokio::test(flavor = "multi_thread")]
async fn the_write_ahead_log_stays_small_while_reads_overlap() {
    let folder = folder();
    let db = open_with(&folder, |config| config.wal_mib = 1).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let reads = (0..4).map(|_| {
        let (db, is_over) = (db.clone(), Arc::clone(&is_over));
        tokio::task::spawn(async move {
            let mut reads = 0;
            while !is_over.load(Ordering::Relaxed) {
                // From the table first: a snapshot starts with the first read from the file.
                let read = db.read(|snapshot: &Snapshot| {
                    integers(snapshot, "SELECT count(*) AS n FROM headwater_outbox")?;
                    integers(snapshot, SLOW)
                });
                read.await.unwrap();
                reads += 1;
            }
            reads
        })
    });
    let reads: Vec<_> = reads.collect();
    let mut largest = 0;
    for value in 0..96 {
        append(&db, vec![large(value, 256 * 1024)]).await;
        let wal = std::fs::metadata(folder.path().join("sensors.db-wal"));
        largest = largest.max(wal.unwrap().len());
    }
    is_over.store(true, Ordering::Relaxed);
    for read in reads {
        assert!(read.await.unwrap() > 0, "reads continued meanwhile");
    }
    assert!(largest < 3 * 1024 * 1024, "the log grew to {largest} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_takes_too_long_is_broken_off_and_harms_no_other() {
    let folder = folder();
    let db = open_with(&folder, |config| {
        (config.read_timeout, config.readers) = (Duration::from_millis(50), 1);
    })
    .await;
    for _ in 0..2 {
        let endless = db
            .read(|snapshot: &Snapshot| integers(snapshot, ENDLESS))
            .await;
        let problem = Problem::from(endless.unwrap_err());
        assert_eq!(problem.status(), 503);
        let fine = db.read(|snapshot: &Snapshot| integers(snapshot, "SELECT 1 AS n"));
        assert_eq!(fine.await.unwrap(), [1]);
    }
}

/// The read of a caller that has gone ends too.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_nobody_waits_for_any_more_is_broken_off_too() {
    let folder = folder();
    let db = open_with(&folder, |config| {
        (config.read_timeout, config.readers) = (Duration::from_millis(50), 1);
    })
    .await;
    let (started, running) = tokio::sync::oneshot::channel();
    let reader = db.clone();
    let gone = tokio::task::spawn(async move {
        let read = reader.read(|snapshot: &Snapshot| {
            started.send(()).unwrap();
            integers(snapshot, ENDLESS)
        });
        read.await
    });
    running.await.unwrap();
    gone.abort();
    let fine = db.read(|snapshot: &Snapshot| integers(snapshot, "SELECT 1 AS n"));
    assert_eq!(fine.await.unwrap(), [1]);
}

#[tokio::test]
async fn a_bounded_statement_is_broken_off_after_its_steps_and_the_read_goes_on() {
    let folder = folder();
    let db = open_with(&folder, |config| config.readers = 1).await;
    let number = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
    for _ in 0..2 {
        let found = db.read_raw(move |snapshot| {
            let endless = snapshot.rows_within(10_000, ENDLESS, (), number)?;
            let small = snapshot.rows_within(10_000, "SELECT 1", (), number)?;
            let unbounded = snapshot.row(SLOW, (), number)?;
            Ok::<_, sea_orm::DbErr>((endless, small, unbounded))
        });
        assert_eq!(found.await.unwrap(), (None, Some(vec![1]), Some(30_000)));
    }
    let wrong = db.read_raw(|snapshot| snapshot.rows_within(10_000, "SELECT none", (), |_| Ok(())));
    assert!(wrong.await.is_err());
}

/// While another process keeps the log from being emptied, writes continue.
#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_long_read_does_not_stop_writes() {
    let folder = folder();
    let db = open_with(&folder, |config| config.wal_mib = 1).await;
    append(&db, vec![large(0, 10)]).await;
    let other = rusqlite::Connection::open(folder.path().join("sensors.db")).unwrap();
    other
        .execute_batch("BEGIN; SELECT count(*) FROM headwater_outbox")
        .unwrap();
    for value in 1..=12 {
        append(&db, vec![large(value, 256 * 1024)]).await;
    }
    other.execute_batch("COMMIT").unwrap();
    let count =
        |snapshot: &Snapshot| integers(snapshot, "SELECT count(*) AS n FROM headwater_outbox");
    assert_eq!(db.read(count).await.unwrap(), [13]);
}
