//! Each service with a user of its own on the broker, as `deploy/nats/accounts.conf` has them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use async_nats::jetstream::{self, stream};
use async_nats::{Client, ConnectOptions};
use broker::{Broker, Options};
use cli::Exit;
use e2e::faults::logged;
use e2e::load::{Customers, Mix};
use e2e::process::lines;
use e2e::{Service, World, eventually, operator, oracle};
use futures_util::StreamExt as _;
use headwater::operator::FoldState;
use serde_json::json;
use tempfile::TempDir;

use Service::{Composition, Inquiry, Orders, Purchases};

/// A broker with the users and permissions that are shipped, each with a password of its own, and
/// where the passwords are.
fn locked(folder: &Path) -> (Broker, PathBuf) {
    let store = folder.join("broker");
    std::fs::create_dir_all(&store).unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/nats");
    std::fs::copy(shipped.join("accounts.conf"), store.join("accounts.conf")).unwrap();
    let mut secrets = Command::new("sh");
    let secrets = secrets.arg(shipped.join("secrets.sh").canonicalize().unwrap());
    assert!(secrets.current_dir(&store).status().unwrap().success());
    let options = Options {
        include: Some("accounts.conf".to_owned()),
        ..Options::new(&store)
    };
    let binary = broker::find(&|_| {}).unwrap();
    let broker = Broker::start(&binary, options).unwrap();
    (broker, store.join("passwords"))
}

/// A world whose broker lets nobody in who has no password.
fn world(folder: &TempDir) -> World {
    let (broker, passwords) = locked(folder.path());
    let mut world = World::on(broker, folder.path());
    world.log_in(passwords);
    world
}

/// All that services do: writes, folds, gaps, questions, and what operators ask for.
#[tokio::test(flavor = "multi_thread")]
async fn every_service_may_do_all_that_it_needs() {
    let folder = TempDir::new().unwrap();
    let mut world = world(&folder);
    world.make_soft_streams().await;
    world.run_all().await;
    for style in [Composition, Inquiry] {
        world.run(style).await;
    }
    let customers = Customers::of(&world).await;
    let load = customers.begin(Mix::on(&Service::SOURCES));
    customers.more(Orders, 20).await;
    load.end().await;
    for source in Service::SOURCES {
        oracle::stream_agrees(&world, source, &customers.ledger()).await;
    }
    let order = customers.ledger().of(Orders).into_values().next().cloned();
    let user = order.unwrap().body["user_id"].as_str().unwrap().to_owned();
    for style in Service::STYLES {
        eventually("an answer in every style", || async {
            let reply = world.purchases_by(style, &user, "").await;
            if reply.status == 200 {
                Ok(())
            } else {
                Err(reply.text)
            }
        })
        .await;
    }
    for endpoint in ["verify", "rebuild"] {
        for service in [Orders, Purchases] {
            let fold = world.fold_of(service, endpoint).await;
            assert_eq!(fold.state, FoldState::Done, "{service:?}: {fold:?}");
        }
    }
    let nothing = json!({});
    let letters = world.ask(Purchases, "dead-letters.list", &nothing).await;
    assert!(letters.is_ok(), "{letters:?}");
    let report = operator::verify(&world).await;
    assert_eq!(report.exit(), Exit::Done, "{report}");
    fetches_a_gap(&mut world, &customers).await;
    nobody_was_refused(&world);
    world.finish().await;
}

/// A hole in a stream is filled from the outbox, for which a projection asks its source.
async fn fetches_a_gap(world: &mut World, customers: &Customers) {
    world.stop(Purchases).await;
    customers.send_some(Orders, 3).await;
    oracle::stream_agrees(world, Orders, &customers.ledger()).await;
    let stream = world.stream(Orders).await;
    let last = stream.cached_info().state.last_sequence;
    assert!(stream.delete_message(last - 1).await.unwrap());
    world.run(Purchases).await;
    world.caught_up().await;
    let fetched = logged(world, Purchases, "WARN", "fetched from the outbox");
    assert_eq!(fetched.len(), 1, "{fetched:?}");
}

fn nobody_was_refused(world: &World) {
    for service in [Service::ALL.as_slice(), &[Composition, Inquiry]].concat() {
        let log = world.log(service);
        let refused: Vec<_> = lines(&log)
            .filter(|line| line["level"] == "ERROR")
            .collect();
        assert!(refused.is_empty(), "{}: {refused:#?}", service.name());
    }
}

/// What each may not do; the first of each pair a subject to publish to, the second one to hear.
const FORBIDDEN: [(&str, &[&str], &[&str]); 7] = [
    (
        "users",
        &[
            "orders.v1.placed.1",
            "$KV.headwater-schemas.orders",
            "$JS.API.STREAM.DELETE.USERS",
            "$JS.API.STREAM.PURGE.USERS",
            "$JS.API.STREAM.MSG.DELETE.USERS",
            "$JS.API.STREAM.INFO.ORDERS",
            "headwater.orders.events",
        ],
        &[
            "orders.>",
            "_INBOX_orders.>",
            "headwater.orders.>",
            "inquiry.orders.v1.asked",
            ">",
        ],
    ),
    (
        "products",
        &[
            "users.v1.registered.1",
            "$JS.API.STREAM.CREATE.USERS",
            "$JS.API.STREAM.MSG.GET.USERS",
        ],
        &["users.>", "_INBOX_users.>", "$SRV.PING.users"],
    ),
    (
        "orders",
        &[
            "users.v1.registered.1",
            "$JS.API.CONSUMER.CREATE.USERS.purchases",
            "$JS.API.CONSUMER.DELETE.USERS.purchases",
            "$JS.API.CONSUMER.MSG.NEXT.USERS.purchases",
            "headwater.purchases.rebuild",
        ],
        &["users.>", "_INBOX_purchases.>"],
    ),
    (
        "purchases",
        &[
            "orders.v1.placed.1",
            "$JS.API.STREAM.UPDATE.ORDERS",
            "$JS.API.STREAM.MSG.GET.ORDERS",
            "headwater.orders.dead-letters.discard",
            "inquiry.users.v1.asked",
        ],
        &["orders.>", "_INBOX_orders.>", "inquiry.>"],
    ),
    (
        "purchases-composition",
        &[
            "orders.v1.placed.1",
            "inquiry.users.v1.asked",
            "$JS.API.STREAM.INFO.ORDERS",
        ],
        &["orders.>", "inquiry.answers.>"],
    ),
    (
        "purchases-inquiry",
        &[
            "orders.v1.placed.1",
            "inquiry.answers.somebody.1",
            "$JS.API.STREAM.INFO.ORDERS",
        ],
        &["orders.>", "inquiry.users.v1.asked"],
    ),
    (
        "viewer",
        &[
            "orders.v1.placed.1",
            "$JS.API.STREAM.DELETE.ORDERS",
            "$JS.API.CONSUMER.CREATE.ORDERS",
            "headwater.purchases.rebuild",
            "headwater.purchases.dead-letters.discard",
        ],
        &["_INBOX_orders.>", "$SYS.>"],
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn no_service_may_do_anything_beyond_its_list() {
    let folder = TempDir::new().unwrap();
    let (broker, passwords) = locked(folder.path());
    for (user, publishes, subscribes) in FORBIDDEN {
        let mut watched = Watched::connect(&broker, &passwords, user).await;
        for subject in publishes {
            watched.client.publish(*subject, "".into()).await.unwrap();
            watched.is_refused("publish", subject).await;
        }
        for subject in subscribes {
            let _kept = watched.client.subscribe(*subject).await.unwrap();
            watched.is_refused("subscription", subject).await;
        }
    }
    let anybody = ConnectOptions::new().connect(broker.url()).await;
    assert!(anybody.is_err(), "without a password");
}

/// The viewer sees streams, events and how services are.
#[tokio::test(flavor = "multi_thread")]
async fn the_viewer_may_look() {
    let folder = TempDir::new().unwrap();
    let (broker, passwords) = locked(folder.path());
    let operator = Watched::connect(&broker, &passwords, "operator").await;
    let made = stream::Config {
        name: "ORDERS".to_owned(),
        subjects: vec!["orders.>".to_owned()],
        ..stream::Config::default()
    };
    let jetstream = jetstream::new(operator.client.clone());
    jetstream.create_stream(made).await.unwrap();
    let viewer = Watched::connect(&broker, &passwords, "viewer").await;
    let mut events = viewer.client.subscribe("*.v1.>").await.unwrap();
    viewer.client.flush().await.unwrap();
    let stored = jetstream.publish("orders.v1.placed.1", "x".into()).await;
    stored.unwrap().await.unwrap();
    assert!(events.next().await.is_some());
    let seen = jetstream::new(viewer.client.clone());
    let stream = seen.get_stream("ORDERS").await.unwrap();
    assert_eq!(stream.get_raw_message(1).await.unwrap().payload, "x");
    let names: Vec<_> = seen.stream_names().collect().await;
    assert_eq!(names.len(), 1);
}

/// A user's connection, and what the broker refuses it.
struct Watched {
    client: Client,
    refusals: tokio::sync::mpsc::UnboundedReceiver<String>,
}

impl Watched {
    async fn connect(broker: &Broker, passwords: &Path, user: &str) -> Self {
        let (sender, refusals) = tokio::sync::mpsc::unbounded_channel();
        let password = std::fs::read_to_string(passwords.join(user)).unwrap();
        let client = ConnectOptions::new()
            .user_and_password(user.to_owned(), password.trim().to_owned())
            .custom_inbox_prefix(format!("_INBOX_{user}"))
            .event_callback(move |event| {
                let sender = sender.clone();
                async move {
                    if let async_nats::Event::ServerError(error) = event {
                        // The test that listens may be over.
                        let _ = sender.send(error.to_string());
                    }
                }
            })
            .connect(broker.url())
            .await
            .unwrap();
        Self { client, refusals }
    }

    /// The next refusal is of this.
    async fn is_refused(&mut self, what: &str, subject: &str) {
        let within = Duration::from_secs(10);
        let refusal = tokio::time::timeout(within, self.refusals.recv()).await;
        let refusal = refusal.ok().flatten().unwrap_or_default().to_lowercase();
        let named = format!("{what} to \"{}\"", subject.to_lowercase());
        assert!(
            refusal.contains(&named),
            "{subject} is allowed: {refusal:?}"
        );
    }
}
