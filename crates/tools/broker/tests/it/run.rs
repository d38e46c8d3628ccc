use std::{
    fs,
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::process::ExitStatusExt,
    process::Command,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use broker::{Binary, Broker, Error, Log, Options, Port, Sync, Version, find};
use headwater_testkit::{eventually_blocking, is};

use crate::support::{folder, introduction, names, runs, script};

fn binary() -> Binary {
    find(&|_| {}).unwrap()
}

/// Sends a request as a client, and returns everything received until the answer is complete.
fn ask(port: u16, subject: &str, body: &str) -> String {
    try_ask(port, subject, body).unwrap()
}

/// [`ask`] for a server that may not answer within 5 s.
pub(crate) fn try_ask(port: u16, subject: &str, body: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let length = body.len();
    write!(
        stream,
        "CONNECT {{\"verbose\":false}}\r\nSUB answer 1\r\nPUB {subject} answer {length}\r\n{body}\r\n"
    )?;
    let mut answer = String::new();
    let mut chunk = [0; 4096];
    while !(answer.contains("MSG answer") && answer.ends_with("}\r\n")) {
        let read = stream.read(&mut chunk)?;
        if read == 0 {
            return Err(io::Error::other(format!("it hung up after: {answer}")));
        }
        answer += &String::from_utf8_lossy(&chunk[..read]);
    }
    Ok(answer)
}

#[test]
fn a_started_broker_introduces_itself_with_jetstream() {
    let broker = Broker::start_in_temp().unwrap();
    assert_eq!(broker.url(), format!("nats://127.0.0.1:{}", broker.port()));
    let line = introduction(broker.port()).unwrap();
    assert!(
        line.contains(broker.name()) && line.contains("\"jetstream\":true"),
        "{line}"
    );
    eventually_blocking("the log to be read", || {
        let log = broker.log_tail();
        if log.contains("Server is ready") {
            Ok(())
        } else {
            Err(log)
        }
    });
}

#[test]
fn two_brokers_have_different_names_ports_and_stores() {
    let (one, two) = (
        Broker::start_in_temp().unwrap(),
        Broker::start_in_temp().unwrap(),
    );
    assert_ne!(one.name(), two.name());
    assert_ne!(one.port(), two.port());
    assert_ne!(one.store(), two.store());
}

#[test]
fn a_dropped_broker_is_gone_with_its_folder() {
    let broker = Broker::start_in_temp().unwrap();
    let (pid, store) = (broker.pid(), broker.store().to_owned());
    assert!(runs(pid) && store.exists());
    drop(broker);
    assert!(!runs(pid));
    assert!(!store.exists());
}

#[test]
fn a_broker_whose_parent_dies_is_killed() {
    // This test again as a child, which starts a broker, reports its pid and waits to be killed.
    const TELL: &str = "HEADWATER_BROKER_TEST_TELL";
    if let Some(file) = std::env::var_os(TELL) {
        let broker = Broker::start_in_temp().unwrap();
        fs::write(
            file,
            format!("{}\n{}\n", broker.pid(), broker.store().display()),
        )
        .unwrap();
        loop {
            thread::park();
        }
    }
    let report = folder();
    let file = report.path().join("report");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "run::a_broker_whose_parent_dies_is_killed"])
        .env(TELL, &file)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    eventually_blocking("the child to start its broker", || {
        let report = fs::read_to_string(&file).unwrap_or_default();
        if report.ends_with('\n') && report.lines().count() == 2 {
            Ok(())
        } else {
            Err(report)
        }
    });
    let text = fs::read_to_string(&file).unwrap();
    let (pid, store) = text.trim().split_once('\n').unwrap();
    let pid = pid.parse().unwrap();
    assert!(runs(pid));
    child.kill().unwrap();
    child.wait().unwrap();
    eventually_blocking("the broker to be dead too", || is(runs(pid), &false));
    fs::remove_dir_all(store).unwrap();
}

#[test]
fn a_taken_port_is_named() {
    let squatter = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = squatter.local_addr().unwrap().port();
    let store = folder();
    let options = Options {
        port: Port::Fixed(port),
        ..Options::new(store.path())
    };
    let error = Broker::start(&binary(), options.clone()).unwrap_err();
    assert!(
        matches!(error, Error::PortTaken { port: named } if named == port),
        "{error:?}"
    );
    assert!(error.to_string().contains(&port.to_string()), "{error}");

    assert!(
        names(store.path()).is_empty(),
        "the store is not touched for nothing"
    );

    drop(squatter);
    assert_eq!(Broker::start(&binary(), options).unwrap().port(), port);
}

/// Starts a "server" on `port` that does nothing and ends when a file tells it to; meanwhile calls
/// `take`.
fn start_a_slow_one<T>(port: u16, take: impl FnOnce(&dyn Fn()) -> T) -> Error {
    let (bin, store) = (folder(), folder());
    let path = script(
        bin.path(),
        "nats-server",
        "while [ ! -e \"$2.go\" ]; do sleep 0.01; done; exit 1",
    );
    let slow = Binary {
        path,
        version: Version {
            major: 2,
            minor: 15,
            patch: 1,
        },
    };
    let options = Options {
        port: Port::Fixed(port),
        ..Options::new(store.path())
    };
    let starting = thread::spawn(move || Broker::start(&slow, options));
    let config = store.path().join("nats-server.conf");
    eventually_blocking("the slow server to be started", || {
        is(config.exists(), &true)
    });
    let _taken = take(&|| fs::write(store.path().join("nats-server.conf.go"), "").unwrap());
    starting.join().unwrap().unwrap_err()
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

#[test]
fn a_port_taken_by_a_stranger_after_the_first_look_is_named() {
    let port = free_port();
    let error = start_a_slow_one(port, |give_up| {
        let stranger = TcpListener::bind(("127.0.0.1", port)).unwrap();
        give_up();
        stranger
    });
    assert!(
        matches!(error, Error::PortTaken { port: named } if named == port),
        "{error:?}"
    );
}

#[test]
fn somebody_elses_nats_server_on_the_port_is_not_taken_for_ours() {
    let port = free_port();
    let store = folder();
    let options = Options {
        port: Port::Fixed(port),
        ..Options::new(store.path())
    };
    let error = start_a_slow_one(port, |_| Broker::start(&binary(), options).unwrap());
    assert!(
        matches!(error, Error::PortTaken { port: named } if named == port),
        "{error:?}"
    );
}

#[test]
fn a_store_in_use_is_named() {
    let first = Broker::start_in_temp().unwrap();
    let error = Broker::start(&binary(), Options::new(first.store())).unwrap_err();
    assert!(
        matches!(&error, Error::StoreInUse { store } if store == first.store()),
        "{error:?}"
    );
    assert!(introduction(first.port()).unwrap().contains(first.name()));
}

#[test]
fn a_broker_killed_and_restarted_keeps_its_port_and_store() {
    let mut broker = Broker::start_in_temp().unwrap();
    let (port, first) = (broker.port(), broker.pid());
    let made = ask(
        port,
        "$JS.API.STREAM.CREATE.KEPT",
        r#"{"name":"KEPT","subjects":["kept"],"storage":"file"}"#,
    );
    assert!(
        made.contains("stream_create_response") && !made.contains("error"),
        "{made}"
    );
    assert!(ask(port, "kept", "an event").contains("\"seq\":1"));

    let status = broker.kill().unwrap();
    assert_eq!(status.signal(), Some(9));
    assert_eq!(introduction(port), None);
    broker.restart().unwrap();
    assert_eq!(broker.port(), port);
    assert_ne!(broker.pid(), first);
    let info = ask(port, "$JS.API.STREAM.INFO.KEPT", "");
    assert!(info.contains("\"messages\":1"), "{info}");
    assert!(introduction(port).unwrap().contains(broker.name()));
}

#[test]
fn a_broker_is_stopped_in_order_and_can_start_again() {
    let mut broker = Broker::start_in_temp().unwrap();
    assert_eq!(broker.exited(), None);
    let status = broker.stop().unwrap();
    assert!(status.success(), "{status}");
    assert!(
        broker.log_tail().ends_with("Server Exiting.."),
        "{}",
        broker.log_tail()
    );
    assert_eq!(broker.exited(), Some(status));
    assert_eq!(broker.stop().unwrap(), status);
    assert!(matches!(broker.pause(), Err(Error::NotRunning)));
    broker.restart().unwrap();
    assert_eq!(broker.exited(), None);
    let second = broker.pid();
    broker.restart().unwrap();
    assert!(!runs(second));
}

#[test]
fn a_paused_broker_is_silent_until_resumed_and_can_be_stopped() {
    let mut broker = Broker::start_in_temp().unwrap();
    broker.pause().unwrap();
    broker.pause().unwrap();
    assert_eq!(introduction(broker.port()), None);
    assert_eq!(broker.exited(), None);
    broker.resume().unwrap();
    assert!(introduction(broker.port()).is_some());
    broker.pause().unwrap();
    assert!(broker.stop().unwrap().success());
}

#[test]
fn a_broker_that_somebody_else_kills_is_noticed() {
    let mut broker = Broker::start_in_temp().unwrap();
    Command::new("/bin/sh")
        .args(["-c", "kill -9 \"$1\"", "kill", &broker.pid().to_string()])
        .status()
        .unwrap();
    eventually_blocking("the broker to end", || is(broker.exited().is_some(), &true));
    assert_eq!(broker.exited().unwrap().signal(), Some(9));
}

#[test]
fn the_log_goes_where_it_is_told_over_restarts() {
    let (home, binary) = (folder(), binary());
    let file = home.path().join("nats.log");
    let lines = Arc::new(Mutex::new(Vec::new()));
    let push = {
        let lines = Arc::clone(&lines);
        Arc::new(move |line: &str| lines.lock().unwrap().push(line.to_owned()))
    };
    let to_file = Options {
        log: Log::File(file.clone()),
        ..Options::new(home.path().join("one"))
    };
    let to_lines = Options {
        log: Log::Lines(push),
        ..Options::new(home.path().join("two"))
    };
    for options in [to_file, to_lines] {
        let mut broker = Broker::start(&binary, options).unwrap();
        broker.restart().unwrap();
        broker.stop().unwrap();
    }
    let twice = |text: &str| assert_eq!(text.matches("Server Exiting..").count(), 2, "{text}");
    twice(&fs::read_to_string(file).unwrap());
    twice(&lines.lock().unwrap().join("\n"));
}

#[test]
fn the_sync_option_reaches_the_configuration() {
    let (home, binary) = (folder(), binary());
    let text = |sync| {
        let broker = Broker::start(
            &binary,
            Options {
                sync,
                ..Options::new(home.path())
            },
        )
        .unwrap();
        fs::read_to_string(broker.store().join("nats-server.conf")).unwrap()
    };
    assert!(text(Sync::Always).contains("\n  sync_interval: always\n"));
    assert!(!text(Sync::Default).contains("\n  sync_interval"));
}

#[test]
fn a_store_may_have_a_difficult_name() {
    let home = folder();
    let store = home.path().join("a \"b\" \\c $d #é");
    let broker = Broker::start(&binary(), Options::new(&store)).unwrap();
    assert!(broker.store().join("jetstream").exists());
}

#[test]
fn a_server_that_cannot_start_says_why() {
    let home = folder();
    fs::write(home.path().join("jetstream"), "in the way").unwrap();
    let error = Broker::start(&binary(), Options::new(home.path())).unwrap_err();
    assert!(matches!(error, Error::Ended { .. }), "{error:?}");
    assert!(error.to_string().contains("[FTL]"), "{error}");
}

#[test]
fn a_server_that_is_never_ready_is_killed_at_the_deadline() {
    let (bin, store) = (folder(), folder());
    let pid = store.path().join("pid");
    let path = script(
        bin.path(),
        "nats-server",
        &format!(
            "echo $$ > '{}'; echo thinking; exec sleep 60",
            pid.display()
        ),
    );
    let within = Duration::from_millis(500);
    let options = Options {
        ready_within: within,
        ..Options::new(store.path())
    };
    let hanging = Binary {
        path,
        version: Version {
            major: 2,
            minor: 15,
            patch: 1,
        },
    };
    let error = Broker::start(&hanging, options).unwrap_err();
    assert!(
        matches!(error, Error::NotReady { within: named, .. } if named == within),
        "{error:?}"
    );
    assert!(error.to_string().contains("thinking"), "{error}");
    assert!(!runs(
        fs::read_to_string(pid).unwrap().trim().parse().unwrap()
    ));
}
