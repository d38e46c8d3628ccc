//! Torture: random commands and faults over the whole system, compared with a plain fold.
//!
//! Several clients send what they planned: register, create, rename, order, erase, read, repeat,
//! and requests that must be refused. Each is sent until its answer is definite, under the same
//! `Idempotency-Key`, so it is always known what has happened. Meanwhile services and broker are
//! killed, paused and robbed of their data. After each round all faults end, everything catches
//! up, and every outbox, stream and answer must be what the fold of the answers says.
//!
//! The same seed gives the same commands and the same faults in the same order. It does not give
//! the same run: when a process gets its turn, nobody can seed. Send a failure again a few times.
//!
//! A run counts only if it met each [`Situation`]; it goes on for some rounds until it has.

mod breaker;
mod check;
mod client;
mod command;
mod fault;
mod fold;
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

/// How many clients there are.
const CLIENTS: u64 = 6;

/// How many commands each of them sends in a round.
const COMMANDS: usize = 40;

/// How many users are looked at after a round; all of them after the last.
const LOOKED_AT: usize = 300;

/// How long a run is.
#[derive(Debug, Clone, Copy)]
pub struct Dose {
    /// Where all chance comes from.
    pub seed: u64,
    /// At least so many rounds.
    pub rounds: u64,
    /// At least this long.
    pub lasts: Duration,
    /// So many rounds at most for the sake of situations that were not met.
    pub more_rounds: u64,
}

/// Runs a world through rounds of commands and faults; `say` is told how it goes.
///
/// # Errors
/// Something is not as it must be, or a situation was not met: the world's folder stays, and is
/// named.
pub async fn run(dose: Dose, say: impl Fn(&str)) -> anyhow::Result<Tally> {
    let mut world = World::on_host().logging_everything().empty();
    let folder = world.keep_folder();
    let place = format!(
        "seed {}, logs and databases in {}",
        dose.seed,
        folder.display()
    );
    say(&place);
    let _told = Told {
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

/// Says where to look when the run ends by a panic.
struct Told<'a, S: Fn(&str)> {
    place: &'a str,
    say: &'a S,
}

impl<S: Fn(&str)> Drop for Told<'_, S> {
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

    /// One round; says how long its parts took.
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
        self.breaker.mend().await?;
        while !clients.is_empty() {
            // Whatever dies now is noticed, too: the clients would wait for it.
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
