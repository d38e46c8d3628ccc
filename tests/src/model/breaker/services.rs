//! The services, their rival, and the read store.

use tokio::time::{Instant, timeout};

use super::{Breaker, State, WORK_WITHIN, begin_rebuild};
use crate::eventually;
use crate::model::tally::Recovery;
use crate::world::Service;

impl Breaker {
    pub(super) async fn kill(&mut self, service: Service) -> anyhow::Result<bool> {
        if self.services[&service] == State::Down {
            return Ok(false);
        }
        self.note_crash(service);
        self.world.kill(service).await;
        self.services.insert(service, State::Down);
        self.killed_at.insert(service, self.shop.book().total());
        Ok(true)
    }

    /// Starts a service. Notes the time until it is ready and, for the read store without other
    /// faults, until it has caught up.
    pub(super) async fn start(&mut self, service: Service) -> anyhow::Result<bool> {
        if self.services[&service] != State::Down {
            return Ok(false);
        }
        let reached = self.shop.book().reached.clone();
        let waited =
            reached.0.values().sum::<u64>() - self.killed_at.get(&service).copied().unwrap_or(0);
        let started = Instant::now();
        self.world.run(service).await;
        self.services.insert(service, State::Up);
        let client = self.shop.service(service).clone();
        eventually("a service to be ready", || async {
            let reply = client.get("/readyz").await;
            if reply.status == 200 {
                Ok(())
            } else {
                Err(reply.text)
            }
        })
        .await;
        let ready = started.elapsed();
        let mut caught_up = None;
        let is_quiet = self.broker == State::Up
            && self.services.values().all(|state| *state == State::Up)
            && self.armed.is_empty();
        if service == Service::Purchases && is_quiet {
            let path = format!("/users/{}/purchases?after={reached}", uuid::Uuid::nil());
            eventually("the read store to catch up", || async {
                let reply = client.get(&path).await;
                if reply.status == 404 {
                    Ok(())
                } else {
                    Err(reply.text)
                }
            })
            .await;
            caught_up = Some(started.elapsed());
        }
        self.tally.recovered(Recovery {
            service,
            round: self.tally.rounds + 1,
            waited,
            ready,
            caught_up,
        });
        Ok(true)
    }

    pub(super) async fn start_armed(&mut self, service: Service, point: String) -> bool {
        if self.services[&service] != State::Down {
            return false;
        }
        let set = |command: &mut std::process::Command| {
            command.env("HEADWATER_CRASH", &point);
        };
        let ended = self.world.try_run_with(service, set).await;
        match ended {
            None => {
                self.services.insert(service, State::Up);
                self.armed.insert(service, point);
            }
            // It reached the crash point before it listened.
            Some(mut process) => {
                assert!(process.crashed(), "{}", process.log());
                self.tally.crash(&point);
                self.world.run(service).await;
                self.services.insert(service, State::Up);
            }
        }
        true
    }

    pub(super) fn pause(&mut self, service: Service) -> bool {
        // An armed service may die at any moment; the wait for SIGSTOP would never end.
        let can = self.services[&service] == State::Up && !self.armed.contains_key(&service);
        if can {
            self.world.process(service).pause();
            self.services.insert(service, State::Paused);
        }
        can
    }

    pub(super) fn resume(&mut self, service: Service) -> bool {
        let can = self.services[&service] == State::Paused;
        if can {
            self.world.process(service).resume();
            self.services.insert(service, State::Up);
        }
        can
    }

    pub(super) fn start_rival(&mut self) -> bool {
        let can = self.rival.is_none();
        if can {
            self.rival = Some(self.world.rival());
        }
        can
    }

    pub(super) async fn stop_rival(&mut self) -> anyhow::Result<bool> {
        self.mind().await?;
        Ok(self.rival.take().is_some())
    }

    /// Deletes the read store and the other files of its name.
    pub(super) fn lose_read_store(&mut self) -> anyhow::Result<bool> {
        if self.services[&Service::Purchases] != State::Down {
            return Ok(false);
        }
        for entry in std::fs::read_dir(self.world.folder())? {
            let entry = entry?;
            if entry
                .file_name()
                .to_string_lossy()
                .starts_with("purchases.db")
            {
                std::fs::remove_file(entry.path())?;
            }
        }
        self.killed_at.insert(Service::Purchases, 0);
        Ok(true)
    }

    /// Asks for a rebuild of the read store, if `purchases` and the broker are up; does not wait
    /// for it.
    pub(super) async fn rebuild(&self) -> bool {
        let is_there = self.broker == State::Up && self.services[&Service::Purchases] == State::Up;
        let asked = timeout(WORK_WITHIN, begin_rebuild(&self.world, "rebuild"));
        is_there && matches!(asked.await, Ok(Ok(())))
    }
}
