//! Rebuilds of the read store next to the live one.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use e2e::world::titles;
use e2e::{Client, Reply, Service, World, eventually};
use headwater::Positions;
use headwater::operator::{RebuildState, Side};
use serde_json::json;

/// A world in which some users have ordered something.
async fn shop() -> (World, Vec<Reply>, Vec<Reply>) {
    let (world, users, products) = shop_of(&Service::ALL).await;
    world.caught_up().await;
    (world, users, products)
}

/// [`shop`] with only these services.
async fn shop_of(services: &'static [Service]) -> (World, Vec<Reply>, Vec<Reply>) {
    let world = World::anywhere().of_services(services).start().await;
    let mut products = Vec::new();
    for number in 0..6 {
        products.push(world.product(&format!("P{number}")).await);
    }
    let mut users = Vec::new();
    for number in 0..4 {
        let user = world.user(&format!("u{number}")).await;
        let ordered: Vec<&Reply> = products.iter().skip(number).take(3).collect();
        world.order(&user, &ordered).await;
        users.push(user);
    }
    (world, users, products)
}

/// The titles that each user is shown.
async fn shown(world: &World, users: &[Reply]) -> Vec<Vec<String>> {
    let mut shown = Vec::new();
    for user in users {
        shown.push(world.titles(&user.id()).await);
    }
    shown
}

/// Reads repeatedly until `is_over`; returns the number of reads and the longest time of one.
async fn read_on(client: Client, user: String, is_over: &AtomicBool) -> (u64, Duration) {
    let (mut reads, mut longest, mut seen) = (0, Duration::ZERO, Positions::default());
    while !is_over.load(Ordering::Relaxed) {
        let began = Instant::now();
        let reply = client.get(&format!("/users/{user}/purchases")).await;
        longest = longest.max(began.elapsed());
        assert_eq!(reply.status, 200, "a read failed: {}", reply.text);
        let as_of: Positions = reply.position().parse().unwrap();
        assert!(as_of.reach(&seen), "went back from {seen} to {as_of}");
        seen = as_of;
        reads += 1;
    }
    (reads, longest)
}

/// Places an order every few milliseconds until `is_over`, and reads it at once.
async fn write_on(world: &World, user: &Reply, product: &Reply, is_over: &AtomicBool) -> u64 {
    let written = AtomicU64::new(0);
    let write = || async {
        let mut pace = tokio::time::interval(Duration::from_millis(40));
        while !is_over.load(Ordering::Relaxed) {
            pace.tick().await;
            let order = world.order(user, &[product]).await;
            let seen = world.purchases(&user.id(), order.position()).await;
            assert_eq!(seen.status, 200, "its own write is missing: {}", seen.text);
            written.fetch_add(1, Ordering::Relaxed);
        }
    };
    // Four times 25 per second.
    tokio::join!(write(), write(), write(), write());
    written.load(Ordering::Relaxed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_under_load_fails_no_read_and_throws_nobody_back() {
    let (mut world, users, products) = shop().await;
    let before = shown(&world, &users).await;
    world.stop(Service::Purchases).await;
    // Keeps the new store somewhat behind the live one.
    let slow = |command: &mut std::process::Command| {
        command.env("HEADWATER_SLOW", "rebuild.received:60");
    };
    world.run_with(Service::Purchases, slow).await;
    world.caught_up().await;
    let is_over = AtomicBool::new(false);
    let rebuilds = async {
        for _ in 0..5 {
            let status = world.rebuild("rebuild").await;
            assert_eq!(status.state, RebuildState::Done, "{status:?}");
            let differences = status.differences.expect("a comparison");
            assert_eq!(differences.count, 0, "{differences:?}");
        }
        is_over.store(true, Ordering::Relaxed);
    };
    let client = || world.client(Service::Purchases);
    let ((), written, one, other) = tokio::join!(
        rebuilds,
        write_on(&world, &users[0], &products[0], &is_over),
        read_on(client(), users[1].id(), &is_over),
        read_on(client(), users[2].id(), &is_over),
    );
    assert!(written > 0 && one.0 > 0 && other.0 > 0);
    assert_eq!(shown(&world, &users).await, before);
    let files = std::fs::read_dir(world.folder()).unwrap();
    let stores: Vec<_> = files
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("purchases.db") && !name.contains('-'))
        .filter(|name| name != "purchases.db.lock")
        .collect();
    assert_eq!(stores.len(), 2, "the link and what it leads to: {stores:?}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuilt_store_is_found_again_after_a_restart() {
    let (mut world, users, _) = shop().await;
    let before = shown(&world, &users).await;
    for _ in 0..2 {
        assert_eq!(world.rebuild("rebuild").await.state, RebuildState::Done);
        world.kill(Service::Purchases).await;
        world.run(Service::Purchases).await;
        assert_eq!(shown(&world, &users).await, before);
    }
    world.finish().await;
}

/// The process dies at `point` of a rebuild and comes back.
async fn dies_at(point: &str) {
    let (mut world, users, products) = shop().await;
    let before = shown(&world, &users).await;
    world.stop(Service::Purchases).await;
    world
        .run_with(Service::Purchases, |command| {
            command.env("HEADWATER_CRASH", point);
        })
        .await;
    world.caught_up().await;
    // There may be no answer, because the process dies first.
    eventually("a rebuild to begin", || async {
        match world.ask(Service::Purchases, "rebuild", &json!({})).await {
            Err(reason) if reason.contains("no responders") => Err(reason),
            _ => Ok(()),
        }
    })
    .await;
    let process = world.process(Service::Purchases);
    assert!(process.crashed(), "it did not die at {point}");
    world.kill(Service::Purchases).await;

    // It must serve at once from its files: without the broker, no rebuild is possible now.
    world.broker.kill().unwrap();
    world.run(Service::Purchases).await;
    for (user, before) in users.iter().zip(&before) {
        let reply = world.purchases(&user.id(), "").await;
        assert_eq!(reply.status, 200, "not a complete store: {}", reply.text);
        assert_eq!(&titles(&reply.json), before);
    }
    world.broker.restart().unwrap();
    world.order(&users[0], &[&products[5]]).await;
    let mut expected = before.clone();
    expected[0].push("P5".to_owned());
    assert_eq!(shown(&world, &users).await, expected, "after {point}");
    let is_idle = || async {
        let status = world.rebuild_status().await?;
        match status.state {
            RebuildState::Idle | RebuildState::Done => Ok(()),
            _ => Err(format!("{status:?}")),
        }
    };
    eventually("the interrupted rebuild to be over", is_idle).await;
    let status = world.rebuild("verify").await;
    assert_eq!(status.differences.map(|found| found.count), Some(0));
    world.finish().await;
}

macro_rules! a_rebuild_survives_death {
    ($($name:ident: $point:literal,)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            dies_at($point).await;
        }
    )*};
}
a_rebuild_survives_death! {
    a_rebuild_that_dies_before_it_folds: "rebuild.begun",
    a_rebuild_that_dies_before_it_has_folded_anything: "rebuild.received",
    a_rebuild_that_dies_while_it_folds: "rebuild.folding:2",
    a_rebuild_that_dies_after_the_comparison: "rebuild.compared",
    a_rebuild_that_dies_between_disk_and_memory: "rebuild.switched",
    a_rebuild_that_dies_before_it_removes_the_old_store: "rebuild.swapped",
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_altered_in_the_store_is_found_and_healed() {
    let (world, users, _) = shop().await;
    let before = shown(&world, &users).await;
    let store = rusqlite::Connection::open(world.database(Service::Purchases)).unwrap();
    store
        .execute_batch(
            "PRAGMA busy_timeout = 5000;
             UPDATE product SET title = 'Forged' WHERE title = 'P1';
             DELETE FROM purchase WHERE (user, product) IN (SELECT user, product FROM purchase LIMIT 1)",
        )
        .unwrap();
    drop(store);
    let found = world.rebuild("verify").await.differences.expect("compared");
    assert_eq!(found.count, 3, "{found:?}");
    let tables: Vec<_> = found
        .rows
        .iter()
        .map(|row| (row.table.as_str(), row.only_in))
        .collect();
    assert_eq!(
        tables,
        [
            ("product", Side::Live),
            ("product", Side::Fold),
            ("purchase", Side::Fold)
        ]
    );
    assert!(format!("{:?}", found.rows[0].row).contains("Forged"));
    assert_ne!(
        shown(&world, &users).await,
        before,
        "verify changed the store"
    );

    assert_eq!(
        world.rebuild("rebuild").await.differences,
        Some(found),
        "other differences than those of verify"
    );
    assert_eq!(
        shown(&world, &users).await,
        before,
        "the rebuild did not repair the store"
    );
    world.finish().await;
}

/// Overwrites the file of a stopped service with `bytes`, starting at `from`.
fn overwrite(path: &std::path::Path, from: usize, bytes: &[u8]) {
    let mut file = std::fs::read(path).unwrap();
    let end = (from + bytes.len()).min(file.len());
    file[from..end].copy_from_slice(&bytes[..end - from]);
    std::fs::write(path, file).unwrap();
}

/// A store that cannot be opened or has broken pages is set aside and rebuilt.
async fn heals(damage: impl Fn(&std::path::Path)) {
    let (mut world, users, products) = shop().await;
    let before = shown(&world, &users).await;
    world.stop(Service::Purchases).await;
    let file = world.database(Service::Purchases);
    damage(&file);
    world.run(Service::Purchases).await;
    let serves = || async {
        let reply = world.purchases(&users[0].id(), "").await;
        match reply.status.as_u16() {
            200 => Ok(()),
            503 => Err(reply.text),
            _ => panic!("neither an answer nor `not yet`: {}", reply.text),
        }
    };
    eventually("the store to serve again", serves).await;
    let healed = || async {
        let now = shown(&world, &users).await;
        if now == before { Ok(()) } else { Err(now) }
    };
    eventually("the store to be complete", healed).await;
    let aside = std::fs::read_dir(world.folder()).unwrap().filter(|file| {
        let name = file.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with("purchases.db.damaged-")
    });
    assert!(aside.count() > 0, "the damaged store was not kept");
    let log = world.log(Service::Purchases);
    assert!(log.contains("damaged"), "no damage in the log:\n{log}");
    world.order(&users[0], &[&products[5]]).await;
    assert!(
        world
            .titles(&users[0].id())
            .await
            .contains(&"P5".to_owned())
    );
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_with_a_broken_head_is_folded_anew() {
    heals(|file| overwrite(file, 0, &[0x55; 100])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_with_broken_pages_is_folded_anew_beside_it() {
    heals(|file| {
        let pages = std::fs::metadata(file).unwrap().len() / 4096;
        for page in 1..pages {
            let from = usize::try_from(page * 4096).unwrap();
            overwrite(file, from, &[0xee; 64]);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_store_is_folded_anew() {
    heals(|file| {
        let half = std::fs::metadata(file).unwrap().len() / 2 + 100;
        let file = std::fs::OpenOptions::new().write(true).open(file).unwrap();
        file.set_len(half).unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_store_says_not_yet_until_it_is_whole_and_never_that_there_is_no_such_user() {
    let (mut world, users, _) = shop().await;
    let before = shown(&world, &users).await;
    world.stop(Service::Purchases).await;
    world.delete_database(Service::Purchases);
    world.broker.kill().unwrap();
    world.run(Service::Purchases).await;
    let reply = world.purchases(&users[0].id(), "").await;
    assert_eq!(reply.status, 503, "{}", reply.text);
    assert!(reply.text.contains("still being built"), "{}", reply.text);
    world.broker.restart().unwrap();
    let complete = || async {
        let reply = world.purchases(&users[0].id(), "").await;
        match reply.status.as_u16() {
            200 => Ok(titles(&reply.json)),
            503 => Err(reply.text),
            _ => panic!("{}", reply.text),
        }
    };
    assert_eq!(eventually("a complete store", complete).await, before[0]);
    world.finish().await;
}

/// A source's database cannot be rebuilt: it stays where it is, and the service asks for an
/// operator.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_whose_database_is_damaged_says_so_and_leaves_it_alone() {
    let mut world = World::start().await;
    let ada = world.user("ada").await;
    world.caught_up().await;
    world.stop(Service::Users).await;
    let file = world.database(Service::Users);
    let intact = std::fs::read(&file).unwrap();
    let root = "SELECT rootpage FROM sqlite_schema WHERE name = 'user'";
    let database = rusqlite::Connection::open(&file).unwrap();
    let page: u32 = database.query_row(root, [], |row| row.get(0)).unwrap();
    drop(database);
    let from = usize::try_from(page - 1).unwrap() * 4096;
    overwrite(&file, from, &[0xee; 64]);
    world.run(Service::Users).await;

    let users = world.client(Service::Users);
    let path = format!("/users/{}", ada.id());
    let refused = users.get(&path).await;
    assert_eq!(refused.status, 503, "{}", refused.text);
    assert!(
        refused.text.contains("the store is damaged"),
        "{}",
        refused.text
    );
    let reported = || async {
        let ready = users.get("/readyz?verbose").await;
        let is_reported = ready.text.contains("put back the newest copy");
        if ready.status == 503 && is_reported {
            Ok(())
        } else {
            Err(ready.text)
        }
    };
    eventually("the service to report it", reported).await;
    let aside = std::fs::read_dir(world.folder()).unwrap().filter(|file| {
        let name = file.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with("users.db.damaged-")
    });
    assert_eq!(aside.count(), 0, "it was moved aside");
    assert!(
        world
            .log(Service::Users)
            .contains("the database is damaged")
    );

    world.kill(Service::Users).await;
    std::fs::write(&file, intact).unwrap();
    world.run(Service::Users).await;
    assert_eq!(world.client(Service::Users).get(&path).await.status, 200);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_without_a_projection_have_nothing_to_rebuild() {
    let world = World::start().await;
    world.caught_up().await;
    for service in [Service::Users, Service::Products] {
        for endpoint in ["rebuild", "verify", "fold", "fold.stop"] {
            let refused = world.ask(service, endpoint, &json!({})).await.unwrap_err();
            assert!(
                refused.starts_with("404") && refused.contains("no projections"),
                "{refused}"
            );
        }
    }
    world.finish().await;
}

/// The rows of a table of `orders.db`, with blobs as text.
fn catalogue(world: &World) -> Vec<String> {
    let store = rusqlite::Connection::open(world.database(Service::Orders)).unwrap();
    store.busy_timeout(e2e::PATIENCE).unwrap();
    let sql = "SELECT hex(id) || erased FROM known_user UNION ALL SELECT hex(id) FROM known_product
         ORDER BY 1";
    let mut rows = store.prepare(sql).unwrap();
    let rows = rows.query_map([], |row| row.get(0)).unwrap();
    rows.map(Result::unwrap).collect()
}

/// Removes a user and a product from the catalogue of `orders`, behind its back.
fn spoil_catalogue(world: &World) {
    let store = rusqlite::Connection::open(world.database(Service::Orders)).unwrap();
    store.busy_timeout(e2e::PATIENCE).unwrap();
    store
        .execute_batch(
            "DELETE FROM known_user WHERE id = (SELECT min(id) FROM known_user);
             DELETE FROM known_product WHERE id = (SELECT max(id) FROM known_product)",
        )
        .unwrap();
}

/// Meanwhile orders are placed: a rebuild does not touch the service's own data.
#[tokio::test(flavor = "multi_thread")]
async fn the_catalogue_of_orders_is_rebuilt_under_writes() {
    let (world, users, products) = shop().await;
    let before = catalogue(&world);
    spoil_catalogue(&world);
    let found = world.rebuild_of(Service::Orders, "verify").await;
    assert_eq!(found.differences.map(|found| found.count), Some(2));
    let is_over = AtomicBool::new(false);
    let rebuild = async {
        let status = world.rebuild_of(Service::Orders, "rebuild").await;
        is_over.store(true, Ordering::Relaxed);
        status
    };
    let known = users.last().unwrap();
    let (status, written) = tokio::join!(rebuild, write_on(&world, known, &products[0], &is_over),);
    assert_eq!(status.state, RebuildState::Done, "{status:?}");
    assert!(written > 0);
    assert_eq!(catalogue(&world), before);
    for user in &users {
        world.order(user, &[&products[0]]).await;
    }
    let found = world.rebuild_of(Service::Orders, "verify").await;
    assert_eq!(found.differences.map(|found| found.count), Some(0));
    world.finish().await;
}

/// `orders` dies at `point` of a rebuild of its catalogue and comes back.
async fn orders_die_at(point: &str) {
    let (mut world, users, products) = shop_of(&Service::SOURCES).await;
    let before = catalogue(&world);
    world.stop(Service::Orders).await;
    spoil_catalogue(&world);
    world
        .run_with(Service::Orders, |command| {
            command.env("HEADWATER_CRASH", point);
        })
        .await;
    world.expect_well(Service::Orders).await;
    eventually("a rebuild to begin", || async {
        match world.ask(Service::Orders, "rebuild", &json!({})).await {
            Err(reason) if reason.contains("no responders") => Err(reason),
            _ => Ok(()),
        }
    })
    .await;
    assert!(
        world.process(Service::Orders).crashed(),
        "it did not die at {point}"
    );
    world.kill(Service::Orders).await;
    let orders = |user: &Reply| format!("/orders?user_id={}", user.id());
    world.run(Service::Orders).await;
    let reply = world.client(Service::Orders).get(&orders(&users[0])).await;
    assert_eq!(
        reply.status, 200,
        "its own rows are missing: {}",
        reply.text
    );
    eventually("the interrupted rebuild to be over", || async {
        let status = world.rebuild_status_of(Service::Orders).await?;
        let after = catalogue(&world);
        match status.state {
            RebuildState::Done if after == before => Ok(()),
            _ => Err(format!("{status:?}")),
        }
    })
    .await;
    world.order(&users[0], &[&products[5]]).await;
    let found = world.rebuild_of(Service::Orders, "verify").await;
    assert_eq!(found.differences.map(|found| found.count), Some(0));
    let left = std::fs::read_dir(world.folder()).unwrap();
    let names = left.map(|file| file.unwrap().file_name().into_string().unwrap());
    let left: Vec<_> = names
        .filter(|name| name.contains("catalogue") && !name.ends_with("-verified"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    world.finish().await;
}

macro_rules! a_catalogue_survives_death {
    ($($name:ident: $point:literal,)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            orders_die_at($point).await;
        }
    )*};
}
a_catalogue_survives_death! {
    orders_that_die_while_the_catalogue_is_folded: "rebuild.folding",
    orders_that_die_before_the_catalogue_is_merged: "rebuild.compared",
    orders_that_die_while_the_catalogue_is_merged: "rebuild.merging",
    orders_that_die_after_the_catalogue_is_merged: "rebuild.merged",
}
