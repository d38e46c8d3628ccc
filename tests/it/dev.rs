//! A shop that `cargo dev` has started and seeded.

use std::path::Path;
use std::process::Stdio;

use e2e::{has_built, program};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// It stops in order; otherwise its watchdogs end what it has started.
pub(crate) struct Dev {
    process: Child,
    summary: Value,
    http: reqwest::Client,
    folder: TempDir,
}

impl Dev {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut process = Command::new(program("dev"))
            .args(["--http-port", "0", "--nats-port", "0", "--output", "json"])
            .arg("--data")
            .arg(folder.path().join("data"))
            .envs(has_built())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let line = lines.next_line().await.unwrap();
        let summary = line.expect("dev ended before it started; see above");
        Self {
            process,
            summary: serde_json::from_str(&summary).unwrap(),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            folder,
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The address of the control room, with its token.
    pub(crate) fn room(&self) -> &str {
        self.summary["room"].as_str().unwrap()
    }

    pub(crate) fn nats_url(&self) -> &str {
        self.summary["nats"]["url"].as_str().unwrap()
    }

    /// Makes a service publish on `subject`.
    pub(crate) async fn cause(&self, subject: &str) {
        let user = self.summary["page"]["url"].as_str().unwrap();
        let user = user.rsplit('/').next().unwrap();
        let url = |service: &str| self.summary["services"][service]["url"].as_str().unwrap();
        let request = if subject.starts_with("inquiry.") {
            let url = format!("{}/users/{user}/purchases", url("purchases-inquiry"));
            self.http.get(url)
        } else {
            let product = "01955b1c-3f8a-7b17-9b80-e8c86df01a9c";
            let order = json!({"user_id": user, "product_ids": [product]});
            self.http
                .post(format!("{}/orders", url("orders")))
                .json(&order)
        };
        request.send().await.unwrap().error_for_status().unwrap();
    }

    pub(crate) async fn stop(mut self) {
        let pid = i32::try_from(self.process.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::INT).unwrap();
        assert!(self.process.wait().await.unwrap().success());
    }
}
