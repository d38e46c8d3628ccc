//! A cluster that loses members, as an operator sees it: one broker of three is away, then two;
//! then all are back. `doctor`, `check`, `status`, the services and their metrics name what is missing, what
//! continues, and what the next loss does.

use std::process::{Output, Stdio};

use async_nats::jetstream;
use e2e::accounts::Passwords;
use e2e::client::Client;
use e2e::faults::{metric, says};
use e2e::{Service, World, eventually, program};
use serde_json::Value;

use Service::{Orders, Purchases, Users};

/// The exit code and the output of the tool.
#[derive(Debug)]
struct Said {
    code: i32,
    text: String,
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    #[track_caller]
    fn expect(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        for words in words {
            assert!(self.text.contains(words), "{words}: {self:?}");
        }
    }
}

/// Runs the tool, as a user if there are accounts.
struct Tool {
    urls: String,
    login: Vec<String>,
}

impl Tool {
    fn open(world: &World) -> Self {
        Self {
            urls: world.nats_url(),
            login: Vec::new(),
        }
    }

    fn of(world: &World, user: &str, password: &str) -> Self {
        let login = ["--user", user, "--password", password];
        Self {
            login: login.map(str::to_owned).into(),
            ..Self::open(world)
        }
    }

    async fn run(&self, args: &[&str]) -> Said {
        let mut command = tokio::process::Command::new(program("headwater"));
        command
            .args(args)
            .args(["--no-context", "--server", &self.urls])
            .args(&self.login)
            .stdin(Stdio::null());
        let Output {
            status,
            stdout,
            stderr,
        } = command.output().await.unwrap();
        let text = String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap();
        Said {
            code: status.code().unwrap(),
            text,
        }
    }

    /// Runs it until it exits with `code` and prints `words`.
    async fn until(&self, args: &[&str], code: i32, words: &str) -> Said {
        eventually(&format!("{args:?} to say {words}"), || async {
            let output = self.run(args).await;
            if output.code == code && output.text.contains(words) {
                Ok(output)
            } else {
                Err(output)
            }
        })
        .await
    }
}

/// Waits until a service reports this many current replicas of a stream, of three.
async fn copies(client: &Client, stream: &str, current: f64) {
    eventually("the copies of a stream as a metric", || async {
        let of = |gauge: &str| format!("headwater_stream_replicas{gauge}{{stream=\"{stream}\"}}");
        let found = (
            metric(client, &of("")).await,
            metric(client, &of("_current")).await,
        );
        if found == (3.0, current) {
            Ok(())
        } else {
            Err(found)
        }
    })
    .await;
}

async fn order(world: &World) -> String {
    let (user, mug) = (
        world.user(&uuid::Uuid::now_v7().to_string()).await,
        world.product("Mug").await,
    );
    world.order(&user, &[&mug]).await.id()
}

/// With accounts, as the viewer, which may only read.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_loses_brokers_says_what_is_missing_and_what_the_next_loss_does() {
    let (mut world, passwords) = World::clustered_with_accounts();
    passwords.provision(&world.nats_url(), 3).await;
    world.run_all().await;
    order(&world).await;
    world.caught_up().await;
    let viewer = Tool::of(&world, "viewer", &passwords.of("viewer"));
    all_is_well(&world, &viewer).await;

    let lost = world.leader_of_all().await;
    let name = world.nodes().nth(lost).unwrap().name().to_owned();
    world.node(lost).kill().unwrap();
    one_is_away(&world, &viewer, &name).await;

    world.caught_up().await;
    let user = world.user("before").await;
    let mug = world.product("Mug").await;
    // `orders` must know both before publishing stops.
    world.order(&user, &[&mug]).await;
    // Otherwise events that only the database has would count as missing in the stream.
    world.caught_up().await;
    world.node((lost + 1) % 3).kill().unwrap();
    two_are_away(&world, &viewer).await;
    // A write is accepted, and its event waits in the outbox.
    world.order(&user, &[&mug]).await;

    for node in [lost, (lost + 1) % 3] {
        world.node(node).restart().unwrap();
    }
    world.wait_healthy();
    world.caught_up().await;
    all_is_well(&world, &viewer).await;
    a_refused_login_is_called_one(&mut world, &passwords).await;
    world.abandon();
}

async fn all_is_well(world: &World, viewer: &Tool) {
    viewer.until(&["check"], 0, "OK - ").await;
    let doctor = viewer.until(&["doctor"], 0, "all is well").await;
    doctor.expect(
        0,
        &[
            "3 of each stream, all current",
            " stored (0 %)",
            "sync_interval is",
        ],
    );
    let status = viewer.until(&["status", "-ojson"], 0, "").await.json();
    assert_eq!(
        status["brokers"]["there"].as_array().unwrap().len(),
        3,
        "{status}"
    );
    copies(&world.admin(Orders), "ORDERS", 3.0).await;
    let orders = world.client(Orders);
    let parts = orders.get("/readyz?verbose").await.json;
    assert!(parts.get("stream ORDERS").is_none(), "{parts}");
}

async fn one_is_away(world: &World, viewer: &Tool, name: &str) {
    let short = "ORDERS has 2 of 3 replicas current";
    // A remaining leader needs ten seconds to miss a replica. Each stream is named once, and so is
    // the schema bucket; consumers are not named apart from their stream.
    let doctor = eventually("all that is short of a copy", || async {
        let output = viewer.run(&["doctor"]).await;
        let count = output.text.matches("has 2 of 3").count();
        if count == 4 { Ok(output) } else { Err(output) }
    })
    .await;
    let unseen = format!("{short}, {name} not seen");
    let away = format!("2 of 3 brokers reachable ({name} not)");
    let words = [&*unseen, &away, "one more failure stops publishing"];
    doctor.expect(0, &words);
    doctor.expect(0, &["KV_headwater-schemas has 2 of 3 replicas current"]);
    viewer
        .run(&["check"])
        .await
        .expect(1, &["WARNING - ", &unseen, &away]);
    viewer
        .run(&["status"])
        .await
        .expect(3, &["  2 of 3  ", &unseen]);
    let status = viewer.run(&["status", "-ojson"]).await.json();
    let orders = &status["streams"][0];
    assert_eq!(orders["name"], "ORDERS", "{status}");
    assert_eq!(
        (&orders["replicas"], &orders["replicas_current"]),
        (&3.into(), &2.into())
    );
    assert_eq!(orders["replicas_away"][0]["broker"], name, "{status}");

    copies(&world.admin(Orders), "ORDERS", 2.0).await;
    let orders = world.client(Orders);
    says(
        &orders,
        "stream ORDERS",
        "degraded",
        "has 2 of 3 replicas current",
    )
    .await;
    // It keeps working.
    assert_eq!(orders.get("/readyz").await.status, 200);
    says(&orders, "relay", "ok", "").await;
}

async fn two_are_away(world: &World, viewer: &Tool) {
    let quorum = "no quorum: 1 of 3 brokers reachable";
    let goes_on = "reads go on, writes are accepted and published later";
    let check = viewer.until(&["check"], 2, quorum).await;
    check.expect(2, &["CRITICAL - ", goes_on]);
    let doctor = viewer.run(&["doctor"]).await;
    doctor.expect(3, &[quorum, goes_on, "start the missing brokers"]);
    assert!(!doctor.text.contains("enable it"), "{doctor:?}");
    let status = viewer.run(&["status"]).await;
    status.expect(3, &[quorum, goes_on, "orders"]);
    let status = viewer.run(&["status", "-ojson"]).await.json();
    assert_eq!(
        status["brokers"]["jetstream"]["state"], "no-quorum",
        "{status}"
    );
    assert_eq!(status["relays"][0]["published"], Value::Null, "{status}");
    // Commands that need the streams report the reason.
    viewer
        .run(&["verify"])
        .await
        .expect(4, &["no quorum: too few brokers are reachable"]);

    let (orders, purchases) = (world.client(Orders), world.client(Purchases));
    says(
        &orders,
        "relay",
        "degraded",
        "waiting: ORDERS has no leader",
    )
    .await;
    says(&purchases, "purchases from orders", "degraded", "no quorum").await;
    says(
        &orders,
        "stream ORDERS",
        "degraded",
        "2 of its 3 replicas must be reachable",
    )
    .await;
    copies(&world.admin(Orders), "ORDERS", 0.0).await;
    assert_eq!(orders.get("/readyz").await.status, 200);
}

async fn a_refused_login_is_called_one(world: &mut World, passwords: &Passwords) {
    let refused = "login refused: user viewer";
    let stranger = Tool::of(world, "viewer", "not-this-one");
    stranger.run(&["doctor"]).await.expect(4, &[refused]);
    stranger.run(&["status"]).await.expect(4, &[refused]);
    stranger
        .run(&["check"])
        .await
        .expect(2, &["CRITICAL - ", refused]);
    let wrong = passwords.folder().join("wrong");
    std::fs::write(&wrong, "not-this-one").unwrap();
    world.stop(Orders).await;
    world
        .run_with(Orders, |command| {
            command.env("NATS_PASSWORD_FILE", &wrong);
        })
        .await;
    let orders = world.client(Orders);
    for part in ["nats", "relay", "orders-catalogue from users"] {
        says(&orders, part, "degraded", "login refused: user orders").await;
    }
}

/// If the brokers do not know each other's addresses, the addresses given to the tool count.
#[tokio::test(flavor = "multi_thread")]
async fn an_open_cluster_is_counted_by_its_addresses() {
    let mut world = World::on_three_brokers().empty();
    world.run(Users).await;
    says(&world.client(Users), "relay", "ok", "").await;
    let tool = Tool::open(&world);
    tool.until(&["check"], 0, "OK - ").await;
    world.node(2).kill().unwrap();
    let check = ["check"];
    tool.until(&check, 1, "USERS has 2 of 3 replicas current")
        .await;
    tool.run(&check)
        .await
        .expect(1, &["2 of 3 brokers reachable (127.0.0.1:"]);
    world.node(1).kill().unwrap();
    tool.until(&check, 2, "no quorum: 1 of 3 brokers reachable")
        .await;
    let alone = Tool {
        urls: world.nodes().next().unwrap().url(),
        login: Vec::new(),
    };
    // It knows only one address, and reports that.
    let said = "no quorum: too few brokers are reachable besides";
    alone.until(&check, 2, said).await;
    world.abandon();
}

/// All brokers are up, and the replicas of one stream have given up: see
/// `cluster::a_stream_whose_copies_gave_up_is_deleted_and_filled_again`.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_a_leader_is_named() {
    let mut world = World::on_three_brokers().empty();
    world.run(Orders).await;
    says(&world.client(Orders), "relay", "ok", "").await;
    let jetstream = jetstream::new(world.nats().await);
    let message = jetstream::message::PublishMessage::build().expected_last_message_id("nobody's");
    let sent = jetstream.send_publish("orders.v1.nothing.0", message).await;
    sent.unwrap().await.unwrap_err();
    let tool = Tool::open(&world);
    let check = tool.until(&["check"], 2, "ORDERS has no leader").await;
    check.expect(2, &["writes are accepted and published later"]);
    let doctor = tool.run(&["doctor"]).await;
    doctor.expect(3, &["ORDERS has no leader", "HeadwaterQuorum"]);
    assert!(
        !doctor.text.contains("there is no stream of orders"),
        "{doctor:?}"
    );
    copies(&world.admin(Orders), "ORDERS", 0.0).await;
    world.abandon();
}
