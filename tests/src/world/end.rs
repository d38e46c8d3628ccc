//! How a world ends, and the assertions at its end.

use super::{Service, World};
use crate::eventually;

/// How many log lines of each service a failed test shows.
const LINES_SHOWN: usize = 12;

impl World {
    /// Stops everything after checking that no work is left: every component of every service is
    /// well, and every outbox is in its stream.
    pub async fn finish(mut self) {
        if self.known().any(|service| service == Service::Purchases) {
            self.caught_up().await;
        }
        self.expect_all_well().await;
        while let Some((service, _)) = self.running.last_key_value() {
            let service = *service;
            self.stop(service).await;
        }
        self.finished = true;
    }

    /// Kills everything without any check, after a known fault.
    pub fn abandon(&mut self) {
        self.running.clear();
        self.finished = true;
    }

    pub(super) async fn expect_all_well(&self) {
        for service in self.running.keys() {
            self.expect_well(*service).await;
        }
    }

    /// Waits until every component of the service is well. With a dead letter, its projection is
    /// not.
    pub async fn expect_well(&self, service: Service) {
        let client = self.client(service);
        eventually("every part to be well", || async {
            let parts = client.get("/readyz?verbose").await.json;
            let all = parts.as_object().into_iter().flatten();
            if all.clone().count() > 0 && all.clone().all(|(_, part)| part["state"] == "ok") {
                Ok(())
            } else {
                Err(parts.to_string())
            }
        })
        .await;
    }
}

impl Drop for World {
    /// If the test failed, prints the last log lines of the services.
    #[expect(clippy::print_stderr, reason = "output of a failed test")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            for service in self.addresses.keys() {
                let log = self.log(*service);
                let lines: Vec<_> = log.lines().rev().take(LINES_SHOWN).collect();
                for line in lines.iter().rev() {
                    eprintln!("{}: {line}", service.name());
                }
            }
        } else {
            assert!(self.finished, "end the test with world.finish()");
        }
    }
}
