//! What all clients share: the services, the record of the answers, and their number.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{bail, ensure};
use headwater::{Clock, Positions};
use reqwest::{RequestBuilder, StatusCode};
use tokio::sync::watch;
use tokio::time::Instant;

use super::command::Ref;
use super::expected::{Expected, Shown};
use crate::client::{self, Client, Reply};
use crate::world::{Service, World};

/// How long a client waits for one answer; longer than a service waits for `?after`.
const ANSWER_WITHIN: Duration = Duration::from_secs(8);

/// How long a client repeats a request; faults end far sooner.
const SETTLED_WITHIN: Duration = Duration::from_mins(3);

/// How many of the users who ordered last are watched.
const WATCHED: usize = 4;

/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(25);

/// A created resource: its id and the position of its event.
#[derive(Debug, Clone)]
pub(super) struct Made {
    pub(super) id: String,
    pub(super) position: String,
}

/// An answer of `purchases`.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) user: String,
    pub(super) as_of: Positions,
    pub(super) shown: Shown,
}

/// The record of all answers.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) expected: Expected,
    pub(super) users: BTreeMap<Ref, Made>,
    pub(super) products: BTreeMap<Ref, Made>,
    /// The answer under each key, as text.
    pub(super) answers: BTreeMap<String, (String, Option<String>)>,
    /// The effect of each position.
    positions: BTreeMap<(String, u64), String>,
    /// The highest positions overall, and those that each client received.
    pub(super) reached: Positions,
    pub(super) own: BTreeMap<u64, Positions>,
    /// How many commands of each kind were answered.
    pub(super) commands: BTreeMap<&'static str, u64>,
    /// Commands that were repeated after no answer or an unclear one.
    pub(super) retried: u64,
    /// Commands that took effect although their answer was lost.
    pub(super) unknown_commits: u64,
    /// Answers of `purchases`, to be compared once the model is complete.
    pub(super) seen: Vec<Seen>,
    /// The last users who ordered.
    pub(super) shopping: VecDeque<String>,
}

impl Book {
    /// Records the position of an effect, which must be unique; returns its number.
    pub(super) fn note(&mut self, client: u64, position: &str, what: &str) -> anyhow::Result<u64> {
        let positions: Positions = position.parse()?;
        let mut noted = 0;
        for (source, number) in positions.0 {
            noted = number;
            for seen in [&mut self.reached, self.own.entry(client).or_default()] {
                let highest = seen.0.entry(source.clone()).or_default();
                *highest = number.max(*highest);
            }
            let before = self.positions.insert((source, number), what.to_owned());
            if let Some(before) = before {
                bail!("{position} was given for {before}, and for {what}");
            }
        }
        Ok(noted)
    }

    /// Records that a user has just ordered.
    pub(super) fn note_shopping(&mut self, user: &str) {
        self.shopping.push_front(user.to_owned());
        self.shopping.truncate(WATCHED);
    }

    /// The sum of all positions.
    pub(super) fn total(&self) -> u64 {
        self.reached.0.values().sum()
    }
}

/// A definite answer.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) reply: Reply,
    /// The start of the answered attempt, if it was not the first.
    pub(super) retried_at_ms: Option<i64>,
}

#[derive(Debug)]
pub(super) struct Shop {
    services: BTreeMap<Service, Client>,
    book: Mutex<Book>,
    clock: Clock,
    /// The number of answered commands, and of planned ones.
    answered: watch::Sender<u64>,
    planned: AtomicU64,
}

impl Shop {
    pub(super) fn of(world: &World) -> Self {
        let client = |service| (service, world.client(service));
        Self {
            services: Service::ALL.into_iter().map(client).collect(),
            book: Mutex::default(),
            clock: Clock::system(),
            answered: watch::Sender::new(0),
            planned: AtomicU64::new(0),
        }
    }

    pub(super) fn service(&self, service: Service) -> &Client {
        &self.services[&service]
    }

    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn answered(&self) -> watch::Receiver<u64> {
        self.answered.subscribe()
    }

    pub(super) fn plan(&self, commands: usize) {
        self.planned.fetch_add(commands as u64, Ordering::Relaxed);
    }

    /// How many commands will be answered when all clients are done.
    pub(super) fn planned(&self) -> u64 {
        self.planned.load(Ordering::Relaxed)
    }

    pub(super) fn count_answer(&self, kind: &'static str) {
        *self.book().commands.entry(kind).or_default() += 1;
        self.answered.send_modify(|answered| *answered += 1);
    }

    /// Sends a request until its answer is definite; no answer and a 503 are not.
    pub(super) async fn settle(
        &self,
        what: &str,
        request: impl Fn() -> RequestBuilder,
    ) -> anyhow::Result<Settled> {
        let deadline = Instant::now() + SETTLED_WITHIN;
        let mut retried_at_ms = None;
        loop {
            let seen = match client::try_send(request().timeout(ANSWER_WITHIN)).await {
                Ok(reply) if reply.status != StatusCode::SERVICE_UNAVAILABLE => {
                    return Ok(Settled {
                        reply,
                        retried_at_ms,
                    });
                }
                Ok(reply) => reply.text,
                Err(error) => format!("{error:?}"),
            };
            ensure!(
                Instant::now() < deadline,
                "{what}: no definite answer within {SETTLED_WITHIN:?}; the last one: {seen}"
            );
            tokio::time::sleep(PAUSE).await;
            if retried_at_ms.is_none() {
                self.book().retried += 1;
            }
            retried_at_ms = Some(self.clock.now_ms());
        }
    }
}
