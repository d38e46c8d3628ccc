//! Writing: groups, the result of each caller, and what remains in the database.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use headwater::database::{Committed, Config, Database, Error, Tx, WriteError};
use headwater::{Clock, causes, outbox};
use sea_orm::{ConnectionTrait as _, DbErr};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::support::{
    MIGRATIONS, Refused, Tasks, append, execute, folder, integers, keep_log, keep_reading, latch,
    logged, metrics, open, read, readings, reads, serve_system,
};

/// Puts a write into the queue.
fn queued<F: Future>(write: F) -> Pin<Box<F>> {
    let mut write = Box::pin(write);
    assert!(
        (&mut write).now_or_never().is_none(),
        "the write was answered at once"
    );
    write
}

/// Blocks the writer until the sender is used or dropped; resolves once the writer is blocked.
async fn block(db: &Database) -> (std::sync::mpsc::Sender<()>, tokio::task::JoinSet<()>) {
    let (open, latch) = latch();
    let (started, has_started) = tokio::sync::oneshot::channel();
    let (mut tasks, db) = (tokio::task::JoinSet::new(), db.clone());
    tasks.spawn(async move {
        let first = db.write(move |_| {
            started.send(()).unwrap();
            latch.wait();
            Ok::<_, DbErr>(())
        });
        // Its result does not matter.
        drop(first.await);
    });
    has_started.await.unwrap();
    (open, tasks)
}

async fn with(folder: &TempDir, owner: &'static str, change: impl FnOnce(&mut Config)) -> Database {
    let mut config = Config::at(folder.path().join(format!("{owner}.db")));
    change(&mut config);
    Database::open(owner, &config, MIGRATIONS, Clock::system())
        .await
        .unwrap()
}

fn reading(value: i64) -> impl FnOnce(&Tx) -> Result<(), DbErr> + Send + 'static {
    move |tx| keep_reading(tx, "attic", value)
}

#[tokio::test]
async fn a_write_answers_with_its_value_and_its_position() {
    let folder = folder();
    let db = open(&folder, "sensors").await;
    append(&db, reads(1..=2)).await;
    let Committed {
        value, position, ..
    } = db
        .write(|tx| {
            outbox::append(tx, &read("attic", 3))?;
            outbox::append(tx, &read("attic", 4))?;
            Ok::<_, DbErr>("done")
        })
        .await
        .unwrap();
    assert_eq!(value, "done");
    assert_eq!(position.unwrap().to_string(), "sensors:4");
    assert_eq!(*db.head().borrow(), 4);
    assert!(
        db.write(reading(1)).await.unwrap().position.is_none(),
        "the write appended nothing"
    );
}

#[tokio::test]
async fn an_error_rolls_back_its_own_write_only() {
    let folder = folder();
    let db = open(&folder, "sensors").await;
    let (release, _blocked) = block(&db).await;
    let before = queued(db.write(reading(1)));
    let refused = queued(db.write(|tx| {
        keep_reading(tx, "attic", 2)?;
        outbox::append(tx, &read("attic", 2))?;
        Err::<(), _>(DbErr::Custom("no".to_owned()))
    }));
    let after = queued(db.write(reading(3)));
    drop(release);
    before.await.unwrap();
    after.await.unwrap();
    assert!(matches!(refused.await, Err(WriteError::Refused(DbErr::Custom(no))) if no == "no"));
    assert_eq!(readings(&db).await, [1, 3]);
    assert_eq!(
        append(&db, reads(1..=1)).await,
        1,
        "the position is used again"
    );
}

#[tokio::test]
async fn a_panic_rolls_back_its_own_write_only() {
    let folder = folder();
    let db = open(&folder, "sensors").await;
    let (release, _blocked) = block(&db).await;
    let before = queued(db.write(reading(1)));
    let panicked = queued(db.write(|tx| -> Result<(), DbErr> {
        keep_reading(tx, "attic", 2)?;
        outbox::append(tx, &read("attic", 2))?;
        panic!("a bug in a write")
    }));
    let after = queued(db.write(reading(3)));
    drop(release);
    before.await.unwrap();
    after.await.unwrap();
    assert!(matches!(panicked.await, Err(WriteError::Panicked)));
    assert_eq!(readings(&db).await, [1, 3]);
    assert_eq!(*db.head().borrow(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn positions_have_no_gaps_after_rollbacks_under_load() {
    let folder = folder();
    let db = open(&folder, "sensors").await;
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..8 {
        let db = db.clone();
        clients.spawn(async move {
            for turn in 0..100 {
                let outcome = db.write(move |tx| {
                    outbox::append(tx, &read("attic", client * 100 + turn))?;
                    match turn % 4 {
                        1 => Err(DbErr::Custom("no".to_owned())),
                        2 => panic!("a bug in a write"),
                        _ => Ok(()),
                    }
                });
                assert_eq!(outcome.await.is_ok(), turn % 4 == 0 || turn % 4 == 3);
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    let rows = db
        .read(|snapshot| outbox::page(snapshot, 1, 1000))
        .await
        .unwrap();
    let positions: Vec<u64> = rows.iter().map(|row| row.position).collect();
    assert_eq!(positions, (1..=400).collect::<Vec<_>>());
    assert_eq!(*db.head().borrow(), 400);
}

#[tokio::test]
async fn writes_that_wait_share_commits_and_a_group_is_bounded() {
    let folder = folder();
    let mut tasks = Tasks::none();
    let address = serve_system(&mut tasks).await;
    metrics(&address).await;
    let db = with(&folder, "grouping", |config| config.group = 25).await;
    let (release, mut blocked) = block(&db).await;
    let waiting: Vec<_> = (0..100)
        .map(|value| queued(db.write(reading(value))))
        .collect();
    drop(release);
    blocked.join_next().await.unwrap().unwrap();
    for write in waiting {
        write.await.unwrap();
    }
    let metrics = metrics(&address).await;
    let of = |what: &str| {
        metrics[&format!("headwater_database_group_size_{what}{{service=\"grouping\"}}")]
    };
    assert_eq!(of("sum"), 101);
    // Five full groups; more if a group was closed because it took too long.
    assert!((5..=30).contains(&of("count")), "{} commits", of("count"));
    tasks.stop().await;
}

#[tokio::test]
async fn a_full_queue_answers_busy_and_writes_nothing() {
    let folder = folder();
    let db = with(&folder, "sensors", |config| config.queue = 2).await;
    let (release, _blocked) = block(&db).await;
    let (first, second) = (queued(db.write(reading(1))), queued(db.write(reading(2))));
    assert!(matches!(db.write(reading(3)).await, Err(Refused::Busy)));
    drop(release);
    first.await.unwrap();
    second.await.unwrap();
    assert_eq!(readings(&db).await, [1, 2]);
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_no_half_write() {
    let folder = folder();
    let db = open(&folder, "sensors").await;
    let (release, _blocked) = block(&db).await;
    drop(queued(db.write(|tx| {
        keep_reading(tx, "attic", 1)?;
        keep_reading(tx, "attic", 2)
    })));
    let after = queued(db.write(reading(3)));
    drop(release);
    after.await.unwrap();
    assert_eq!(readings(&db).await, [1, 2, 3], "the write completed");
}

fn a_slow_write(tx: &Tx) -> Result<(), DbErr> {
    // Long enough in SQLite, without a sleep.
    let count = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 300000)
                 SELECT count(*) AS n FROM c";
    integers(tx, count).map(drop)
}

#[tokio::test]
async fn a_slow_write_is_logged_by_its_name() {
    keep_log();
    let folder = folder();
    let db = with(&folder, "sensors", |config| {
        config.slow_write = Duration::from_millis(1);
    })
    .await;
    db.write(a_slow_write).await.unwrap();
    let slow = logged("a_slow_write");
    assert!(
        slow.iter().any(|line| line.contains("slow write")),
        "{slow:?}"
    );
    assert!(slow.iter().all(|line| line.starts_with("WARN")), "{slow:?}");

    let by_closure = |tx: &Tx| a_slow_write(tx);
    db.write(by_closure).await.unwrap();
    let slow = logged("a_slow_write_is_logged_by_its_name");
    assert!(
        slow.iter().any(|line| !line.contains("{{closure}}\"")),
        "{slow:?}"
    );
}

/// The effect of a failed commit is known only after reopening, so its writes must not be reported
/// as undone. A deferred foreign key makes a commit fail without a broken disk.
#[tokio::test]
async fn a_failed_commit_is_unknown_to_all_of_its_group_and_stops_the_writer() {
    let folder = folder();
    let db = open(&folder, "sensors").await;
    let (release, _blocked) = block(&db).await;
    let neighbour = queued(db.write(reading(1)));
    let orphan = queued(db.write(|tx| execute(tx, "INSERT INTO late_tag (label) VALUES (7)", [])));
    drop(release);
    assert!(matches!(neighbour.await, Err(WriteError::Unknown)));
    assert!(matches!(orphan.await, Err(WriteError::Unknown)));
    let stopped = db
        .clone()
        .watch(CancellationToken::new())
        .await
        .unwrap_err();
    assert!(matches!(stopped, Error::WriterStopped(_)), "{stopped:?}");
    let why = causes(&stopped);
    assert!(
        why.contains("commit: the outcome of its writes is unknown"),
        "{why}"
    );
    assert!(matches!(db.write(reading(2)).await, Err(Refused::Unknown)));
    assert_eq!(readings(&db).await, [] as [i64; 0]);
    assert_eq!(*db.head().borrow(), 0);
}

/// SQLite rolls back a whole transaction on some errors (disk full, read error, out of memory), or
/// if a statement says so, as here.
#[tokio::test]
async fn a_transaction_that_sqlite_rolled_back_is_never_reported_as_committed() {
    for swallow in [true, false] {
        let folder = folder();
        let db = open(&folder, "sensors").await;
        let (release, _blocked) = block(&db).await;
        let neighbour = queued(db.write(|tx| outbox::append(tx, &read("attic", 1))));
        let ended = queued(db.write(move |tx| {
            execute(tx, "INSERT INTO label (value) VALUES (1)", [])?;
            let double = execute(tx, "INSERT OR ROLLBACK INTO label (value) VALUES (1)", []);
            if swallow { Ok(()) } else { double }
        }));
        let later = queued(db.write(|tx| outbox::append(tx, &read("attic", 3))));
        drop(release);
        assert!(matches!(neighbour.await, Err(WriteError::Unknown)));
        assert!(matches!(ended.await, Err(WriteError::Unknown)));
        assert!(matches!(later.await, Err(WriteError::Unknown)));
        db.clone()
            .watch(CancellationToken::new())
            .await
            .unwrap_err();
        let left = db.read(|snapshot| outbox::page(snapshot, 1, 10)).await;
        assert_eq!(left.unwrap(), []);
        assert_eq!(*db.head().borrow(), 0);
    }
}

/// A closure that continues after such an error would write outside any transaction.
#[tokio::test]
async fn what_follows_in_a_write_after_sqlite_rolled_it_back_is_not_kept() {
    let folder = folder();
    let db = open(&folder, "sensors").await;
    let outcome = db.write(|tx| {
        execute(tx, "INSERT INTO label (value) VALUES (1)", [])?;
        drop(execute(
            tx,
            "INSERT OR ROLLBACK INTO label (value) VALUES (1)",
            [],
        ));
        keep_reading(tx, "attic", 1)
    });
    assert!(outcome.await.is_err());
    assert_eq!(readings(&db).await, [] as [i64; 0]);
}

/// An exclusive write has no savepoint by which the writer could detect the rollback.
#[tokio::test]
async fn what_is_written_alone_after_sqlite_rolled_it_back_is_not_kept_either() {
    let folder = folder();
    let db = open(&folder, "sensors").await;
    let outcome = db.write_exclusive(|tx| {
        execute(tx, "INSERT INTO label (value) VALUES (1)", [])?;
        let sql = "INSERT OR ROLLBACK INTO label (value) VALUES (1)";
        drop(execute(tx, sql, []));
        keep_reading(tx, "attic", 1)
    });
    assert!(matches!(outcome.await, Err(WriteError::Unknown)));
    assert_eq!(readings(&db).await, [] as [i64; 0]);
}

#[tokio::test]
async fn a_write_alone_is_kept_or_not_apart_from_those_that_wait_with_it() {
    let folder = folder();
    let db = open(&folder, "sensors").await;
    let (release, _blocked) = block(&db).await;
    let before = queued(db.write(reading(1)));
    let refused = queued(db.write_exclusive(|tx| {
        keep_reading(tx, "attic", 2)?;
        Err::<(), _>(DbErr::Custom("no".to_owned()))
    }));
    let between = queued(db.write(reading(3)));
    let alone = queued(db.write_exclusive(|tx| keep_reading(tx, "attic", 4)));
    let panicking = queued(db.write_exclusive(|tx| {
        keep_reading(tx, "attic", 5)?;
        assert!(tx.now_ms() < 0, "as a projection may");
        Ok::<_, DbErr>(())
    }));
    let after = queued(db.write(reading(6)));
    drop(release);
    assert!(before.await.is_ok() && between.await.is_ok() && after.await.is_ok());
    assert!(matches!(refused.await, Err(WriteError::Refused(_))));
    assert!(matches!(panicking.await, Err(WriteError::Panicked)));
    assert!(alone.await.is_ok());
    assert_eq!(readings(&db).await, [1, 3, 4, 6]);
}

/// The group is certainly not kept: its writes are refused, and the writer continues.
#[tokio::test]
async fn a_full_database_refuses_its_writes_and_takes_the_next() {
    let folder = folder();
    let db = open(&folder, "sensors").await;
    let (release, _blocked) = block(&db).await;
    let before = queued(db.write(|tx| outbox::append(tx, &read("attic", 1))));
    let full = queued(db.write(|tx| {
        let pages = integers(tx, "SELECT page_count AS n FROM pragma_page_count")?[0];
        tx.execute_unprepared(&format!("PRAGMA max_page_count = {pages}"))?;
        let filled = execute(
            tx,
            "INSERT INTO reading (sensor, value) VALUES (hex(zeroblob(1000000)), 2)",
            [],
        );
        tx.execute_unprepared("PRAGMA max_page_count = 1000000")?;
        filled
    }));
    let after = queued(db.write(|tx| outbox::append(tx, &read("attic", 3))));
    drop(release);
    assert!(matches!(full.await, Err(WriteError::Full)));
    assert!(matches!(before.await, Err(WriteError::Full)));
    assert_eq!(after.await.unwrap().position.unwrap().position, 1);
    assert_eq!(readings(&db).await, [] as [i64; 0]);
    assert_eq!(*db.head().borrow(), 1, "the position of the refused event");
}

#[tokio::test]
async fn all_that_was_queued_is_answered_when_the_writer_stops() {
    let folder = folder();
    let db = with(&folder, "sensors", |config| config.group = 2).await;
    let (release, _blocked) = block(&db).await;
    let orphan = queued(db.write(|tx| execute(tx, "INSERT INTO late_tag (label) VALUES (7)", [])));
    let rest: Vec<_> = (0..20)
        .map(|value| queued(db.write(reading(value))))
        .collect();
    drop(release);
    assert!(matches!(orphan.await, Err(WriteError::Unknown)));
    for write in rest {
        assert!(matches!(write.await, Err(WriteError::Unknown)));
    }
}

#[tokio::test]
async fn the_database_is_closed_when_its_last_handle_is_dropped() {
    static RUN: AtomicUsize = AtomicUsize::new(0);
    let folder = folder();
    let db = open(&folder, "sensors").await;
    let (release, blocked) = block(&db).await;
    let last = db.clone();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        last.write(|_| {
            RUN.fetch_add(1, Ordering::SeqCst);
            Ok::<_, DbErr>(())
        })
        .await
        .unwrap();
    });
    drop((db, release, blocked));
    tasks.join_next().await.unwrap().unwrap();
    assert_eq!(RUN.load(Ordering::SeqCst), 1, "queued writes come first");
    let again = open(&folder, "sensors").await;
    again.write(reading(1)).await.unwrap();
}
