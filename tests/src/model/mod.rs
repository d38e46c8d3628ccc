//! Torture: random commands and faults on the whole system, compared with a plain model.
//!
//! Several clients send what they planned: register, create, rename, order, erase, read, repeat,
//! and requests that must be refused. Each client repeats a request under the same
//! `Idempotency-Key` until its answer is definite, so the model knows what has happened. Meanwhile
//! services and broker are killed, paused and lose their data. After each round all faults end,
//! everything catches up, and every outbox, stream and answer must agree with the model.
//!
//! The same seed gives the same commands and the same faults in the same order. It does not give
//! the same run, because the scheduling of processes has no seed. Repeat a failed run a few times.
//!
//! A run counts only if it met each [`Situation`]; it continues for some rounds until it has.

mod breaker;
mod check;
mod client;
mod command;
mod expected;
mod fault;
mod logs;
mod request;
mod shop;
mod streams;
mod tally;
mod watch;

pub use tally::{Situation, Tally};

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::world::{Service, World};
use breaker::{Breaker, LOOK_EVERY};
use command::{Plan, Ref, index};
use fault::{Deck, Schedule};
use logs::Logs;
use shop::Shop;
use streams::Streams;

/// The number of clients.
const CLIENTS: u64 = 6;

/// How many commands each client sends in a round.
const COMMANDS: usize = 40;

/// How many users are checked after a round; after the last, all of them.
const LOOKED_AT: usize = 300;

/// The length of a run.
#[derive(Debug, Clone, Copy)]
pub struct Dose {
    /// The seed of all random choices.
    pub seed: u64,
    /// The minimum number of rounds.
    pub rounds: u64,
    /// The minimum duration.
    pub lasts: Duration,
    /// The maximum number of extra rounds to meet missing situations.
    pub more_rounds: u64,
}

/// Runs a world through rounds of commands and faults; reports progress to `say`.
///
/// # Errors
/// Something is wrong, or a situation was not met. The error names the world's folder, which stays.
pub async fn run(dose: Dose, say: impl Fn(&str)) -> anyhow::Result<Tally> {
    let mut world = World::on_host().logging_everything().empty();
    let folder = world.keep_folder();
    let place = format!(
        "seed {}, logs and databases in {}",
        dose.seed,
        folder.display()
    );
    say(&place);
    let _report = PanicReport {
        place: &place,
        say: &say,
    };
    Streams::make_soft(&world).await?;
    for service in Service::ALL {
        world.run(service).await;
    }
    let shop = Arc::new(Shop::of(&world));
    let mut torture = Torture {
        dose,
        breaker: Breaker::new(world, Arc::clone(&shop)),
        shop,
        plans: (0..CLIENTS).map(|n| Plan::new(dose.seed, n)).collect(),
        deck: Deck::new(dose.seed),
        logs: Logs::default(),
    };
    match Box::pin(torture.rounds(&say)).await {
        Ok(()) => {
            check::all(&mut torture.breaker, &torture.shop, 0, usize::MAX)
                .await
                .context("after the last round")?;
            torture.breaker.world.finish().await;
            std::fs::remove_dir_all(folder).context("remove the folder")?;
            Ok(torture.breaker.tally)
        }
        Err(failure) => {
            torture.breaker.world.abandon();
            Err(failure.context(place.clone()))
        }
    }
}

/// Reports the folder and the seed if the run panics.
struct PanicReport<'a, S: Fn(&str)> {
    place: &'a str,
    say: &'a S,
}

impl<S: Fn(&str)> Drop for PanicReport<'_, S> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            (self.say)(self.place);
        }
    }
}

struct Torture {
    dose: Dose,
    breaker: Breaker,
    shop: Arc<Shop>,
    plans: Vec<Plan>,
    deck: Deck,
    logs: Logs,
}

impl Torture {
    async fn rounds(&mut self, say: &impl Fn(&str)) -> anyhow::Result<()> {
        let end = Instant::now() + self.dose.lasts;
        loop {
            let round = self.breaker.tally.rounds + 1;
            let schedule = self.deck.deal();
            let took = self
                .round(&schedule)
                .await
                .with_context(|| format!("round {round}: {schedule}"))?;
            self.breaker.tally.rounds = round;
            let missing = self.breaker.tally.missing();
            say(&format!(
                "round {round}: {schedule}; {took}, {} events, not met: {missing:?}",
                self.breaker.tally.events
            ));
            if round >= self.dose.rounds && Instant::now() >= end {
                if missing.is_empty() {
                    return Ok(());
                }
                ensure!(
                    round < self.dose.rounds + self.dose.more_rounds
                        || Instant::now() < end + self.dose.lasts,
                    "after {round} rounds these were not met: {missing:?}"
                );
            }
        }
    }

    /// Runs one round; returns how long its parts took.
    async fn round(&mut self, schedule: &Schedule) -> anyhow::Result<String> {
        let began = Instant::now();
        Streams::soften(&self.breaker.world).await?;
        let all: Vec<Ref> = self.shop.book().products.keys().copied().collect();
        let mut clients = JoinSet::new();
        for (number, plan) in (0..).zip(&mut self.plans) {
            let others: Vec<Ref> = all.iter().copied().filter(|r| r.client != number).collect();
            let commands = plan.round(COMMANDS, &others);
            self.shop.plan(commands.len());
            clients.spawn(client::run(Arc::clone(&self.shop), commands));
        }
        let mut watching = JoinSet::new();
        watching.spawn(watch::watch(Arc::clone(&self.shop)));
        for step in &schedule.steps {
            self.breaker.take(step).await?;
            while let Some(ended) = clients.try_join_next() {
                ended.context("a client panicked")??;
            }
        }
        let broken = began.elapsed();
        self.breaker.repair().await?;
        while !clients.is_empty() {
            // A service that dies now must be restarted, or the clients would wait for it.
            self.breaker.mind().await?;
            if let Ok(Some(ended)) = timeout(LOOK_EVERY, clients.join_next()).await {
                ended.context("a client panicked")??;
            }
        }
        if let Some(ended) = watching.try_join_next() {
            ended.context("watching panicked")??;
        }
        drop(watching);
        self.breaker.mind().await?;
        let answered = began.elapsed();
        let round = index(self.breaker.tally.rounds);
        check::all(&mut self.breaker, &self.shop, round, LOOKED_AT).await?;
        self.breaker.tally.take_book(&self.shop.book());
        let folder = self.breaker.world.folder();
        self.logs.read(folder, &mut self.breaker.tally)?;
        Ok(format!(
            "faults {broken:.1?}, last answers {:.1?}, checks {:.1?}",
            answered.checked_sub(broken).unwrap_or_default(),
            began.elapsed().checked_sub(answered).unwrap_or_default()
        ))
    }
}
