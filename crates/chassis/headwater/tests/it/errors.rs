//! Each reason that a caller acts on is a variant of a crate's error, also below a context, and the
//! text keeps all causes. Other tests match the variants of opening a database, of key files, of
//! schemas, of the supervisor and of effects.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::Command;

use async_nats::jetstream::stream::DiscardPolicy;
use headwater::backup::{self, RestoreTarget};
use headwater::database::{self, Config, Database, Kind, Lock, room};
use headwater::operator::{self, AdminEndpoints};
use headwater::projection::{self, Consumer, RebuildError, Runner};
use headwater::request_reply::Questions;
use headwater::telemetry;
use headwater::{ApplyError, Bus, Clock, Envelope, Error, Health, Process, Projection, Service};
use headwater::{bus, causes, http, stream};
use headwater_nats::consumer;
use headwater_nats::control::{self, Endpoint};
use headwater_nats::window::Link;
use sea_orm::DbErr;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::rebuild::{HOUSE, Place};
use crate::support::{
    self, MIGRATIONS, Readings, Tasks, append, broker, broker_with, folder, jetstream, open, reads,
};

#[tokio::test]
async fn a_database_that_another_has_open_is_locked() {
    let folder = folder();
    let path = folder.path().join("sensors.db");
    let held = Lock::take(&path, Kind::Own).unwrap();
    let refused = Lock::take(&path, Kind::Own).unwrap_err();
    assert!(matches!(refused, database::Error::Locked(_)), "{refused:?}");
    let pid = std::process::id();
    let why = format!("another process (pid {pid}) has this database open");
    assert!(causes(&refused).contains(&why), "{refused:?}");
    let refused = RestoreTarget::take(&path).unwrap_err();
    assert!(
        matches!(refused, backup::Error::Store(database::Error::Locked(_))),
        "{refused:?}"
    );
    drop(held);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_damaged() {
    let folder = folder();
    let path = folder.path().join("sensors.db");
    fs::write(&path, [7; 8192]).unwrap();
    let config = Config::at(&path);
    let opened = Database::open("sensors", &config, MIGRATIONS, Clock::system()).await;
    let refused = opened.unwrap_err();
    assert!(
        matches!(refused, database::Error::Damaged(_)),
        "{refused:?}"
    );
    assert!(causes(&refused).starts_with("open the database: open "));
    let refused = backup::check(&path).unwrap_err();
    assert!(
        matches!(refused, backup::Error::NotADatabase(_)),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_start_that_waits_for_disk_space_and_is_stopped_ends_in_order() {
    let stop = CancellationToken::new();
    let open = async || {
        stop.cancel();
        Err::<(), _>(database::Error::Full("no space".into()))
    };
    let folder = folder();
    let stopped = room::when_there_is_room(folder.path(), &stop, open).await;
    let stopped = stopped.unwrap_err();
    assert!(
        matches!(stopped, database::Error::Stopped(_)),
        "{stopped:?}"
    );
}

#[test]
fn a_copy_that_differs_from_its_digest_is_damaged() {
    let folder = folder();
    let copy = folder.path().join("sensors.db");
    fs::write(&copy, "a copy").unwrap();
    fs::write(folder.path().join("sensors.db.sha256"), "0000  sensors.db").unwrap();
    let refused = backup::check_digest(&copy).unwrap_err();
    assert!(matches!(refused, backup::Error::Damaged(_)), "{refused:?}");
}

#[tokio::test]
async fn a_database_that_a_shell_reads_is_in_use() {
    let folder = folder();
    let db = open(&folder, "sensors").await;
    append(&db, reads(1..=3)).await;
    let path = folder.path().join("sensors.db");
    let copies = folder.path().join("copies");
    let copy = backup::make(&path, &copies, &Clock::system(), &backup::unwatched()).unwrap();
    let shell = rusqlite::Connection::open(&path).unwrap();
    shell
        .execute_batch("BEGIN; SELECT count(*) FROM reading")
        .unwrap();
    append(&db, reads(4..=4)).await;
    db.close().await;
    let target = RestoreTarget::take(&path).unwrap();
    let refused = target.put(&copy.file, false, &Clock::system()).unwrap_err();
    assert!(matches!(refused, backup::Error::InUse(_)), "{refused:?}");
    assert!(causes(&refused).starts_with("move the previous database aside: "));
}

#[tokio::test]
async fn settings_of_the_broker_that_cannot_be_read_are_named() {
    let config = bus::Config {
        creds: Some("/no/such/file".into()),
        ..bus::Config::at("nats://127.0.0.1:1")
    };
    let refused = Bus::connect("sensors", &config).await.unwrap_err();
    assert!(matches!(refused, bus::Error::Setting(_)), "{refused:?}");
    let why = "read the NATS credentials /no/such/file: No such file or directory (os error 2)";
    assert_eq!(causes(&refused), why);
}

#[tokio::test]
async fn a_stream_that_cannot_be_created_or_used_says_so() {
    let broker = broker();
    let bus = support::bus(&broker, "sensors").await;
    let jetstream = jetstream(&bus);
    let mut config = stream::settings("other", 1);
    config.subjects.push("sensors.>".to_owned());
    jetstream.create_stream(&config).await.unwrap();
    let refused = stream::ensure(&bus, "sensors").await.unwrap_err();
    assert!(
        matches!(refused, bus::Error::NotProvisioned(_)),
        "{refused:?}"
    );
    assert!(causes(&refused).contains("run `headwater provision sensors`: "));
    jetstream.delete_stream("OTHER").await.unwrap();

    let mut config = stream::settings("sensors", 1);
    config.allow_message_counter = true;
    config.discard = DiscardPolicy::Old;
    jetstream.create_stream(config).await.unwrap();
    let refused = stream::ensure(&bus, "sensors").await.unwrap_err();
    assert!(
        matches!(refused, bus::Error::UnusableStream(_)),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_service_that_refuses_is_told_from_one_that_is_away() {
    let broker = broker();
    let bus = support::bus(&broker, "sensors").await;
    let ask = async || {
        let request = json!({"id": 7});
        control::ask::<Value>(&bus, "sensors", Endpoint::DeadLettersShow, &request).await
    };
    let away = ask().await.unwrap_err();
    assert!(matches!(away, bus::Error::NoResponders(_)), "{away:?}");
    let folder = folder();
    let db = open(&folder, "sensors").await;
    let mut tasks = Tasks::none();
    tasks.operator(&db, &bus);
    let refused = support::eventually("an answer", async || match ask().await {
        Err(bus::Error::NoResponders(_)) => Err("nobody is there"),
        answered => Ok(answered),
    });
    let refused = refused.await.unwrap_err();
    assert!(matches!(refused, bus::Error::Refused(_)), "{refused:?}");
    assert_eq!(causes(&refused), "there is no dead letter 7");
    tasks.stop().await;
}

#[tokio::test]
async fn a_consumer_that_an_operator_paused_is_told_from_others() {
    let broker = broker();
    let bus = support::bus(&broker, "sensors").await;
    let stream = stream::ensure(&bus, "sensors").await.unwrap();
    let config = async_nats::jetstream::consumer::pull::Config {
        name: Some("readings".to_owned()),
        ..Default::default()
    };
    let mut info = stream
        .create_consumer(config)
        .await
        .unwrap()
        .info()
        .await
        .unwrap()
        .clone();
    headwater_nats::consumer::refuse_pause(&stream, &info).unwrap();
    info.paused = true;
    let refused = headwater_nats::consumer::refuse_pause(&stream, &info).unwrap_err();
    assert!(matches!(refused, bus::Error::Paused(_)), "{refused:?}");
}

/// The broker leaves requests that a user may not send without an answer.
#[tokio::test]
async fn a_consumer_that_cannot_be_inspected_in_time_is_told_from_one_that_is_missing() {
    let broker = broker_with(
        r#"
        no_auth_user: services
        authorization { users: [ { user: services, password: "", permissions: {
            publish: { deny: ["$JS.API.CONSUMER.INFO.>"] }
        } } ] }
        "#,
    );
    let bus = support::bus(&broker, "sensors").await;
    let stream = stream::ensure(&bus, "sensors").await.unwrap();
    let wanted = Consumer::new("readings", "sensors", "readings");
    let refused = consumer::place(&bus, &stream, &Link::new(), &wanted, 1).await;
    let refused = refused.unwrap_err();
    assert!(matches!(refused, bus::Error::TimedOut(_)), "{refused:?}");
    assert_eq!(causes(&refused), "inspect the consumer readings: timed out");
}

#[tokio::test]
async fn endpoints_for_operators_end_with_their_connection() {
    let broker = broker();
    let bus = support::bus(&broker, "sensors").await;
    bus.client.drain().await.unwrap();
    let admin = AdminEndpoints::new("sensors", Health::new());
    let stop = CancellationToken::new();
    let ended = operator::serve(admin, bus, Questions::default(), stop).await;
    let ended = ended.unwrap_err();
    assert!(matches!(ended, Error::Operator(_)), "{ended:?}");
}

/// [`Readings`] of a newer program, which names tables that are not there.
#[derive(Debug)]
struct Newer;

impl Projection for Newer {
    const NAME: &'static str = Readings::NAME;
    const VERSION: u32 = Readings::VERSION + 1;
    const SOURCES: &'static [&'static str] = Readings::SOURCES;
    const TABLES: &'static [&'static str] = &["reading", "missing"];

    fn apply(&self, _tx: &database::Tx, _events: &[Envelope]) -> Result<(), ApplyError> {
        Ok(())
    }
}

#[tokio::test]
async fn a_projection_that_cannot_be_loaded_or_paused_says_why() {
    let (broker, folder) = (broker(), folder());
    let bus = support::bus(&broker, "house").await;
    let db = open(&folder, "house").await;
    let load = async |db: &Database| {
        let config = projection::Config::of::<Newer>();
        Runner::load(Newer, db.clone(), bus.clone(), Health::new(), config).await
    };
    let config = projection::Config::of::<Readings>();
    let runner = Runner::load(Readings, db.clone(), bus.clone(), Health::new(), config).await;
    let pause_control = runner.unwrap().pause_control().unwrap();
    let refused = load(&db).await.unwrap_err();
    assert!(
        matches!(
            refused,
            projection::Error::OtherVersion {
                found: 1,
                known: 2,
                ..
            }
        ),
        "{refused:?}"
    );
    db.clone().close().await;
    let refused = load(&db).await.unwrap_err();
    assert!(
        matches!(refused, projection::Error::Database(_)),
        "{refused:?}"
    );
    let refused = pause_control.pause("a look".to_owned()).await.unwrap_err();
    assert!(
        matches!(refused, projection::Error::PauseNotStored(_)),
        "{refused:?}"
    );
    assert!(causes(&refused).starts_with("store the pause: "));
    let refused = pause_control.resume().await.unwrap_err();
    assert!(
        matches!(refused, projection::Error::PauseNotRemoved(_)),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_cannot_be_rebuilt_are_named() {
    let place = Place::start().await;
    let process = Process::on_free_ports(CancellationToken::new())
        .await
        .unwrap();
    let started = Service::start(HOUSE, MIGRATIONS, place.config(), process).await;
    let mut service = started.unwrap();
    let refused = service.project(Readings).await.unwrap_err();
    assert!(
        matches!(refused, Error::Rebuild(RebuildError::NoTables { .. })),
        "{refused:?}"
    );
    let refused = service.project(Newer).await.unwrap_err();
    let Error::Rebuild(RebuildError::UnfitTable { fault, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(fault, "there is no table missing");
    place.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_store_has_one_projection() {
    let place = Place::start().await;
    let process = Process::on_free_ports(CancellationToken::new())
        .await
        .unwrap();
    let started = Service::start_read_store(HOUSE, MIGRATIONS, place.config(), process).await;
    let mut service = started.unwrap();
    service.project(Readings).await.unwrap();
    let refused = service.project(Readings).await.unwrap_err();
    assert!(matches!(refused, Error::OneProjection), "{refused:?}");
    place.relay.stop().await;
}

#[tokio::test]
async fn an_address_that_is_in_use_is_named_with_its_flags() {
    let taken = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let address = taken.as_ref().unwrap().local_addr().unwrap();
    let config = http::Config {
        listen: address,
        ..http::Config::default()
    };
    let refused = http::bind(&config).await.unwrap_err();
    let http::Error::Listen { error, flags, .. } = &refused else {
        panic!("{refused:?}");
    };
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    assert_eq!(*flags, "--listen or HEADWATER_LISTEN");
    let highest = SocketAddr::from((Ipv4Addr::LOCALHOST, u16::MAX));
    let refused = http::admin_address(highest, None).unwrap_err();
    assert!(
        matches!(
            refused,
            http::Error::NoAdminPort {
                public: u16::MAX,
                ..
            }
        ),
        "{refused:?}"
    );
}

/// Runs itself again, in a process that has a file where systemd passes the first socket.
#[tokio::test]
async fn a_file_that_is_passed_as_a_socket_is_refused() {
    const OWN: &str = "errors::a_file_that_is_passed_as_a_socket_is_refused";
    if std::env::var_os("LISTEN_FDS").is_none() {
        let line = "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" --exact \"$1\" 3</dev/null";
        let own = std::env::current_exe().unwrap();
        let mut again = Command::new("sh");
        let ended = again.args(["-c", line]).arg(own).arg(OWN).output().unwrap();
        let said = String::from_utf8_lossy(&ended.stdout);
        assert!(
            ended.status.success() && said.contains("1 passed"),
            "{said}"
        );
        return;
    }
    let refused = http::bind(&http::Config::default()).await.unwrap_err();
    assert!(
        matches!(refused, http::Error::Sockets(telemetry::Error::Sockets(_))),
        "{refused:?}"
    );
    let why = causes(&refused);
    assert!(
        why.contains("the .socket units, which must be TCP"),
        "{why}"
    );
}

/// A socket without an address of the network.
#[tokio::test]
async fn a_listener_without_an_address_is_refused() {
    let folder = folder();
    let local = UnixListener::bind(folder.path().join("socket")).unwrap();
    local.set_nonblocking(true).unwrap();
    let listener = std::net::TcpListener::from(OwnedFd::from(local));
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let stop = CancellationToken::new();
    let served = http::serve(listener, axum::Router::new(), http::Config::default(), stop).await;
    let refused = served.unwrap_err();
    assert!(matches!(refused, http::Error::NoAddress(_)), "{refused:?}");
}

#[test]
fn a_log_filter_or_an_endpoint_that_is_invalid_is_a_setting() {
    let config = |filter: &str, endpoint: &str| telemetry::Config {
        filter: filter.to_owned(),
        filter_file: None,
        format: telemetry::Format::Json,
        traces: telemetry::TraceConfig {
            endpoint: Some(endpoint.to_owned()),
            ..telemetry::TraceConfig::default()
        },
    };
    for wrong in [config("a=b=c", ""), config("info", "https://collector")] {
        let refused = telemetry::check(&wrong).unwrap_err();
        assert!(
            matches!(refused, telemetry::Error::Setting(_)),
            "{refused:?}"
        );
    }
    telemetry::check(&config("info", "")).unwrap();
}

/// What an author writes: `?` on the chassis' errors, on reads and writes, and on a text.
#[test]
fn an_author_passes_on_errors_of_any_kind() {
    fn of(text: &str) -> headwater::Result<u16> {
        let number = text.strip_prefix("port ").ok_or("no port is named")?;
        if number == "0" {
            Err(DbErr::RecordNotInserted)?;
        }
        let parsed = number
            .parse()
            .map_err(|error| format!("{number}: {error}"))?;
        Ok(parsed)
    }
    assert_eq!(of("port 80").unwrap(), 80);
    for (text, why) in [
        ("80", "no port is named"),
        ("port 0", "None of the records are inserted"),
        ("port x", "x: invalid digit found in string"),
    ] {
        assert_eq!(causes(&of(text).unwrap_err()), why);
    }
    let _: fn(&str) -> Result<u16, anyhow::Error> = |text| Ok(of(text)?);
}
