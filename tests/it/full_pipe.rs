//! A service whose log is not read: its standard error is a full pipe.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStderr, Command, Stdio};

use broker::Watchdog;
use e2e::faults::metric;
use e2e::process::Address;
use e2e::{Client, eventually, program};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;

/// The service `users`, without a broker, at the most verbose log level.
struct Users {
    process: Child,
    log: BufReader<ChildStderr>,
    client: Client,
    admin: Client,
    _folder: TempDir,
    watchdog: Watchdog,
}

impl Users {
    /// Starts it and stops reading its log after the line with its address.
    fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let mut process = Command::new(program("headwater-users"))
            .args(["--database", "users.db", "--log-format", "json"])
            .args(["--log", "trace", "--nats-url", "nats://127.0.0.1:1"])
            .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .current_dir(folder.path())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let watchdog = Watchdog::over(process.id()).unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap());
        let address = loop {
            let mut line = String::new();
            assert!(log.read_line(&mut line).unwrap() > 0, "it ended");
            if let Some(address) = Address::logged(&line) {
                break address;
            }
        };
        Self {
            process,
            log,
            client: Client::at(address.http),
            admin: Client::at(address.admin),
            _folder: folder,
            watchdog,
        }
    }

    async fn serve(&self) {
        let user = json!({"name": "Ada", "email": "ada@example.com"});
        let user = self.client.create("/users", &user).await;
        let found = self.client.get(&format!("/users/{}", user.id())).await;
        assert_eq!(found.status, 200, "{}", found.text);
        assert_eq!(self.client.get("/livez").await.status, 200);
    }

    /// Makes it log until lines are dropped.
    async fn fill(&self) {
        eventually("dropped lines", || async {
            for _ in 0..50 {
                self.serve().await;
            }
            let dropped = metric(&self.admin, "headwater_log_dropped_total").await;
            if dropped > 0.0 { Ok(()) } else { Err(dropped) }
        })
        .await;
    }
}

impl Drop for Users {
    fn drop(&mut self) {
        // Fails only if the process has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
        self.watchdog.stand_down();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_log_nobody_reads_serves_on_and_stops_when_it_is_told() {
    let mut users = Users::start();
    users.fill().await;
    users.serve().await;
    kill_process(Pid::from_child(&users.process), Signal::TERM).unwrap();
    let status = eventually("an orderly end", || {
        std::future::ready(users.process.try_wait().unwrap().ok_or("it runs"))
    })
    .await;
    assert!(status.success(), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn how_many_lines_were_dropped_is_logged_once_they_are_read_again() {
    let mut users = Users::start();
    users.fill().await;
    let line = tokio::task::spawn_blocking(move || {
        let mut lines = (&mut users.log).lines().map(Result::unwrap);
        let line = lines.find(|line| line.contains("log lines were dropped"));
        drop(users);
        line
    });
    let line = line.await.unwrap().expect("the line");
    let line: serde_json::Value = serde_json::from_str(&line).expect("complete lines");
    assert_eq!(line["level"], "WARN");
    assert!(line["lines"].as_u64().unwrap() > 0, "{line}");
}
