//! Notifications to the service manager, whose part the test plays.

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

use e2e::faults::can_trace;
use e2e::hammer::{Hammer, Target};
use e2e::{Service, World, eventually};
use tempfile::TempDir;

/// The service manager.
struct Manager {
    socket: UnixDatagram,
    folder: TempDir,
    /// The messages, with the times of their arrival.
    heard: Vec<(Instant, String)>,
}

impl Manager {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self {
            socket,
            folder,
            heard: Vec::new(),
        }
    }

    fn over(&self, command: &mut Command) {
        command.env("NOTIFY_SOCKET", self.folder.path().join("notify"));
    }

    fn listen(&mut self) {
        let mut bytes = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut bytes) {
            let text = String::from_utf8(bytes[..length].to_vec()).unwrap();
            let now = Instant::now();
            self.heard
                .extend(text.lines().map(|line| (now, line.to_owned())));
        }
    }

    fn has_heard(&mut self, is_it: impl Fn(&str) -> bool) -> Result<(), Vec<String>> {
        self.listen();
        let lines = || self.heard.iter().map(|(_, line)| line.clone());
        if lines().any(|line| is_it(&line)) {
            return Ok(());
        }
        Err(lines().collect())
    }

    async fn hears(&mut self, what: &str, is_it: impl Fn(&str) -> bool) {
        eventually(what, || std::future::ready(self.has_heard(&is_it))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_ready_without_a_broker_and_says_how_it_is_until_it_stops() {
    let mut world = World::on_host().empty();
    world.broker.kill().unwrap();
    let mut manager = Manager::new();
    world
        .run_with(Service::Users, |command| manager.over(command))
        .await;
    manager.hears("ready", |line| line == "READY=1").await;
    manager
        .hears("what it waits for", |line| {
            line.starts_with("STATUS=degraded: ") && line.contains("relay: not connected to NATS")
        })
        .await;
    world.broker.restart().unwrap();
    manager
        .hears("all is well", |line| {
            let parts = line.strip_prefix("STATUS=");
            let count = parts.and_then(|parts| parts.strip_suffix(" components ok")?.parse().ok());
            count >= Some(2)
        })
        .await;
    world.process(Service::Users).hang_up();
    manager
        .hears("a reload, and when", |line| {
            line.starts_with("MONOTONIC_USEC=")
        })
        .await;
    world.stop(Service::Users).await;
    manager.hears("the stop", |line| line == "STOPPING=1").await;
    world.abandon();
    let of_reload = |line: &str| line == "RELOADING=1" || line == "READY=1";
    let lines = manager.heard.iter().map(|(_, line)| line.as_str());
    let lines: Vec<_> = lines.filter(|line| of_reload(line)).collect();
    assert_eq!(lines, ["READY=1", "RELOADING=1", "READY=1"]);
    assert!(
        manager.has_heard(|line| line == "WATCHDOG=1").is_err(),
        "a watchdog ping without a deadline"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_a_slow_disk_holds_up_feeds_the_watchdog() {
    const DEADLINE: Duration = Duration::from_secs(8);
    if !can_trace() {
        return;
    }
    let mut world = World::on_host().empty();
    let mut manager = Manager::new();
    world
        .run_with(Service::Users, |command| {
            // One slow fsync per write: the last in the queue waits for longer than the deadline.
            command.args(["--database-group", "1", "--http-timeout", "10m"]);
            command.env("WATCHDOG_USEC", DEADLINE.as_micros().to_string());
            manager.over(command);
            e2e::faults::slow_fsync(command, Duration::from_secs(1));
        })
        .await;
    let address = world
        .client(Service::Users)
        .base()
        .trim_start_matches("http://")
        .parse()
        .unwrap();
    let posts = Target {
        address,
        line: "POST /users",
        body: r#"{"name": "Ada", "email": "ada-#@example.com"}"#,
    };
    let waiting = Hammer::begin(20, vec![posts]);
    let feeds = |manager: &Manager| -> Vec<Instant> {
        let feeds = manager
            .heard
            .iter()
            .filter(|(_, line)| line == "WATCHDOG=1");
        feeds.map(|(heard, _)| *heard).collect()
    };
    eventually("the watchdog to be fed eight times", || {
        manager.listen();
        let count = feeds(&manager).len();
        std::future::ready(if count < 8 { Err(count) } else { Ok(()) })
    })
    .await;
    let feeds = feeds(&manager);
    let longest = feeds.windows(2).map(|two| two[1] - two[0]).max().unwrap();
    assert!(longest < DEADLINE, "it went {longest:?} without");
    waiting.abandon().await;
    world.abandon();
}
