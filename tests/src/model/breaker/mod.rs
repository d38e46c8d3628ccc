//! Injects faults, step by step, and ends them all at the end of a round.

mod broker;
mod services;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use async_nats::service::NATS_SERVICE_ERROR;
use headwater_testkit::copy_folder;
use tokio::time::{Instant, timeout};

use super::fault::Step;
use super::shop::Shop;
use super::streams::Streams;
use super::tally::Tally;
use crate::process::Process;
use crate::world::{Service, World};

/// How long a step waits for answers; during a fault there may be none.
const WORK_WITHIN: Duration = Duration::from_millis(1500);

/// How often to look for ended services.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Up,
    Paused,
    Down,
}

/// The world and its current faults.
#[derive(Debug)]
pub(super) struct Breaker {
    pub(super) world: World,
    pub(super) streams: Streams,
    pub(super) tally: Tally,
    shop: Arc<Shop>,
    services: BTreeMap<Service, State>,
    /// Services with an armed crash point, and its name.
    armed: BTreeMap<Service, String>,
    /// How many positions had been given when a service was killed; 0 if its store was lost.
    killed_at: BTreeMap<Service, u64>,
    broker: State,
    rival: Option<Process>,
}

impl Breaker {
    pub(super) fn new(world: World, shop: Arc<Shop>) -> Self {
        Self {
            world,
            streams: Streams::default(),
            tally: Tally::default(),
            shop,
            services: Service::ALL.map(|service| (service, State::Up)).into(),
            armed: BTreeMap::new(),
            killed_at: BTreeMap::new(),
            broker: State::Up,
            rival: None,
        }
    }

    pub(super) async fn take(&mut self, step: &Step) -> anyhow::Result<()> {
        let taken = match step {
            Step::Kill(service) => self.kill(*service).await?,
            Step::Start(service) => self.start(*service).await?,
            Step::StartArmed(service, point, pass) => {
                self.start_armed(*service, format!("{point}:{pass}")).await
            }
            Step::Pause(service) => self.pause(*service),
            Step::Resume(service) => self.resume(*service),
            Step::KillBroker => self.kill_broker()?,
            Step::StartBroker => self.start_broker()?,
            Step::PauseBroker => self.pause_broker()?,
            Step::ResumeBroker => self.resume_broker()?,
            Step::CopyStore => self.with_broker_down(|breaker| {
                let _ = std::fs::remove_dir_all(breaker.copy());
                copy_folder(&breaker.store(), &breaker.copy())
            })?,
            Step::PutBackStore => self.with_broker_down(|breaker| {
                std::fs::remove_dir_all(breaker.store())?;
                copy_folder(&breaker.copy(), &breaker.store())
            })?,
            Step::LoseStore => {
                let taken = self.with_broker_down(|b| std::fs::remove_dir_all(b.store()))?;
                self.on_streams(Streams::make_soft(&self.world)).await;
                taken
            }
            Step::LoseStream(source) => self.on_streams(Streams::lose(&self.world, *source)).await,
            Step::LoseConsumers(source) => {
                self.on_streams(Streams::lose_consumers(&self.world, *source))
                    .await
            }
            Step::PublishAgain(source, count) => {
                self.on_streams(Streams::publish_again(&self.world, *source, *count))
                    .await
            }
            Step::DeleteEvent(source, back) => self.delete_event(*source, *back).await,
            Step::StartRival => self.start_rival(),
            Step::StopRival => self.stop_rival().await?,
            Step::LoseReadStore => self.lose_read_store()?,
            Step::Rebuild => self.rebuild().await,
            Step::Work(count) => {
                self.work(*count).await?;
                return Ok(());
            }
        };
        self.tally.step(step, taken);
        self.mind().await
    }

    /// Waits for `count` answers; restarts services that crash meanwhile.
    async fn work(&mut self, count: u64) -> anyhow::Result<()> {
        let mut answered = self.shop.answered();
        let enough = (*answered.borrow() + count).min(self.shop.planned());
        let deadline = Instant::now() + WORK_WITHIN;
        while Instant::now() < deadline {
            if let Ok(Ok(_)) = timeout(LOOK_EVERY, answered.wait_for(|now| *now >= enough)).await {
                break;
            }
            self.mind().await?;
        }
        Ok(())
    }

    /// Restarts services that died at their crash point.
    ///
    /// # Errors
    /// Something else has died.
    pub(super) async fn mind(&mut self) -> anyhow::Result<()> {
        for service in Service::ALL {
            let is_dead = self.services[&service] == State::Up
                && self.world.process(service).exited().is_some();
            if !is_dead {
                continue;
            }
            if !self.note_crash(service) {
                let log = self.world.process(service).log();
                let lines: Vec<_> = log.lines().rev().take(5).collect();
                bail!("{} ended unexpectedly: {lines:#?}", service.name());
            }
            self.world.kill(service).await;
            self.services.insert(service, State::Down);
            self.killed_at.insert(service, self.shop.book().total());
            self.start(service).await?;
        }
        if let Some(rival) = &mut self.rival
            && rival.exited().is_some()
        {
            bail!("the rival ended unexpectedly: {}", rival.log());
        }
        Ok(())
    }

    /// Whether a service has died at its armed crash point.
    fn note_crash(&mut self, service: Service) -> bool {
        let process = self.world.process(service);
        let has_crashed = process.exited().is_some() && process.crashed();
        let armed = self.armed.remove(&service);
        if let Some(point) = &armed
            && has_crashed
        {
            self.tally.crash(point);
        }
        has_crashed && armed.is_some()
    }

    /// Changes streams if the broker is up. A missing stream or a broker that has just started is
    /// no error.
    async fn on_streams(&self, work: impl Future<Output = anyhow::Result<()>>) -> bool {
        self.broker == State::Up && matches!(timeout(WORK_WITHIN * 2, work).await, Ok(Ok(())))
    }

    async fn delete_event(&mut self, source: Service, back: u64) -> bool {
        if self.broker != State::Up {
            return false;
        }
        let deleting = self.streams.delete(&self.world, source, back);
        matches!(timeout(WORK_WITHIN * 2, deleting).await, Ok(Ok(())))
    }

    /// Ends all faults.
    pub(super) async fn repair(&mut self) -> anyhow::Result<()> {
        for service in Service::ALL {
            self.resume(service);
        }
        self.resume_broker()?;
        self.start_broker()?;
        self.stop_rival().await?;
        for service in self.armed.clone().into_keys() {
            self.kill(service).await?;
        }
        for service in Service::ALL {
            self.start(service).await?;
        }
        Ok(())
    }
}

/// Asks `purchases` for a rebuild: `rebuild` or `verify`.
pub(super) async fn begin_rebuild(world: &World, what: &str) -> anyhow::Result<()> {
    let client = async_nats::connect(world.broker.url()).await?;
    let subject = format!("headwater.purchases.{what}");
    let answer = client.request(subject, "".into()).await?;
    let refused = answer
        .headers
        .as_ref()
        .and_then(|h| h.get(NATS_SERVICE_ERROR));
    if let Some(refused) = refused {
        bail!("{what} was refused: {refused}");
    }
    Ok(())
}
