//! Power cuts under load: everything that was not fsynced is lost.
//!
//! `kill -9` loses nothing that reached the page cache, so it does not test durability. Here the
//! file system is shut down under the running programs, without a flush. Needs root.

use std::time::Duration;

use broker::{Broker, Options};
use e2e::faults::{Mount, dose, logged, tell};
use e2e::load::{Customers, Mix};
use e2e::{Service, World, oracle};
use tempfile::TempDir;

use Service::Orders;

const BUSY: Mix = Mix {
    clients: 8,
    pause: Duration::from_millis(2),
    fresh: true,
    ..Mix::on(&Service::SOURCES)
};

/// Waits until all services hold exactly the acknowledged commands.
async fn nothing_is_lost(world: &World, customers: &Customers) {
    let ledger = customers.ledger();
    for source in Service::SOURCES {
        oracle::outbox_agrees(world, source, &ledger).await;
        oracle::stream_agrees(world, source, &ledger).await;
    }
    oracle::shown_agrees(world, &ledger).await;
}

fn count(cuts: usize, customers: &Customers) {
    let commands = customers.ledger().commands.len();
    tell(&format!(
        "{cuts} power cuts, {commands} commands acknowledged"
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_the_services_lose_power() {
    let Some(disk) = Mount::ext4() else { return };
    let broker = Broker::start_in_temp().unwrap();
    let mut world = World::on([broker], TempDir::new().unwrap())
        .databases_in(disk.path())
        .empty();
    world.run_all().await;
    let customers = Customers::of(&world).await;
    let (cuts, mut too_late) = (dose(5), 0);
    for _ in 0..cuts {
        // No order may name something made in the moment after the cut.
        let load = customers.begin(Mix {
            fresh: false,
            ..BUSY
        });
        customers.more(Orders, 20).await;
        let cut_ms = disk.cut();
        for service in Service::ALL {
            world.kill(service).await;
        }
        disk.replug();
        world.run_all().await;
        customers.more(Orders, 5).await;
        load.end().await;
        too_late += customers.ask_again(cut_ms).await;
        nothing_is_lost(&world, &customers).await;
    }
    oracle::all_agree(&mut world, &customers).await;
    tell(&format!(
        "{too_late} answers came after a cut and do not count"
    ));
    count(cuts, &customers);
    world.finish().await;
}

/// The outboxes would refill a damaged stream; here none may have to.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_the_broker_loses_power() {
    let Some(disk) = Mount::ext4() else { return };
    let binary = broker::find(&|_| {}).unwrap();
    let broker = Broker::start(&binary, Options::new(disk.path())).unwrap();
    let mut world = World::on([broker], TempDir::new().unwrap()).empty();
    world.run_all().await;
    let customers = Customers::of(&world).await;
    let cuts = dose(5);
    for _ in 0..cuts {
        let load = customers.begin(BUSY);
        customers.more(Orders, 20).await;
        // Frozen first: its acknowledgements after the cut must not count.
        world.broker.pause().unwrap();
        disk.cut();
        world.broker.kill().unwrap();
        disk.replug();
        world.broker.restart().unwrap();
        customers.more(Orders, 5).await;
        load.end().await;
        nothing_is_lost(&world, &customers).await;
    }
    for source in Service::SOURCES {
        let lost = logged(&world, source, "WARN", "the stream lost events");
        assert!(lost.is_empty(), "{lost:?}");
    }
    oracle::all_agree(&mut world, &customers).await;
    count(cuts, &customers);
    world.finish().await;
}
