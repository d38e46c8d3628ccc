//! `headwater verify` over the whole shop: it finds and names damage done by hand.

use std::time::UNIX_EPOCH;

use async_nats::HeaderMap;
use async_nats::jetstream::{self, stream};
use cli::Exit;
use e2e::faults::metric;
use e2e::operator::{verify, verify_within};
use e2e::{Reply, Service, World, eventually};
use headwater::operator::RebuildState;
use rusqlite::Connection;

/// All services, with an orders stream whose events can be deleted, and two purchases of Ada.
async fn world() -> (World, Reply) {
    let mut world = World::anywhere().empty();
    let settings = stream::Config {
        deny_delete: false,
        ..headwater::stream::settings("orders", 1)
    };
    let jetstream = jetstream::new(world.nats().await);
    jetstream.create_stream(settings).await.unwrap();
    for service in Service::ALL {
        world.run(service).await;
    }
    let ada = world.user("ada").await;
    let (mug, tent) = (world.product("Mug").await, world.product("Tent").await);
    for product in [&mug, &tent, &mug] {
        world.order(&ada, &[product]).await;
    }
    (world, ada)
}

/// The time of the last successful verification, from the note of `purchases` and its metric.
async fn last_verified(world: &World) -> f64 {
    let gauge = r#"headwater_verify_last_success_timestamp_seconds{projection="purchases"}"#;
    let mut file = world.database(Service::Purchases).into_os_string();
    file.push(".purchases-verified");
    eventually("the metric to equal the note", || async {
        let exported = metric(&world.admin(Service::Purchases), gauge).await;
        let noted = std::fs::metadata(&file).and_then(|file| file.modified());
        let noted = noted.unwrap_or(UNIX_EPOCH).duration_since(UNIX_EPOCH);
        let noted = noted.unwrap().as_secs_f64();
        let agrees = noted > 0.0 && (exported - noted).abs() < 1e-3;
        if agrees {
            Ok(noted)
        } else {
            Err((exported, noted))
        }
    })
    .await
}

async fn expect_well(world: &World) {
    let report = verify(world).await;
    assert_eq!(report.exit(), Exit::Done, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_is_well_is_verified() {
    let (world, _) = world().await;
    let report = verify(&world).await;
    assert_eq!(report.exit(), Exit::Done, "{report}");
    let sources: Vec<_> = report
        .sources
        .iter()
        .map(|source| (source.source.as_str(), source.head, source.events))
        .collect();
    let expected = [("orders", 3, 3), ("products", 2, 2), ("users", 1, 1)];
    assert_eq!(sources, expected);
    let projections: Vec<_> = report
        .projections
        .iter()
        .map(|projection| {
            let positions = projection.positions.to_string();
            let is_rebuilt = projection.comparison.is_some();
            (projection.service.as_str(), positions, is_rebuilt)
        })
        .collect();
    let expected = [
        ("orders", "products:2,users:1".to_owned(), true),
        ("purchases", "orders:3,products:2,users:1".to_owned(), true),
    ];
    assert_eq!(projections, expected);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_that_are_away_are_named() {
    let (mut world, _) = world().await;
    expect_well(&world).await;
    for (service, words) in [
        (
            Service::Purchases,
            "no service that answers has the projection purchases",
        ),
        (Service::Users, "the service users does not answer"),
    ] {
        world.stop(service).await;
        let report = verify_within(&world, "0").await;
        assert_eq!(report.exit(), Exit::Unreachable, "{report}");
        assert!(report.to_string().contains(words), "{report}");
        world.run(service).await;
        expect_well(&world).await;
    }
    world.finish().await;
}

/// Nothing of it can be compared, so not all agree. Its reader is `orders`.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_only_its_readers_know_of_is_named() {
    let (mut world, _) = world().await;
    expect_well(&world).await;
    world.stop(Service::Purchases).await;
    world.stop(Service::Users).await;
    let jetstream = jetstream::new(world.nats().await);
    jetstream.delete_stream("USERS").await.unwrap();
    let report = verify_within(&world, "0").await;
    assert_eq!(report.exit(), Exit::Unreachable, "{report}");
    let said = "the service users does not answer";
    assert!(report.to_string().contains(said), "{report}");
    world.run(Service::Users).await;
    world.run(Service::Purchases).await;
    expect_well(&world).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_was_deleted_from_a_stream_is_missed() {
    let (world, _) = world().await;
    let started = last_verified(&world).await;
    expect_well(&world).await;
    let agreed = last_verified(&world).await;
    assert!(agreed > started, "{started}, then {agreed}");
    let orders = world.stream(Service::Orders).await;
    orders.delete_message(2).await.unwrap();
    let report = verify(&world).await;
    assert_eq!(report.exit(), Exit::Different, "{report}");
    let missing: Vec<_> = report.sources[0].places.missing.iter().collect();
    assert_eq!(missing, [(2, 2)], "{report}");
    assert!(
        report.sources[1..]
            .iter()
            .all(cli::verify::source::Report::agrees)
            && report
                .projections
                .iter()
                .all(cli::verify::projection::Report::agrees),
        "only the stream of orders differs: {report}"
    );
    // Its replicas agree, and still the night has a finding.
    let now = last_verified(&world).await;
    assert!((now - agreed).abs() < 1e-9, "{agreed}, then {now}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_was_published_again_is_found() {
    let (world, _) = world().await;
    expect_well(&world).await;
    let jetstream = jetstream::new(world.nats().await);
    let event = world.stream(Service::Orders).await;
    let event = event.get_raw_message(2).await.unwrap();
    let mut headers = HeaderMap::new();
    let id = event.headers.get("Nats-Msg-Id").unwrap().as_str();
    headers.insert("Nats-Msg-Id", id);
    eventually("the dedupe window to pass", || async {
        let (subject, headers) = (event.subject.clone(), headers.clone());
        let sent = jetstream.publish_with_headers(subject, headers, event.payload.clone());
        let ack = sent.await.unwrap().await.unwrap();
        if ack.duplicate {
            Err("a duplicate")
        } else {
            Ok(())
        }
    })
    .await;
    let report = verify(&world).await;
    assert_eq!(report.exit(), Exit::Different, "{report}");
    let doubled = &report.sources[0].places.doubled;
    let doubled: Vec<_> = doubled
        .iter()
        .map(|doubled| (doubled.position, doubled.sequence, doubled.again))
        .collect();
    assert_eq!(doubled, [(2, 2, 4)], "{report}");
    world.finish().await;
}

/// Changes the read store behind its service's back, expects `found` rows, one of them with each of
/// `values`, and undoes the change.
async fn spoil(world: &World, spoil: &str, restore: &str, found: u64, values: &[&str]) {
    let store = || {
        let store = Connection::open(world.database(Service::Purchases)).unwrap();
        store.busy_timeout(e2e::PATIENCE).unwrap();
        store
    };
    store().execute_batch(spoil).unwrap();
    let report = verify(world).await;
    assert_eq!(report.exit(), Exit::Different, "{spoil}: {report}");
    let purchases = report.projections.iter().find(|p| p.service == "purchases");
    let differences = &purchases.unwrap().comparison.as_ref().unwrap().differences;
    assert_eq!(differences.count, found, "{spoil}: {report}");
    for wanted in values {
        let rows = differences
            .rows
            .iter()
            .flat_map(|difference| &difference.row);
        assert!(
            rows.clone().any(|(_, value)| value.contains(wanted)),
            "{spoil}: no {wanted} in {report}"
        );
    }
    store().execute_batch(restore).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_altered_a_lost_and_an_added_row_of_the_read_store_are_found() {
    let (world, ada) = world().await;
    expect_well(&world).await;
    let ada = ada.id().replace('-', "");
    spoil(
        &world,
        "UPDATE product SET title = 'Mog' WHERE title = 'Mug'",
        "UPDATE product SET title = 'Mug' WHERE title = 'Mog'",
        2,
        &["Mog", "Mug"],
    )
    .await;
    expect_well(&world).await;
    spoil(
        &world,
        "CREATE TABLE kept AS SELECT * FROM purchase
             WHERE product = (SELECT number FROM product WHERE title = 'Mug');
         DELETE FROM purchase WHERE product IN (SELECT product FROM kept)",
        "INSERT INTO purchase SELECT * FROM kept; DROP TABLE kept",
        1,
        &[&ada],
    )
    .await;
    expect_well(&world).await;
    spoil(
        &world,
        "INSERT INTO user (id, state) VALUES (x'00112233445566778899aabbccddeeff', 1)",
        "DELETE FROM user WHERE id = x'00112233445566778899aabbccddeeff'",
        1,
        &["00112233445566778899"],
    )
    .await;
    expect_well(&world).await;
    world.finish().await;
}

/// A consumer that delivered only headers once caused this: the catalogue of `orders` lost a user.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_the_catalogue_of_orders_has_lost_is_found() {
    let (world, ada) = world().await;
    expect_well(&world).await;
    let store = Connection::open(world.database(Service::Orders)).unwrap();
    store.busy_timeout(e2e::PATIENCE).unwrap();
    store.execute("DELETE FROM known_user", ()).unwrap();
    let report = verify(&world).await;
    assert_eq!(report.exit(), Exit::Different, "{report}");
    let said = report.to_string();
    let lost = format!(
        "known_user, only in the rebuild: id={}",
        ada.id().replace('-', "")
    );
    assert!(
        said.contains("orders-catalogue of orders: the rows DIFFER") && said.contains(&lost),
        "{said}"
    );
    let rebuilt = world.rebuild_of(Service::Orders, "rebuild").await;
    assert_eq!(rebuilt.state, RebuildState::Done, "{rebuilt:?}");
    expect_well(&world).await;
    world.finish().await;
}

/// Publishes an event of a source by hand, with the payload of its first event.
async fn forge(world: &World, source: Service, position: u64) {
    let stream = world.stream(source).await;
    let first = stream.get_raw_message(1).await.unwrap();
    let id = first.headers.get("Nats-Msg-Id").unwrap().as_str();
    let (epoch, _) = id.rsplit_once('.').unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", format!("{epoch}.{position}").as_str());
    let jetstream = jetstream::new(world.nats().await);
    let sent = jetstream.publish_with_headers(first.subject.clone(), headers, first.payload);
    sent.await.unwrap().await.unwrap();
}

/// A rebuild from the stream would wait for the missing events; the one from the outbox ends.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_far_beyond_the_outbox_is_named_and_holds_nothing_up() {
    let (mut world, _) = world().await;
    expect_well(&world).await;
    forge(&world, Service::Orders, 1000).await;
    let report = verify_within(&world, "1").await;
    assert_eq!(report.exit(), Exit::Different, "{report}");
    let orders = report
        .sources
        .iter()
        .find(|source| source.source == "orders");
    let ahead = &orders.unwrap().ahead;
    assert_eq!((ahead.len(), ahead[0].position), (1, 1000), "{report}");
    let said = report.to_string();
    assert!(said.contains("the stream has orders.v1.placed"), "{said}");
    assert!(said.contains("headwater stream restore orders"), "{said}");
    let rebuilt = report
        .projections
        .iter()
        .all(|found| found.comparison.is_some());
    // The relay may have noticed it, too.
    let mut failed = report.failed.iter();
    let is_known = failed.all(|why| why.contains("the stream is ahead") && why.contains("orders"));
    assert!(rebuilt && is_known, "{report}");
    world.abandon();
}
