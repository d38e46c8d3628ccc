//! Opening, migrating and reading a database.

use headwater::database::{Bulk, Config, Database, Error, Migration, Snapshot};
use headwater::{Clock, causes, outbox};
use sea_orm::{ConnectionTrait as _, DbErr};
use tempfile::TempDir;

use crate::support::{
    MIGRATIONS, PATIENCE, Refused, append, eventually, execute, folder, integers, keep_log, logged,
    open, read, reads, texts,
};

async fn open_at(
    folder: &TempDir,
    owner: &'static str,
    migrations: &'static [Migration],
) -> Result<Database, Error> {
    let config = Config::at(folder.path().join("shared.db"));
    Database::open(owner, &config, migrations, Clock::system()).await
}

/// The error of opening, and its text with the whole chain of causes.
async fn refusal(
    folder: &TempDir,
    owner: &'static str,
    own: &'static [Migration],
) -> (Error, String) {
    let error = open_at(folder, owner, own).await.unwrap_err();
    let why = causes(&error);
    (error, why)
}

const FIRST: Migration =
    Migration::sql("0001_first", "CREATE TABLE first (id INTEGER PRIMARY KEY)");
const FIRST_CHANGED: Migration = Migration::sql(
    "0001_first",
    "CREATE TABLE first (id INTEGER PRIMARY KEY, more TEXT)",
);
const SECOND: Migration = Migration::sql(
    "0002_second",
    "CREATE TABLE second (id INTEGER PRIMARY KEY)",
);
const WRONG: Migration = Migration::sql(
    "0003_wrong",
    "CREATE TABLE third (id INTEGER PRIMARY KEY); CREATE TABLE third (id INTEGER)",
);

#[tokio::test]
async fn commits_are_durable_and_foreign_keys_hold() {
    let folder = folder();
    let db = open(&folder, "sensors").await;
    let settings = db.write(|tx| {
        let journal = texts(tx, "SELECT journal_mode AS t FROM pragma_journal_mode")?;
        let synchronous = integers(tx, "SELECT synchronous AS n FROM pragma_synchronous")?;
        let foreign = integers(tx, "SELECT foreign_keys AS n FROM pragma_foreign_keys")?;
        Ok::<_, DbErr>((journal, synchronous, foreign))
    });
    let full = 2;
    let wanted = (vec!["wal".to_owned()], vec![full], vec![1]);
    assert_eq!(settings.await.unwrap().value, wanted);

    let orphan = db.write(|tx| execute(tx, "INSERT INTO tag (label) VALUES (7)", []));
    assert!(matches!(orphan.await, Err(Refused::Refused(_))));
}

#[tokio::test]
async fn a_migration_is_applied_once_and_another_one_later() {
    let folder = folder();
    drop(open_at(&folder, "sensors", &[FIRST]).await.unwrap());
    drop(open_at(&folder, "sensors", &[FIRST]).await.unwrap());
    let db = open_at(&folder, "sensors", &[FIRST, SECOND]).await.unwrap();
    let tables = "SELECT name AS t FROM sqlite_schema
                  WHERE name IN ('first', 'second') ORDER BY name";
    let found = db.read(|snapshot| texts(snapshot, tables)).await.unwrap();
    assert_eq!(found, ["first", "second"]);
}

#[tokio::test]
async fn a_changed_migration_is_refused() {
    let folder = folder();
    drop(open_at(&folder, "sensors", &[FIRST]).await.unwrap());
    let (error, why) = refusal(&folder, "sensors", &[FIRST_CHANGED]).await;
    assert!(matches!(error, Error::ChangedMigration(_)), "{error:?}");
    assert!(
        why.contains("0001_first was changed after it was applied"),
        "{why}"
    );
}

#[tokio::test]
async fn a_migration_that_is_not_known_is_refused() {
    let folder = folder();
    drop(open_at(&folder, "sensors", &[FIRST, SECOND]).await.unwrap());
    let (error, why) = refusal(&folder, "sensors", &[FIRST]).await;
    assert!(matches!(error, Error::Newer(_)), "{error:?}");
    assert!(
        why.contains("0002_second, which this program does not know"),
        "{why}"
    );
}

#[tokio::test]
async fn a_migration_that_fails_leaves_nothing() {
    let folder = folder();
    let (error, why) = refusal(&folder, "sensors", &[FIRST, WRONG]).await;
    assert!(matches!(error, Error::Other(_)), "{error:?}");
    assert!(why.contains("apply the migration 0003_wrong"), "{why}");
    let db = open_at(&folder, "sensors", &[SECOND]).await.unwrap();
    let tables = "SELECT name AS t FROM sqlite_schema WHERE name IN ('first', 'second', 'third')";
    let found = db.read(|snapshot| texts(snapshot, tables)).await.unwrap();
    assert_eq!(found, ["second"]);
}

#[tokio::test]
async fn another_services_database_is_refused_and_left_as_it_is() {
    let folder = folder();
    drop(open_at(&folder, "sensors", &[FIRST]).await.unwrap());
    for own in [
        &[FIRST, SECOND] as &[Migration],
        &[SECOND],
        &[FIRST_CHANGED],
    ] {
        let (error, why) = refusal(&folder, "gauges", own).await;
        assert!(matches!(error, Error::OtherOwner(_)), "{error:?}");
        assert!(why.contains("belongs to the service `sensors`"), "{why}");
    }
    open_at(&folder, "sensors", &[FIRST]).await.unwrap();
}

#[tokio::test]
async fn an_epoch_lasts_as_long_as_its_database() {
    let folder = folder();
    let epoch = open(&folder, "sensors").await.epoch();
    let opened_again = open(&folder, "sensors").await;
    assert_eq!(opened_again.epoch(), epoch);
    let new = open(&crate::support::folder(), "sensors").await;
    assert_ne!(new.epoch(), epoch);
}

#[tokio::test]
async fn the_head_is_known_at_opening() {
    let folder = folder();
    let db = open(&folder, "sensors").await;
    append(&db, reads(1..=3)).await;
    drop(db);
    assert_eq!(*open(&folder, "sensors").await.head().borrow(), 3);
}

/// A process could write to a renamed file for ever, and the next start would find none of it.
#[tokio::test]
async fn a_database_whose_file_is_not_where_it_was_opened_takes_no_write_until_it_is_back() {
    let folder = folder();
    let db = open(&folder, "sensors").await;
    append(&db, reads(1..=3)).await;
    let events = async || db.read(|snapshot| outbox::page(snapshot, 1, 10)).await;
    assert_eq!(events().await.unwrap().len(), 3);
    let (path, aside) = (
        folder.path().join("sensors.db"),
        folder.path().join("aside.db"),
    );
    let write = async || {
        let written = db.write(|tx| outbox::append(tx, &read("attic", 4)));
        written.await.map(drop)
    };
    std::fs::rename(&path, &aside).unwrap();
    assert!(matches!(write().await, Err(Refused::Moved)));
    let still_read = events().await.unwrap();
    assert_eq!(still_read.len(), 3, "reads continue");
    std::fs::write(&path, "another one").unwrap();
    assert!(matches!(write().await, Err(Refused::Moved)));
    std::fs::rename(&aside, &path).unwrap();
    write().await.unwrap();
    assert_eq!(events().await.unwrap().len(), 4);
}

/// The write is in a file that the next start may not find, so it must not be reported as done.
#[tokio::test]
async fn a_write_during_which_the_file_is_renamed_is_unknown() {
    let folder = folder();
    let db = open(&folder, "sensors").await;
    let path = folder.path().join("sensors.db");
    let aside = folder.path().join("aside.db");
    let (from, to) = (path.clone(), aside.clone());
    let written = db.write(move |tx| {
        std::fs::rename(from, to).unwrap();
        outbox::append(tx, &read("attic", 1))
    });
    assert!(matches!(written.await, Err(Refused::Unknown)));
    db.close().await;

    let error = try_open(&folder).await.unwrap_err();
    assert!(matches!(error, Error::Missing(_)), "{error:?}");
    let why = causes(&error);
    assert!(why.contains("sensors.db is missing, but"), "{why}");
    assert!(!path.exists(), "no empty file was created in its place");
    std::fs::rename(&aside, &path).unwrap();
    let head = *try_open(&folder).await.unwrap().head().borrow();
    assert_eq!(
        head, 1,
        "the newest commits were in the log next to the old name"
    );
}

async fn try_open(folder: &TempDir) -> Result<Database, Error> {
    let config = Config::at(folder.path().join("sensors.db"));
    Database::open("sensors", &config, MIGRATIONS, Clock::system()).await
}

/// A process that holds the write lock must not keep the service from stopping.
#[tokio::test]
async fn a_database_is_closed_also_while_another_process_holds_the_write_lock() {
    keep_log();
    let folder = folder();
    let db = open(&folder, "sensors").await;
    let other = rusqlite::Connection::open(folder.path().join("sensors.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = db.write(|tx| outbox::append(tx, &read("attic", 1))).await;
    assert!(matches!(refused, Err(Refused::Busy)));
    let lines = logged("another process has held the database's write lock");
    assert!(
        lines.iter().all(|line| line.starts_with("WARN")),
        "{lines:?}"
    );
    assert!(!lines.is_empty());
    let closed = tokio::time::timeout(PATIENCE, db.close()).await;
    closed.expect("the database is closed");
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(*try_open(&folder).await.unwrap().head().borrow(), 0);
}

#[tokio::test]
async fn a_snapshot_does_not_move_while_writes_go_on() {
    let folder = folder();
    let db = open(&folder, "sensors").await;
    append(&db, reads(1..=1)).await;
    let (looked, has_looked) = tokio::sync::oneshot::channel();
    let (go_on, latch) = crate::support::latch();
    let reading = db.read(move |snapshot| {
        let before = outbox::page(snapshot, 1, 10)?.len();
        looked.send(()).unwrap();
        latch.wait();
        Ok::<_, DbErr>((before, outbox::page(snapshot, 1, 10)?.len()))
    });
    let writing = async {
        has_looked.await.unwrap();
        append(&db, reads(2..=2)).await;
        go_on.send(()).unwrap();
    };
    let (seen, ()) = tokio::join!(reading, writing);
    assert_eq!(seen.unwrap(), (1, 1));
    let now = db.read(|snapshot| outbox::page(snapshot, 1, 10)).await;
    assert_eq!(now.unwrap().len(), 2);
}

#[tokio::test]
async fn a_read_cannot_write() {
    let folder = folder();
    let db = open(&folder, "sensors").await;
    let write = db.read(|snapshot: &Snapshot| execute(snapshot, "DELETE FROM reading", []));
    assert!(write.await.unwrap_err().to_string().contains("readonly"));
}

#[tokio::test]
async fn a_panic_in_a_read_does_not_lose_the_reader() {
    let folder = folder();
    let mut config = Config::at(folder.path().join("one-reader.db"));
    config.readers = 1;
    let db = Database::open("sensors", &config, MIGRATIONS, Clock::system())
        .await
        .unwrap();
    for _ in 0..3 {
        let (mut panics, panicking) = (tokio::task::JoinSet::new(), db.clone());
        panics.spawn(async move {
            let read = panicking.read(|_| -> Result<(), DbErr> { panic!("a bug in a read") });
            read.await
        });
        assert!(panics.join_next().await.unwrap().unwrap_err().is_panic());
    }
    let one = db
        .read(|snapshot: &Snapshot| integers(snapshot, "SELECT 1 AS n"))
        .await;
    assert_eq!(one.unwrap(), [1]);
}

/// SQLite ends a transaction on some errors. A read may end it by mistake.
#[tokio::test]
async fn a_read_that_ends_its_transaction_does_not_lose_the_reader() {
    let folder = folder();
    let mut config = Config::at(folder.path().join("one-reader.db"));
    config.readers = 1;
    let db = Database::open("sensors", &config, MIGRATIONS, Clock::system())
        .await
        .unwrap();
    for sql in ["ROLLBACK", "ROLLBACK; BEGIN; SELECT wrong"] {
        let ended = db.read(move |snapshot| snapshot.execute_unprepared(sql).map(drop));
        // Its result does not matter, only that the next read finds a reader.
        drop(ended.await);
        let one = db
            .read(|snapshot: &Snapshot| integers(snapshot, "SELECT 1 AS n"))
            .await;
        assert_eq!(one.unwrap(), [1], "after {sql}");
    }
}

#[tokio::test]
async fn reads_wait_for_a_free_reader() {
    let folder = folder();
    let db = open(&folder, "sensors").await;
    append(&db, vec![read("attic", 1)]).await;
    let reads = (0..500).map(|_| db.read(|snapshot| outbox::page(snapshot, 1, 10)));
    for page in futures_util::future::join_all(reads).await {
        assert_eq!(page.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_write_of_another_process_holds_nothing_up_for_long() {
    let folder = folder();
    let db = open(&folder, "sensors").await;
    let other = open(&folder, "sensors").await;
    let (release, latch) = crate::support::latch();
    let (started, has_started) = tokio::sync::oneshot::channel();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        let held = other.write(move |_| {
            started.send(()).unwrap();
            latch.wait();
            Ok::<_, DbErr>(())
        });
        held.await.unwrap();
    });
    has_started.await.unwrap();
    let busy = db.write(|tx| outbox::append(tx, &read("attic", 1))).await;
    assert!(matches!(busy, Err(Refused::Busy)), "{busy:?}");
    drop(release);
    eventually("the lock is free", async || {
        let written = db.write(|tx| outbox::append(tx, &read("attic", 2))).await;
        written.map_err(|error| error.to_string())
    })
    .await;
    let page = db
        .read(|snapshot| outbox::page(snapshot, 1, 10))
        .await
        .unwrap();
    assert_eq!(
        page.len(),
        1,
        "the write that failed with Busy is not there"
    );
}

/// SQLite 3.51.1 deadlocks if one thread opens a file while another closes the last connection to
/// it. Then every database of the process blocks.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_database_may_be_opened_while_it_is_being_closed() {
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..4 {
        clients.spawn(async move {
            let folder = folder();
            for _ in 0..100 {
                // Dropping it closes the file on its threads while the next one is opened.
                open(&folder, "sensors").await;
            }
        });
    }
    let all = async {
        while let Some(client) = clients.join_next().await {
            client.unwrap();
        }
    };
    let ended = tokio::time::timeout(std::time::Duration::from_secs(20), all).await;
    ended.expect("no deadlock");
}

const ADD_LABELS: Bulk = Bulk {
    before: "INSERT INTO label (value) VALUES ",
    row: "(?)",
    after: " ON CONFLICT DO NOTHING RETURNING value",
};

/// Row counts around each list length that a statement may have.
#[tokio::test]
async fn a_bulk_statement_takes_any_number_of_rows_each_once() {
    let folder = folder();
    let db = open(&folder, "sensors").await;
    let mut there = 0;
    for count in [0, 1, 2, 3, 4, 9, 10, 14, 49, 50, 64, 499, 500, 501, 1064] {
        let values: Vec<i64> = (there..there + count).collect();
        let wanted = values.clone();
        let added = db.write(move |tx| {
            let mut added: Vec<i64> = Vec::new();
            let rows = values.iter().map(|value| [(*value).into()]);
            ADD_LABELS.query(tx, rows, |row| {
                added.push(row.try_get_by(0)?);
                Ok(())
            })?;
            Ok::<_, DbErr>(added)
        });
        assert_eq!(added.await.unwrap().value, wanted);
        there += count;
        let all = db.read(|snapshot| integers(snapshot, "SELECT count(*) AS n FROM label"));
        assert_eq!(all.await.unwrap(), [there]);
    }
}

#[tokio::test]
async fn a_bare_snapshot_does_not_move_either_and_says_what_is_wrong() {
    let folder = folder();
    let db = open(&folder, "sensors").await;
    append(&db, reads(1..=3)).await;
    let count = "SELECT count(*) FROM headwater_outbox WHERE position > ?";
    let (writing, written) = (db.clone(), std::sync::mpsc::channel());
    let handle = tokio::runtime::Handle::current();
    let counted = db.read_raw(move |snapshot| {
        let before = snapshot.row(count, [1], |row| row.get::<_, i64>(0))?;
        let more = handle.spawn(async move { append(&writing, reads(4..=9)).await });
        handle.spawn(async move { written.0.send(more.await.is_ok()) });
        assert_eq!(written.1.recv(), Ok(true));
        Ok::<_, DbErr>((
            before,
            snapshot.row(count, [1], |row| row.get::<_, i64>(0))?,
        ))
    });
    assert_eq!(counted.await.unwrap(), (Some(2), Some(2)));
    let rows = db.read_raw(|snapshot| {
        snapshot.rows("SELECT position FROM headwater_outbox", [], |row| {
            row.get::<_, i64>(0)
        })
    });
    assert_eq!(rows.await.unwrap(), (1..=9).collect::<Vec<i64>>());
    let wrong =
        db.read_raw(|snapshot| snapshot.rows("SELECT none", [], |row| row.get::<_, i64>(0)));
    assert!(
        wrong
            .await
            .unwrap_err()
            .to_string()
            .contains("no such column: none")
    );
    let write = db.read_raw(|snapshot| snapshot.rows("DELETE FROM label", [], |_| Ok(())));
    assert!(write.await.is_err(), "it only reads");
}
