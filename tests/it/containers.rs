//! Tests that need containers: a network that is cut, ports that change, a lost volume of the
//! broker, and the image itself. They need a Docker daemon; CI requires one.

use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use e2e::docker::{ContainerGuard, HTTP, LABEL, Reaper, published};
use e2e::faults::{logged, tell};
use e2e::load::{Customers, Mix};
use e2e::{Docker, Service, World, eventually, operator, oracle};
use testcontainers::ImageExt as _;
use testcontainers::bollard::models::{
    ContainerCreateBody, HealthStatusEnum, NetworkCreateRequest, VolumeCreateRequest,
};
use testcontainers::bollard::query_parameters::{
    CreateContainerOptions, InspectContainerOptions, InspectNetworkOptions, RemoveVolumeOptions,
};
use testcontainers::core::{Healthcheck, Mount};

use Service::{Orders, Products, Purchases};

/// Longer than a service takes to drain, as in `deploy/compose.yaml`.
const GRACE: Duration = Duration::from_secs(20);

/// About 200 writes per second, on all sources.
const STEADY: Mix = Mix {
    clients: 12,
    pause: Duration::from_millis(40),
    ..Mix::on(&Service::SOURCES)
};

/// The daemon; if there is none, reports it, or fails with `HEADWATER_REQUIRE_DOCKER=1`, as in CI.
fn docker() -> Option<&'static Docker> {
    let docker = Docker::find();
    if docker.is_none() {
        tell("DID NOT RUN: it needs a Docker daemon");
    }
    docker
}

async fn shop(docker: &'static Docker) -> World {
    let mut world = World::in_containers(docker).empty();
    world.run_all().await;
    world
}

/// Asserts that everything agrees, also according to `headwater verify`.
async fn agrees(mut world: World, customers: &Customers) {
    for source in Service::SOURCES {
        oracle::stream_agrees(&world, source, &customers.ledger()).await;
    }
    oracle::all_agree(&mut world, customers).await;
    let report = operator::verify(&world).await;
    assert_eq!(report.exit(), cli::Exit::Done, "{report}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_cut_off_from_the_services_stops_no_write_and_is_filled_in_order_after() {
    let Some(docker) = docker() else { return };
    let world = shop(docker).await;
    let customers = Customers::of(&world).await;
    let load = customers.begin(STEADY);
    customers.more(Orders, 30).await;
    world.broker.container().cut();
    for source in Service::SOURCES {
        customers.more(source, 40).await;
    }
    world.broker.container().reconnect();
    customers.more(Orders, 30).await;
    load.end().await;
    customers.ledger().assert_taken_at_once();
    agrees(world, &customers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_cut_off_from_the_broker_catches_up_after() {
    let Some(docker) = docker() else { return };
    let mut world = shop(docker).await;
    let customers = Customers::of(&world).await;
    customers.send_some(Orders, 20).await;
    world.caught_up().await;
    let before = oracle::stored(&world, Orders).await.len();
    world.process(Purchases).container().cut();
    for source in Service::SOURCES {
        customers.send_some(source, 40).await;
        oracle::stream_agrees(&world, source, &customers.ledger()).await;
    }
    assert!(oracle::stored(&world, Orders).await.len() >= before + 40);
    world.process(Purchases).container().reconnect();
    world.moved(Purchases).await;
    agrees(world, &customers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_broker_and_a_frozen_reader_go_on_where_they_were() {
    let Some(docker) = docker() else { return };
    let world = shop(docker).await;
    let customers = Customers::of(&world).await;
    let load = customers.begin(STEADY);
    customers.more(Orders, 20).await;
    world.broker.pause().unwrap();
    customers.more(Orders, 40).await;
    world.broker.resume().unwrap();
    world.pause(Purchases);
    customers.more(Orders, 40).await;
    world.resume(Purchases);
    load.end().await;
    customers.ledger().assert_taken_at_once();
    agrees(world, &customers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_killed_under_writes_lose_and_double_nothing() {
    let Some(docker) = docker() else { return };
    let mut world = shop(docker).await;
    let customers = Customers::of(&world).await;
    let load = customers.begin(STEADY);
    for service in Service::ALL {
        customers.more(Products, 20).await;
        world.kill(service).await;
        world.run(service).await;
        world.broker.kill().unwrap();
        world.broker.restart().unwrap();
    }
    customers.more(Orders, 20).await;
    load.end().await;
    agrees(world, &customers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_comes_back_on_another_port_of_the_host_is_found_by_name() {
    let Some(docker) = docker() else { return };
    let mut world = shop(docker).await;
    world.run(Service::Composition).await;
    world.run(Service::RequestReply).await;
    let (ada, mug) = (world.user("ada").await, world.product("Mug").await);
    world.order(&ada, &[&mug]).await;
    for source in Service::SOURCES {
        let before = world.client(source).base().to_owned();
        let container = world.process(source).container();
        assert!(container.stop(GRACE).unwrap().success());
        container.start_again().unwrap();
        world.moved(source).await;
        let after = world.client(source).base().to_owned();
        assert_ne!(before, after, "it has another port");
        world.expect_well(source).await;
    }
    let tent = world.product("Tent").await;
    world.order(&ada, &[&tent]).await;
    world.caught_up().await;
    for style in Service::STYLES {
        world.answering(style).await;
        let shown = world.purchases_by(style, &ada.id(), "").await;
        let titles = e2e::world::titles(&shown.json);
        assert_eq!(titles, ["Mug", "Tent"], "{}: {}", style.name(), shown.text);
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_whose_volume_is_lost_is_filled_from_the_outboxes() {
    let Some(docker) = docker() else { return };
    let mut world = shop(docker).await;
    let customers = Customers::of(&world).await;
    let load = customers.begin(STEADY);
    customers.more(Orders, 40).await;
    world.broker.replace(docker).unwrap();
    for source in Service::SOURCES {
        customers.more(source, 20).await;
        eventually("the relay to see its loss", || async {
            let lines = logged(&world, source, "WARN", "the stream lost events");
            if lines.len() == 1 { Ok(()) } else { Err(lines) }
        })
        .await;
    }
    load.end().await;
    customers.ledger().assert_taken_at_once();
    agrees(world, &customers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_drains_and_ends_with_0_within_the_grace_period() {
    let Some(docker) = docker() else { return };
    let mut world = shop(docker).await;
    let customers = Customers::of(&world).await;
    let load = customers.begin(STEADY);
    for service in Service::ALL {
        customers.more(Products, 20).await;
        let started = Instant::now();
        let status = world.process(service).container().stop(GRACE).unwrap();
        assert_eq!(status.code(), Some(0), "{}", world.log(service));
        assert!(started.elapsed() < GRACE, "it had to be killed");
        world.kill(service).await;
        world.run(service).await;
    }
    load.end().await;
    agrees(world, &customers).await;
}

/// A container as the image defines it, except for its command, with its own volume.
struct Alone {
    guard: ContainerGuard,
    volume: String,
    docker: &'static Docker,
}

impl Alone {
    fn start(docker: &'static Docker, nats: &str, health: &Healthcheck) -> Self {
        let volume = docker.name("data");
        let request = VolumeCreateRequest {
            name: Some(volume.clone()),
            labels: Some([(LABEL.to_owned(), docker.network().to_owned())].into()),
            ..VolumeCreateRequest::default()
        };
        let client = docker.client();
        let made = docker.wait(async move { client.create_volume(request).await });
        made.unwrap();
        let request = || {
            let request = docker
                .services()
                .with_cmd(["headwater-users"])
                .with_env_var("NATS_URL", nats)
                .with_mount(Mount::volume_mount(&volume, "/data"))
                .with_health_check(health.clone());
            published(request, [(HTTP, 0)])
        };
        let guard = ContainerGuard::start(docker, &docker.name("users"), request).unwrap();
        Self {
            guard,
            volume,
            docker,
        }
    }

    /// A client, once the service answers.
    async fn client(&self) -> e2e::Client {
        let client = e2e::Client::at(self.guard.address(HTTP).unwrap());
        eventually("the service to answer", || async {
            let request = client.request(reqwest::Method::GET, "/livez");
            e2e::client::try_send(request).await
        })
        .await;
        client
    }

    async fn is(&self, wanted: HealthStatusEnum) {
        eventually("another health", || {
            let health = self.guard.health();
            std::future::ready(if health == Some(wanted) {
                Ok(())
            } else {
                Err(health)
            })
        })
        .await;
    }

    /// Removes the container, then the volume.
    fn end(self) {
        drop(self.guard);
        let client = self.docker.client();
        let removed = self.docker.wait(async move {
            let options = None::<RemoveVolumeOptions>;
            client.remove_volume(&self.volume, options).await
        });
        removed.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_image_runs_as_nobody_on_a_read_only_root_and_keeps_its_data_in_its_volume() {
    let Some(docker) = docker() else { return };
    let mut world = World::in_containers(docker).empty();
    let alone = Alone::start(
        docker,
        &world.broker.url_for_services(),
        &Healthcheck::none(),
    );
    let client = alone.client().await;
    let ada = client
        .create(
            "/users",
            &serde_json::json!({"name": "Ada", "email": "ada@example.com"}),
        )
        .await;

    let known = alone.guard.inspect();
    assert_eq!(known.host_config.unwrap().readonly_rootfs, Some(true));
    let status = format!("/proc/{}/status", known.state.unwrap().pid.unwrap());
    let status = std::fs::read_to_string(status).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().split_whitespace().collect::<Vec<_>>()
    };
    assert_eq!(field("Uid:"), ["65532"; 4], "the unprivileged user");
    assert_eq!(field("Gid:"), ["65532"; 4], "the unprivileged user");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(set), ["0000000000000000"], "{set} must be empty");
    }
    assert_eq!(field("NoNewPrivs:"), ["1"]);

    assert_eq!(alone.guard.stop(GRACE).unwrap().code(), Some(0));
    alone.guard.start_again().unwrap();
    let client = alone.client().await;
    let found = client.get(&format!("/users/{}", ada.id())).await;
    assert_eq!(found.status, 200, "{}", found.text);
    alone.end();
    world.abandon();
}

/// The check is that of the image, except for its interval.
#[tokio::test(flavor = "multi_thread")]
async fn the_health_check_follows_what_the_service_says_of_itself() {
    let Some(docker) = docker() else { return };
    let mut world = World::in_containers(docker).empty();
    let often = Healthcheck::empty()
        .with_interval(Duration::from_millis(200))
        .with_timeout(Duration::from_secs(5))
        .with_retries(1);
    let alone = Alone::start(docker, &world.broker.url_for_services(), &often);
    let client = alone.client().await;
    alone.is(HealthStatusEnum::HEALTHY).await;
    let ada = serde_json::json!({"name": "Ada", "email": "ada@example.com"});
    client.create("/users", &ada).await;

    // The stream has an event that the outbox lacks, so the database must be an old copy.
    let stream = eventually("the stream", || async {
        let jetstream = async_nats::jetstream::new(world.nats().await);
        let stream = jetstream.get_stream("USERS").await;
        let stream = stream.map_err(|error| error.to_string())?;
        let first = stream.get_raw_message(1).await;
        first.map_err(|error| error.to_string())?;
        Ok::<_, String>(stream)
    })
    .await;
    let first = stream.get_raw_message(1).await.unwrap();
    let id = first.headers.get("Nats-Msg-Id").unwrap().as_str();
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", id.replace(".1", ".7"));
    let jetstream = async_nats::jetstream::new(world.nats().await);
    let published = jetstream
        .publish_with_headers(first.subject.clone(), headers, first.payload.clone())
        .await;
    published.unwrap().await.unwrap();
    alone.is(HealthStatusEnum::UNHEALTHY).await;
    let checks = alone
        .guard
        .inspect()
        .state
        .unwrap()
        .health
        .unwrap()
        .log
        .unwrap();
    let said = checks.last().unwrap().output.clone().unwrap_or_default();
    assert!(said.contains("the stream is ahead"), "{said}");

    jetstream.delete_stream("USERS").await.unwrap();
    alone.is(HealthStatusEnum::HEALTHY).await;
    // Without its broker, a service must still get requests.
    world.broker.container().cut();
    let bob = serde_json::json!({"name": "Bob", "email": "bob@example.com"});
    client.create("/users", &bob).await;
    alone.is(HealthStatusEnum::HEALTHY).await;
    alone.end();
    world.abandon();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_test_left_is_taken_away() {
    let Some(docker) = docker() else { return };
    let run = docker.name("killed");
    let reaper = Reaper::over(&run).unwrap();
    let labels = || Some([(LABEL.to_owned(), run.clone())].into());
    let client = docker.client();
    let container = ContainerCreateBody {
        image: Some(format!("{}:services", docker.network())),
        labels: labels(),
        ..ContainerCreateBody::default()
    };
    let network = NetworkCreateRequest {
        name: run.clone(),
        labels: labels(),
        ..NetworkCreateRequest::default()
    };
    let volume = VolumeCreateRequest {
        name: Some(run.clone()),
        labels: labels(),
        ..VolumeCreateRequest::default()
    };
    let id = docker.wait(async move {
        let options = None::<CreateContainerOptions>;
        let made = client.create_container(options, container).await.unwrap();
        client.create_network(network).await.unwrap();
        client.create_volume(volume).await.unwrap();
        made.id
    });
    assert!(reaper.end().unwrap().success());
    let client = docker.client();
    docker.wait(async move {
        let options = None::<InspectContainerOptions>;
        assert!(client.inspect_container(&id, options).await.is_err());
        let options = None::<InspectNetworkOptions>;
        assert!(client.inspect_network(&run, options).await.is_err());
        assert!(client.inspect_volume(&run).await.is_err());
    });
}
