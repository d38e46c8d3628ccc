//! Effects: work outside of the database that events cause, done at least once under one key.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headwater::database::{Database, Snapshot, Tx};
use headwater::effect::{self, Intent, Outcome};
use headwater::{ApplyError, Effect, Envelope, Event, Process, Service, causes};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::rebuild::{HOUSE, House, Place};
use crate::support::{
    MIGRATIONS, SensorRead, eventually, eventually_says, execute, integers, is, keep_reading,
};

mod attempts;
mod begin;
mod errors;
mod ledger;
mod restored;
mod switched_off;
mod timers;

/// A pause that no test waits for.
const LONG: Duration = Duration::from_hours(1);

/// A pause that a test waits for.
const SHORT: Duration = Duration::from_millis(20);

/// What the receiver does with an attempt.
#[derive(Debug, Clone)]
enum Does {
    Answers(Outcome),
    Panics,
    /// Never answers.
    Hangs,
}

#[derive(Debug, Default)]
struct Received {
    /// The key and the value of each attempt, in order.
    attempts: Vec<(String, i64)>,
    /// What it does at the next attempts for a value; afterwards it answers that it is done.
    script: BTreeMap<i64, VecDeque<Does>>,
    /// The keys that are being performed, and the most that were at once.
    under_way: Vec<String>,
    most: usize,
}

/// Rings for each reading. A reading of the sensor `timer` rings an hour later; values below zero
/// are poison until a label is there.
#[derive(Debug, Clone, Default)]
struct Bell(Arc<Mutex<Received>>);

impl Bell {
    fn received(&self) -> MutexGuard<'_, Received> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn on(&self, value: i64, does: impl IntoIterator<Item = Does>) {
        self.received()
            .script
            .insert(value, does.into_iter().collect());
    }

    fn values(&self) -> Vec<i64> {
        let received = self.received();
        received.attempts.iter().map(|(_, value)| *value).collect()
    }

    fn keys_of(&self, value: i64) -> Vec<String> {
        let received = self.received();
        let of = received.attempts.iter().filter(|(_, of)| *of == value);
        of.map(|(key, _)| key.clone()).collect()
    }

    /// Waits until these values were attempted, in any order.
    async fn eventually(&self, wanted: &[i64]) {
        eventually("the attempts", async || {
            let mut values = self.values();
            values.sort_unstable();
            is(values, &wanted.to_vec())
        })
        .await;
    }
}

/// Removes a key from those that are under way, also if the attempt is dropped.
struct UnderWay<'a>(&'a Bell, &'a str);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.received().under_way.retain(|key| key != self.1);
    }
}

impl Effect for Bell {
    const NAME: &'static str = "bell";
    const SOURCES: &'static [&'static str] = &["sensors"];
    const EVENTS: &'static [&'static str] = &[SensorRead::SUBJECT];

    fn intend(&self, tx: &Tx, event: &Envelope) -> Result<Intent, ApplyError> {
        let SensorRead { sensor, value, .. } = event.decode()?;
        if value < 0 && integers(tx, "SELECT value AS n FROM label")?.is_empty() {
            return Err(ApplyError::Poison("below zero".to_owned()));
        }
        Ok(match &*sensor {
            "timer" => {
                keep_reading(tx, &sensor, value)?;
                Intent::After(LONG)
            }
            "silent" => Intent::None,
            _ => Intent::Now,
        })
    }

    fn key(&self, event: &Envelope) -> Option<String> {
        let sensor = event.decode::<SensorRead>().ok()?.sensor;
        (sensor != "attic").then_some(sensor)
    }

    async fn perform(&self, event: &Envelope, key: &str) -> Outcome {
        let value = event.decode::<SensorRead>().unwrap().value;
        let does = {
            let mut received = self.received();
            received.attempts.push((key.to_owned(), value));
            assert!(
                !received.under_way.iter().any(|other| other == key),
                "{key} is being performed twice"
            );
            received.under_way.push(key.to_owned());
            received.most = received.most.max(received.under_way.len());
            received
                .script
                .get_mut(&value)
                .and_then(VecDeque::pop_front)
        };
        let _under_way = UnderWay(self, key);
        match does {
            None => Outcome::Done,
            Some(Does::Answers(outcome)) => outcome,
            Some(Does::Panics) => panic!("a bug in an effect"),
            Some(Does::Hangs) => std::future::pending().await,
        }
    }
}

fn failed(times: usize) -> impl Iterator<Item = Does> {
    let failed = Does::Answers(Outcome::retry("nobody hears it"));
    std::iter::repeat_n(failed, times)
}

fn config(schedule: &[Duration]) -> effect::Config {
    effect::Config {
        schedule: schedule.to_vec(),
        ..effect::Config::default()
    }
}

/// A service with an effect.
async fn service(place: &Place, effect: impl Effect, config: effect::Config) -> House {
    let stop = CancellationToken::new();
    // A child of another test has all locks of this process from its fork to its exec.
    let mut service = eventually("the service to start", async || {
        let process = Process::on_free_ports(stop.clone()).await.unwrap();
        let service = Service::start(HOUSE, MIGRATIONS, place.config(), process).await;
        service.map_err(|error| causes(&error))
    })
    .await;
    service.effect(effect, config).await.unwrap();
    House::serve(service, stop)
}

/// [`service`], once it knows where it begins.
async fn begun(place: &Place, bell: &Bell, config: effect::Config) -> House {
    let house = service(place, bell.clone(), config).await;
    eventually_says(&house.health, "bell from sensors", "applied up to").await;
    house
}

/// Waits until the ledger holds this many intents.
async fn eventually_left(db: &Database, wanted: i64) {
    eventually(&format!("{wanted} intents are left"), async || {
        let count = "SELECT count(*) AS n FROM headwater_intent";
        let left = db.read(move |snapshot: &Snapshot| integers(snapshot, count));
        is(left.await.unwrap()[0], &wanted)
    })
    .await;
}

async fn run(db: &Database, sql: &'static str) {
    db.write(move |tx| execute(tx, sql, [])).await.unwrap();
}

/// The answer of an operator's endpoint.
async fn ask(place: &Place, endpoint: &str, request: Value) -> Value {
    eventually("an answer", async || {
        place.ask(endpoint, request.clone()).await
    })
    .await
}

/// The key of the event of `place` at a position.
fn key(place: &Place, position: u64) -> String {
    format!("sensors:{}:{position}:bell", place.source.epoch())
}

/// Waits until the clock shows another time than that of the newest event.
async fn a_moment_later(source: &Database) {
    let newest = "SELECT coalesce(max(recorded_at), 0) AS n FROM headwater_outbox";
    let newest = source.read(move |snapshot: &Snapshot| integers(snapshot, newest));
    let newest = newest.await.unwrap()[0];
    eventually("a moment to pass", async || {
        let now = source.clock().now_ms();
        if now > newest { Ok(()) } else { Err(now) }
    })
    .await;
}
