//! The services' disk is full: reads work and writes are refused. When there is room again, the
//! same processes resume automatically. Needs root.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use broker::Broker;
use e2e::faults::{Mount, logged, says};
use e2e::load::{Customers, Mix};
use e2e::process::Process;
use e2e::{Service, World, eventually, oracle};
use headwater::backup::{self, Progress, Watch};
use headwater::database::{Config, Migration, Tx, WriteError};
use headwater::{Clock, Database};
use sea_orm::{ConnectionTrait as _, DbErr};
use serde_json::json;
use tempfile::TempDir;

use Service::{Orders, Purchases};

const BUSY: Mix = Mix {
    clients: 8,
    pause: Duration::from_millis(2),
    fresh: true,
    ..Mix::on(&Service::SOURCES)
};

fn pids(world: &mut World) -> Vec<u32> {
    let services = Service::ALL.into_iter();
    services
        .map(|service| world.process(service).pid())
        .collect()
}

fn make_room(disk: &Mount) {
    std::fs::remove_file(disk.path().join("filler")).unwrap();
}

/// Asserts that each service reports it, answers reads, and refuses writes.
async fn only_writes_are_refused(world: &World, user: &str) {
    for service in Service::ALL {
        let admin = world.admin(service);
        let said = says(&admin, "disk", "degraded", "disk full: ").await;
        assert!(said.contains("free space"), "{said}");
        assert_eq!(admin.get("/readyz").await.status, 200);
    }
    for (service, path) in [
        (Service::Users, format!("/users/{user}")),
        (Purchases, format!("/users/{user}/purchases")),
    ] {
        let read = world.client(service).get(&path).await;
        assert_eq!(read.status, 200, "{}", read.text);
    }
    let body = json!({"user_id": user, "product_ids": [user]});
    let refused = world.client(Orders).post("/orders", &body).await;
    assert_eq!(refused.status, 503, "{}", refused.text);
    assert_eq!(refused.json["type"], "urn:headwater:problem:disk-full");
    assert_eq!(refused.retry_after.as_deref(), Some("10"));
}

/// Starts `orders`, which must wait.
async fn waiting(world: &World) -> Process {
    let orders = world.spawn(Orders, |_| {});
    eventually("the start to wait", || async {
        let log = orders.log();
        if log.contains("the start waits for disk space") {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;
    orders
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_writes_only_and_room_lets_the_same_processes_go_on() {
    let Some(disk) = Mount::tmpfs("256m") else {
        return;
    };
    let mut world = World::on([Broker::start_in_temp().unwrap()], TempDir::new().unwrap())
        .databases_in(disk.path())
        .empty();
    world.run_all().await;
    let customers = Customers::of(&world).await;
    let user = customers.new_order()["user_id"].clone();
    let load = customers.begin(BUSY);
    customers.more(Orders, 20).await;
    let before = pids(&mut world);
    disk.fill();
    only_writes_are_refused(&world, user.as_str().unwrap()).await;
    make_room(&disk);
    customers.more(Orders, 20).await;
    for service in Service::ALL {
        eventually("room", || async {
            let parts = world.admin(service).get("/readyz?verbose").await.json;
            if parts["disk"].is_null() {
                Ok(())
            } else {
                Err(parts)
            }
        })
        .await;
        let errors = logged(&world, service, "ERROR", "");
        assert_eq!(errors.len(), 1, "one ERROR only: {errors:?}");
    }
    assert_eq!(pids(&mut world), before, "a service was restarted");

    // After an orderly stop there is no WAL index; without room for one, the start waits.
    world.stop(Orders).await;
    disk.fill();
    let mut orders = waiting(&world).await;
    orders.stop();
    let orders = waiting(&world).await;
    make_room(&disk);
    eventually("the start to continue", || async {
        orders.address().ok_or_else(|| orders.log())
    })
    .await;
    drop(orders);
    world.run(Orders).await;
    load.end().await;
    oracle::all_agree(&mut world, &customers).await;
    world.finish().await;
}

const TABLES: &[Migration] = &[Migration::sql(
    "0001",
    "CREATE TABLE kept (bytes BLOB NOT NULL)",
)];

async fn open(at: &Path) -> Database {
    let config = Config::at(at);
    let opened = Database::open("disks", &config, TABLES, Clock::system());
    opened.await.unwrap()
}

/// Stores `rows` rows of `bytes` bytes.
fn keep(rows: i64, bytes: i64) -> impl FnOnce(&Tx) -> Result<(), DbErr> + Send + 'static {
    move |tx| {
        let sql = format!("INSERT INTO kept VALUES (zeroblob({bytes}))");
        for _ in 0..rows {
            tx.execute_unprepared(&sql)?;
        }
        Ok(())
    }
}

async fn kept(db: &Database) -> i64 {
    let count = db.read(|snapshot| {
        let sql = "SELECT count(*) AS n FROM kept".to_owned();
        let statement = sea_orm::Statement::from_string(snapshot.get_database_backend(), sql);
        let row = snapshot.query_one_raw(statement)?.unwrap();
        row.try_get_by::<i64, _>("n")
    });
    count.await.unwrap()
}

/// A copy leaves the room that services on the same disk need to write.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_does_not_fit_is_not_made_and_leaves_nothing() {
    let Some(disk) = Mount::tmpfs("26m") else {
        return;
    };
    let disk = Arc::new(disk);
    let (data, copies) = (TempDir::new().unwrap(), disk.path().join("copies"));
    let path = data.path().join("disks.db");
    let db = open(&path).await;
    db.write(keep(24, 1 << 20)).await.unwrap();
    let make = |watch: &Watch| backup::make(&path, &copies, &Clock::system(), watch);
    let expect_refused = |watch: &Watch, what: &str| {
        let refused = make(watch).unwrap_err();
        let why = headwater::causes(&refused);
        assert!(why.contains("disk full: "), "{what}: {why}");
        let left = std::fs::read_dir(&copies).unwrap().count();
        assert_eq!(left, 0, "{what}");
    };
    expect_refused(&backup::unwatched(), "it would fit, but nothing else");
    disk.resize("64m");
    let (full, is_full) = (Arc::clone(&disk), AtomicBool::new(false));
    let filling: Watch = Arc::new(move |progress| {
        let is_half = matches!(progress, Progress::Copying { copied: 1.., .. });
        if is_half && !is_full.swap(true, Ordering::SeqCst) {
            full.fill();
        }
        ControlFlow::Continue(())
    });
    expect_refused(&filling, "another fills the disk");
    make_room(&disk);
    make(&backup::unwatched()).unwrap();
    db.close().await;
}

/// There is room at the start, but not enough. SQLite notices at the commit if everything fits into
/// its cache, else at a statement. Either way it is known that nothing was written.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_finds_the_disk_full_is_known_to_be_undone_and_the_next_one_is_taken() {
    let Some(disk) = Mount::tmpfs("10m") else {
        return;
    };
    let path = disk.path().join("disks.db");
    let db = open(&path).await;
    let mut rows = 1;
    db.write(keep(rows, 1 << 20)).await.unwrap();
    // The first fits into SQLite's cache, the second does not.
    for too_much in [12, 40] {
        let refused = db.write(keep(too_much, 1 << 20)).await;
        assert!(matches!(refused, Err(WriteError::Full)), "{refused:?}");
        let refused = db.write_exclusive(keep(too_much, 1 << 20)).await;
        assert!(matches!(refused, Err(WriteError::Full)), "{refused:?}");
        let does_not_mind = move |tx: &Tx| {
            drop(keep(too_much, 1 << 20)(tx));
            keep(1, 1)(tx)
        };
        let refused = db.write(does_not_mind).await;
        assert!(matches!(refused, Err(WriteError::Full)), "{refused:?}");
        assert_eq!(kept(&db).await, rows);
        // The refused write must have released its space.
        db.write(keep(1, 1)).await.unwrap();
        rows += 1;
    }
    disk.resize("128m");
    db.write(keep(12, 1 << 20)).await.unwrap();
    rows += 12;
    assert_eq!(kept(&db).await, rows);
    // As after a crash, including the WAL.
    let copy = disk.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    for part in ["disks.db", "disks.db-wal"] {
        std::fs::copy(disk.path().join(part), copy.join(part)).unwrap();
    }
    let again = open(&copy.join("disks.db")).await;
    assert_eq!(kept(&again).await, rows);
    again.close().await;
    db.close().await;
}
