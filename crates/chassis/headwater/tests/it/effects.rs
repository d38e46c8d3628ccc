//! Effects: work outside of the database that events cause, done at least once under one key.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headwater::backup::RestoreTarget;
use headwater::database::{Database, Snapshot, Tx};
use headwater::effect::{self, Intent, Outcome, Start};
use headwater::{ApplyError, Bus, Clock, Effect, Envelope, Error, Event, Process, Service, causes};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::rebuild::{HOUSE, House, Place};
use crate::shared::Sharing;
use crate::support::{
    MIGRATIONS, Readings, SensorRead, Tasks, append, backup, begin_epoch, dead_letters, eventually,
    eventually_says, eventually_stored, execute, folder, ids, integers, is, keep_reading, open,
    open_restored, publish_by_hand, read, readings, reads,
};

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

#[tokio::test(flavor = "multi_thread")]
async fn each_event_is_performed_with_a_key_that_names_it_and_a_restart_repeats_nothing() {
    let place = Place::start().await;
    let bell = Bell::default();
    let house = begun(&place, &bell, config(&[])).await;
    append(&place.source, reads(1..=20)).await;
    append(&place.source, vec![read("silent", 21)]).await;
    let all: Vec<i64> = (1..=20).collect();
    bell.eventually(&all).await;
    for value in 1..=20 {
        assert_eq!(bell.keys_of(value), [key(&place, value.unsigned_abs())]);
    }
    eventually_left(&house.db, 0).await;
    house.stop().await;

    let house = begun(&place, &bell, config(&[])).await;
    append(&place.source, reads(22..=22)).await;
    bell.eventually(&[all, vec![22]].concat()).await;
    house.stop().await;
    place.relay.stop().await;
}

/// The source is down when the effect is first started, and an event is recorded before it answers.
#[tokio::test(flavor = "multi_thread")]
async fn an_effect_begins_at_its_first_start_and_a_restart_does_not_move_that() {
    let mut place = Place::start().await;
    append(&place.source, reads(1..=30)).await;
    let old: Vec<i64> = (1..=30).collect();
    eventually_stored(&place.bus, "sensors", &old).await;
    place.stop_source().await;
    a_moment_later(&place.source).await;

    let bell = Bell::default();
    let house = service(&place, bell.clone(), config(&[])).await;
    eventually_says(&house.health, "bell from sensors", "where to begin").await;
    append(&place.source, reads(31..=32)).await;
    a_moment_later(&place.source).await;
    house.stop().await;

    let house = service(&place, bell.clone(), config(&[])).await;
    place.start_source();
    bell.eventually(&[31, 32]).await;
    house.stop().await;
    let house = begun(&place, &bell, config(&[])).await;
    append(&place.source, reads(33..=33)).await;
    bell.eventually(&[31, 32, 33]).await;
    house.stop().await;
    place.relay.stop().await;
}

/// A copy of the database of a source.
fn copied(source: &Database) -> TempDir {
    let folder = folder();
    backup(&source.path(), &folder.path().join("copy.db"));
    folder
}

/// A source that is restored from the copy in `folder`, and begins a new epoch.
async fn restored(folder: &TempDir, bus: &Bus) -> (Database, Tasks) {
    let path = folder.path().join("sensors.db");
    let copy = folder.path().join("copy.db");
    let target = RestoreTarget::take(&path).unwrap();
    target.put(&copy, true, &Clock::system()).unwrap();
    drop(target);
    let restored = open_restored(folder, "sensors").await;
    let mut source = Tasks::none();
    source.operator(&restored, bus);
    (restored, source)
}

/// Publishes the events of `source`, which have these values.
async fn publish(bus: &Bus, source: &Database, values: &[i64]) {
    let ids = ids(source, values.len().try_into().unwrap());
    for (id, value) in ids.iter().zip(values) {
        publish_by_hand(bus, id.as_deref(), &read("attic", *value)).await;
    }
}

/// Its events had not reached the stream.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_restored_source_had_and_the_effect_had_not_seen_is_performed() {
    let mut place = Place::start().await;
    let bell = Bell::default();
    let house = begun(&place, &bell, config(&[])).await;
    append(&place.source, reads(1..=3)).await;
    bell.eventually(&[1, 2, 3]).await;
    place.stop_source().await;
    append(&place.source, reads(4..=5)).await;
    let copy = copied(&place.source);
    let (source, tasks) = restored(&copy, &place.bus).await;
    publish(&place.bus, &source, &[1, 2, 3, 4, 5]).await;
    bell.eventually(&[1, 2, 3, 4, 5]).await;
    assert_eq!(
        bell.keys_of(4),
        [format!("sensors:{}:4:bell", source.epoch())]
    );
    house.stop().await;
    tasks.stop().await;
}

/// The effect performs the end of the former epoch after the new one has begun, and has then passed
/// the positions of the new one's events.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_restored_source_records_while_the_former_epoch_is_still_read_is_performed() {
    let mut place = Place::start().await;
    let bell = Bell::default();
    let house = begun(&place, &bell, config(&[])).await;
    append(&place.source, reads(1..=3)).await;
    bell.eventually(&[1, 2, 3]).await;
    house.stop().await;
    let copy = copied(&place.source);
    append(&place.source, reads(4..=5)).await;
    eventually_stored(&place.bus, "sensors", &[1, 2, 3, 4, 5]).await;
    place.stop_source().await;
    let (source, tasks) = restored(&copy, &place.bus).await;
    append(&source, reads(6..=7)).await;
    a_moment_later(&source).await;

    let house = service(&place, bell.clone(), config(&[])).await;
    bell.eventually(&[1, 2, 3, 4, 5]).await;
    publish(&place.bus, &source, &[1, 2, 3, 6, 7]).await;
    bell.eventually(&[1, 2, 3, 4, 5, 6, 7]).await;
    assert_eq!(
        bell.keys_of(6),
        [format!("sensors:{}:4:bell", source.epoch())]
    );
    house.stop().await;
    tasks.stop().await;
}

/// Two copies of one epoch, restored one after the other, and a copy of the second.
#[tokio::test(flavor = "multi_thread")]
async fn of_several_restored_copies_each_event_is_performed_once() {
    let mut place = Place::start().await;
    let bell = Bell::default();
    let house = begun(&place, &bell, config(&[])).await;
    append(&place.source, reads(1..=1)).await;
    bell.eventually(&[1]).await;
    let older = copied(&place.source);
    place.stop_source().await;
    append(&place.source, reads(2..=3)).await;
    let newer = copied(&place.source);

    let (source, tasks) = restored(&older, &place.bus).await;
    append(&source, reads(4..=6)).await;
    publish(&place.bus, &source, &[1, 4, 5, 6]).await;
    bell.eventually(&[1, 4, 5, 6]).await;
    tasks.stop().await;

    // Its events 2 and 3 have positions that the effect has passed, but in another history.
    let (source, tasks) = restored(&newer, &place.bus).await;
    publish(&place.bus, &source, &[1, 2, 3]).await;
    bell.eventually(&[1, 2, 3, 4, 5, 6]).await;
    let last = copied(&source);
    tasks.stop().await;

    let (source, tasks) = restored(&last, &place.bus).await;
    append(&source, reads(7..=7)).await;
    publish(&place.bus, &source, &[1, 2, 3, 7]).await;
    bell.eventually(&[1, 2, 3, 4, 5, 6, 7]).await;
    tasks.stop().await;
    house.stop().await;
}

/// A restored source begins a new epoch with events of the former one, and a new source begins one
/// without.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_restored_source_had_is_not_performed_again_and_what_a_new_one_has_is() {
    let mut place = Place::start().await;
    let bell = Bell::default();
    let house = begun(&place, &bell, config(&[])).await;
    append(&place.source, reads(1..=3)).await;
    bell.eventually(&[1, 2, 3]).await;
    let copy = copied(&place.source);
    append(&place.source, reads(4..=5)).await;
    bell.eventually(&[1, 2, 3, 4, 5]).await;
    place.stop_source().await;

    let (source, tasks) = restored(&copy, &place.bus).await;
    append(&source, reads(6..=6)).await;
    publish(&place.bus, &source, &[1, 2, 3, 6]).await;
    bell.eventually(&[1, 2, 3, 4, 5, 6]).await;
    assert_eq!(
        bell.keys_of(6),
        [format!("sensors:{}:4:bell", source.epoch())]
    );
    tasks.stop().await;

    let folder = folder();
    let new = open(&folder, "sensors").await;
    begin_epoch(&place.bus, &new, [7, 8]).await;
    let mut tasks = Tasks::none();
    tasks.operator(&new, &place.bus);
    bell.eventually(&[1, 2, 3, 4, 5, 6, 7, 8]).await;
    house.stop().await;
    tasks.stop().await;
}

/// The effect had not passed all that was recorded before its first start.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_recorded_before_the_first_start_is_not_performed_after_a_restore() {
    let mut place = Place::start().await;
    append(&place.source, reads(1..=2)).await;
    eventually_stored(&place.bus, "sensors", &[1, 2]).await;
    place.stop_source().await;
    append(&place.source, reads(3..=3)).await;
    a_moment_later(&place.source).await;
    let mut tasks = Tasks::none();
    tasks.operator(&place.source, &place.bus);
    let bell = Bell::default();
    let house = begun(&place, &bell, config(&[])).await;
    eventually_says(&house.health, "bell from sensors", "applied up to 2").await;
    append(&place.source, reads(4..=4)).await;
    let copy = copied(&place.source);
    tasks.stop().await;

    let (source, tasks) = restored(&copy, &place.bus).await;
    publish(&place.bus, &source, &[1, 2, 3, 4]).await;
    bell.eventually(&[4]).await;
    house.stop().await;
    tasks.stop().await;
}

/// An event was forged under the next position. A rebuild, the remedy for projections, is refused.
#[tokio::test(flavor = "multi_thread")]
async fn an_effect_that_is_ahead_of_its_source_goes_on_in_a_new_epoch() {
    let mut place = Place::start().await;
    let bell = Bell::default();
    let house = begun(&place, &bell, config(&[])).await;
    append(&place.source, reads(1..=1)).await;
    bell.eventually(&[1]).await;
    let forged = ids(&place.source, 2).pop().flatten();
    publish_by_hand(&place.bus, forged.as_deref(), &read("attic", 9)).await;
    bell.eventually(&[1, 9]).await;
    let remedy = "run `headwater restore sensors` with a copy";
    eventually_says(&house.health, "bell from sensors", remedy).await;
    place.stop_source().await;

    let copy = copied(&place.source);
    let (source, tasks) = restored(&copy, &place.bus).await;
    append(&source, reads(2..=2)).await;
    publish(&place.bus, &source, &[1, 2]).await;
    bell.eventually(&[1, 2, 9]).await;
    eventually_says(&house.health, "bell from sensors", "applied up to 2").await;
    house.stop().await;
    tasks.stop().await;
}

/// A former version of [`Bell`], which reads another source.
#[derive(Debug)]
struct Elsewhere;

impl Effect for Elsewhere {
    const NAME: &'static str = Bell::NAME;
    const SOURCES: &'static [&'static str] = &["elsewhere"];
    const EVENTS: &'static [&'static str] = Bell::EVENTS;

    async fn perform(&self, _: &Envelope, _: &str) -> Outcome {
        Outcome::Done
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_source_that_is_added_later_the_past_is_not_performed() {
    let place = Place::start().await;
    let house = service(&place, Elsewhere, config(&[])).await;
    append(&place.source, reads(1..=2)).await;
    a_moment_later(&place.source).await;
    house.stop().await;

    let bell = Bell::default();
    let house = begun(&place, &bell, config(&[])).await;
    eventually_says(&house.health, "bell from sensors", "applied up to 2").await;
    append(&place.source, reads(3..=3)).await;
    bell.eventually(&[3]).await;
    house.stop().await;
    place.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_effect_may_begin_with_the_first_event() {
    let place = Place::start().await;
    append(&place.source, reads(1..=3)).await;
    a_moment_later(&place.source).await;
    let bell = Bell::default();
    let config = effect::Config {
        start: Start::Beginning,
        ..config(&[])
    };
    let house = service(&place, bell.clone(), config).await;
    bell.eventually(&[1, 2, 3]).await;
    house.stop().await;
    place.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_repeated_by_the_schedule_under_the_same_key_and_is_then_a_dead_letter() {
    let place = Place::start().await;
    let bell = Bell::default();
    bell.on(1, failed(2));
    bell.on(2, failed(5).chain([Does::Panics]));
    bell.on(3, [Does::Answers(Outcome::GiveUp("not wanted".to_owned()))]);
    let house = begun(&place, &bell, config(&[SHORT, SHORT])).await;
    append(&place.source, reads(1..=3)).await;
    let twice = [1, 1, 1, 2, 2, 2, 3];
    bell.eventually(&twice).await;
    eventually_left(&house.db, 0).await;
    assert_eq!(bell.keys_of(1), vec![key(&place, 1); 3]);
    let mut letters = dead_letters(&house.db).await;
    letters.sort();
    let intent = |position| format!("intent {}", key(&place, position));
    let last = format!("{}: nobody hears it (attempt 3, the last)", intent(2));
    let unwanted = format!("{}: not wanted", intent(3));
    assert_eq!(letters, [last, unwanted]);

    // Again three attempts, the last of which panics; then one that succeeds.
    let all = json!({"all": {}});
    let answer = ask(&place, "dead-letters.retry", all.clone()).await;
    assert_eq!(
        (&answer["applied"], &answer["left"]),
        (&json!(2), &json!(0))
    );
    bell.eventually(&[1, 1, 1, 2, 2, 2, 2, 2, 2, 3, 3]).await;
    eventually_left(&house.db, 0).await;
    let panicked = format!(
        "{}: performing it panicked (attempt 3, the last)",
        intent(2)
    );
    assert_eq!(dead_letters(&house.db).await, [panicked]);
    assert_eq!(bell.keys_of(2), vec![key(&place, 2); 6]);
    let listed = ask(&place, "dead-letters.list", json!({})).await;
    let discard = json!({"id": listed["letters"][0]["id"], "reason": "done by hand"});
    ask(&place, "dead-letters.discard", discard).await;
    append(&place.source, reads(4..=4)).await;
    bell.eventually(&[1, 1, 1, 2, 2, 2, 2, 2, 2, 3, 3, 4]).await;
    assert!(dead_letters(&house.db).await.is_empty());
    house.stop().await;
    place.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_intents_of_a_key_wait_for_the_one_before_until_it_is_done_or_dead() {
    let place = Place::start().await;
    let bell = Bell::default();
    let house = begun(&place, &bell, config(&[LONG])).await;
    bell.on(1, failed(1));
    bell.on(4, failed(2));
    let cellar = |value| read("cellar", value);
    append(&place.source, vec![cellar(1), cellar(2), read("attic", 3)]).await;
    bell.eventually(&[1, 3]).await;
    eventually_left(&house.db, 2).await;
    run(&house.db, "UPDATE headwater_intent SET due_at = 0").await;
    bell.eventually(&[1, 1, 2, 3]).await;
    assert_eq!(bell.keys_of(2), [key(&place, 2)]);

    append(&place.source, vec![cellar(4), cellar(5), cellar(6)]).await;
    bell.eventually(&[1, 1, 2, 3, 4]).await;
    run(&house.db, "UPDATE headwater_intent SET due_at = 0").await;
    bell.eventually(&[1, 1, 2, 3, 4, 4, 5, 6]).await;
    let order: Vec<i64> = bell.values().into_iter().filter(|it| *it != 3).collect();
    assert_eq!(order, [1, 1, 2, 4, 4, 5, 6]);
    eventually_left(&house.db, 0).await;
    assert_eq!(dead_letters(&house.db).await.len(), 1, "the fourth");
    house.stop().await;
    place.relay.stop().await;
}

/// Two of three attempts never end: the third does the rest meanwhile, and no more than three are
/// under way.
#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_hangs_is_tried_again_and_holds_up_no_other() {
    let place = Place::start().await;
    let bell = Bell::default();
    bell.on(1, [Does::Hangs]);
    bell.on(2, [Does::Hangs]);
    let limited = effect::Config {
        at_once: 3,
        timeout: LONG,
        ..config(&[LONG])
    };
    let house = begun(&place, &bell, limited.clone()).await;
    append(&place.source, reads(1..=40)).await;
    let all: Vec<i64> = (1..=40).collect();
    bell.eventually(&all).await;
    eventually_left(&house.db, 2).await;
    // The third one hangs, too.
    for value in 41..=44 {
        bell.on(value, [Does::Hangs]);
    }
    append(&place.source, reads(41..=44)).await;
    eventually_left(&house.db, 6).await;
    bell.eventually(&(1..=41).collect::<Vec<i64>>()).await;
    ask(&place, "status", json!({})).await;
    assert_eq!((bell.values().len(), bell.received().most), (41, 3));
    house.abort().await;

    bell.on(1, [Does::Hangs]);
    for value in 42..=44 {
        bell.on(value, []);
    }
    let hasty = effect::Config {
        timeout: SHORT,
        schedule: vec![SHORT],
        ..limited
    };
    let house = begun(&place, &bell, hasty).await;
    // The first one hangs again.
    bell.eventually(&[vec![1, 1, 1, 2], (2..=41).collect(), (41..=44).collect()].concat())
        .await;
    eventually_left(&house.db, 0).await;
    house.stop().await;
    place.relay.stop().await;
}

/// The work is done, and nothing is recorded.
#[tokio::test(flavor = "multi_thread")]
async fn work_that_was_not_recorded_is_done_again_with_the_same_key() {
    let place = Place::start().await;
    let bell = Bell::default();
    bell.on(1, [Does::Hangs]);
    let house = begun(&place, &bell, config(&[])).await;
    append(&place.source, reads(1..=2)).await;
    bell.eventually(&[1, 2]).await;
    eventually_left(&house.db, 1).await;
    house.abort().await;
    let house = begun(&place, &bell, config(&[])).await;
    bell.eventually(&[1, 1, 2]).await;
    assert_eq!(bell.keys_of(1), vec![key(&place, 1); 2]);
    eventually_left(&house.db, 0).await;
    house.stop().await;
    place.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_performs_nothing_again_and_an_effect_is_never_rebuilt() {
    let place = Place::start().await;
    let bell = Bell::default();
    bell.on(3, failed(1));
    let stop = CancellationToken::new();
    let process = Process::on_free_ports(stop.clone()).await.unwrap();
    let service = Service::start(HOUSE, MIGRATIONS, place.config(), process).await;
    let mut service = service.unwrap();
    service.project(Sharing(Readings)).await.unwrap();
    service.effect(bell.clone(), config(&[LONG])).await.unwrap();
    let house = House::serve(service, stop);
    eventually_says(&house.health, "bell from sensors", "applied up to").await;
    append(&place.source, reads(1..=3)).await;
    house.eventually(&[1, 2, 3]).await;
    bell.eventually(&[1, 2, 3]).await;
    run(&house.db, "DELETE FROM reading").await;
    // The only one that can be rebuilt.
    ask(&place, "rebuild", json!({})).await;
    place.eventually_rebuilt("done").await;
    assert_eq!(readings(&house.db).await, [1, 2, 3]);
    for endpoint in ["rebuild", "verify"] {
        let refused = place.refusal(endpoint, json!({"projection": "bell"})).await;
        assert!(
            refused.starts_with("400: bell is an effect: it has no tables"),
            "{refused}"
        );
    }
    eventually_left(&house.db, 1).await;
    append(&place.source, reads(4..=4)).await;
    bell.eventually(&[1, 2, 3, 4]).await;
    house.stop().await;
    place.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_store_has_no_effects() {
    let place = Place::start().await;
    let stop = CancellationToken::new();
    let process = Process::on_free_ports(stop).await.unwrap();
    let service = Service::start_read_store(HOUSE, MIGRATIONS, place.config(), process).await;
    let refused = service
        .unwrap()
        .effect(Bell::default(), config(&[]))
        .await
        .unwrap_err();
    let Error::EffectOfReadStore { service, effect } = refused else {
        panic!("{refused:?}");
    };
    assert_eq!((service, effect), (HOUSE.name, Bell::NAME));
    place.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_effect_that_only_fails_for_long_is_switched_off_until_it_is_resumed() {
    const RESUME: &str = "projections.resume";
    let place = Place::start().await;
    let bell = Bell::default();
    let house = begun(&place, &bell, config(&[LONG; 3])).await;
    bell.on(1, failed(1));
    bell.on(2, failed(1));
    append(&place.source, reads(1..=1)).await;
    bell.eventually(&[1]).await;
    let since = "SELECT count(failing_since) AS n FROM headwater_effect";
    let fails = async |wanted| {
        eventually("the state of the receiver", async || {
            let fails = house
                .db
                .read(move |snapshot: &Snapshot| integers(snapshot, since));
            is(fails.await.unwrap()[0], &wanted)
        })
        .await;
    };
    fails(1).await;
    // A success in between begins the count again.
    append(&place.source, reads(3..=3)).await;
    bell.eventually(&[1, 3]).await;
    fails(0).await;
    append(&place.source, reads(2..=2)).await;
    bell.eventually(&[1, 2, 3]).await;
    fails(1).await;
    assert_eq!(house.health.parts().get("bell"), None);
    let five_days = "UPDATE headwater_effect SET failing_since = failing_since - 432000000";
    run(&house.db, five_days).await;
    bell.on(4, failed(1));
    append(&place.source, reads(4..=4)).await;
    eventually_says(&house.health, "bell", "all attempts have failed since").await;
    append(&place.source, reads(5..=5)).await;
    run(&house.db, "UPDATE headwater_intent SET due_at = 0").await;
    house.stop().await;
    let house = service(&place, bell.clone(), config(&[LONG; 3])).await;
    eventually_says(&house.health, "bell", "switched itself off").await;
    eventually_says(&house.health, "bell work", "3 intents wait").await;
    ask(&place, "status", json!({})).await;
    assert_eq!(bell.values(), [1, 3, 2, 4], "nothing while it is paused");

    // Failures after that are counted from then on.
    for value in [1, 2, 4, 5] {
        bell.on(value, failed(1));
    }
    ask(&place, RESUME, json!({"projection": "bell"})).await;
    bell.eventually(&[1, 1, 2, 2, 3, 4, 4, 5]).await;
    eventually("the failures to be recorded", async || {
        let later = "SELECT count(*) AS n FROM headwater_intent WHERE due_at > 0";
        let later = house
            .db
            .read(move |snapshot: &Snapshot| integers(snapshot, later));
        is(later.await.unwrap()[0], &4)
    })
    .await;
    run(&house.db, "UPDATE headwater_intent SET due_at = 0").await;
    bell.eventually(&[1, 1, 1, 2, 2, 2, 3, 4, 4, 4, 5, 5]).await;
    eventually_left(&house.db, 0).await;
    assert_eq!(house.health.parts().get("bell"), None);
    house.stop().await;
    place.relay.stop().await;
}

/// Work that was given up says nothing about the receiver, and neither does a failure of which no
/// attempt is left.
#[tokio::test(flavor = "multi_thread")]
async fn failures_long_after_one_another_do_not_switch_an_effect_off() {
    let place = Place::start().await;
    let bell = Bell::default();
    let house = begun(&place, &bell, config(&[SHORT])).await;
    let since = "SELECT count(failing_since) AS n FROM headwater_effect";
    let fails = async || {
        let fails = house
            .db
            .read(move |snapshot: &Snapshot| integers(snapshot, since));
        fails.await.unwrap()[0]
    };
    bell.on(1, failed(2));
    append(&place.source, reads(1..=1)).await;
    eventually("a dead letter", async || {
        is(dead_letters(&house.db).await.len(), &1)
    })
    .await;
    assert_eq!(fails().await, 0, "after the last attempt");
    bell.on(2, [Does::Answers(Outcome::GiveUp("no".to_owned()))]);
    append(&place.source, reads(2..=2)).await;
    eventually("two dead letters", async || {
        is(dead_letters(&house.db).await.len(), &2)
    })
    .await;
    assert_eq!(fails().await, 0, "after giving up");

    // Nor does it switch off a receiver that has only failed for long.
    bell.on(3, [Does::Answers(Outcome::retry_after("busy", LONG))]);
    append(&place.source, reads(3..=3)).await;
    eventually("a failure", async || is(fails().await, &1)).await;
    let five_days = "UPDATE headwater_effect SET failing_since = failing_since - 432000000";
    run(&house.db, five_days).await;
    bell.on(4, [Does::Answers(Outcome::GiveUp("no".to_owned()))]);
    append(&place.source, reads(4..=4)).await;
    eventually_left(&house.db, 1).await;
    house.stop().await;
    let house = begun(&place, &bell, config(&[SHORT])).await;
    append(&place.source, reads(5..=5)).await;
    bell.eventually(&[1, 1, 2, 3, 4, 5]).await;
    house.stop().await;
    place.relay.stop().await;
}

/// The pause cannot be stored at first: then nothing is.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_of_a_receiver_that_wants_no_more_is_stored_with_the_pause() {
    let place = Place::start().await;
    let bell = Bell::default();
    bell.on(1, [Does::Answers(Outcome::SwitchOff("gone".to_owned()))]);
    let house = begun(&place, &bell, config(&[LONG])).await;
    run(
        &house.db,
        "CREATE TRIGGER no_pause BEFORE INSERT ON headwater_pause
         BEGIN SELECT raise(ABORT, 'no pause'); END",
    )
    .await;
    append(&place.source, reads(1..=1)).await;
    bell.eventually(&[1]).await;
    append(&place.source, reads(2..=2)).await;
    bell.eventually(&[1, 2]).await;
    eventually_left(&house.db, 1).await;
    assert!(dead_letters(&house.db).await.is_empty());
    run(&house.db, "DROP TRIGGER no_pause").await;
    eventually_says(&house.health, "bell", "switched itself off: gone").await;
    assert_eq!(dead_letters(&house.db).await.len(), 1);
    assert_eq!(bell.values(), [1, 2]);
    house.stop().await;
    place.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_wants_no_more_switches_the_effect_off() {
    let place = Place::start().await;
    let bell = Bell::default();
    bell.on(1, [Does::Answers(Outcome::SwitchOff("gone".to_owned()))]);
    let house = begun(&place, &bell, config(&[LONG])).await;
    append(&place.source, reads(1..=1)).await;
    eventually_says(&house.health, "bell", "switched itself off: gone").await;
    let gone = format!("intent {}: gone", key(&place, 1));
    assert_eq!(dead_letters(&house.db).await, [gone]);
    append(&place.source, reads(2..=2)).await;
    ask(&place, "projections.resume", json!({"projection": "bell"})).await;
    bell.eventually(&[1, 2]).await;
    house.stop().await;
    place.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timer_is_stored_survives_a_restart_and_fires_once() {
    let place = Place::start().await;
    let bell = Bell::default();
    let house = begun(&place, &bell, config(&[])).await;
    append(&place.source, vec![read("timer", 1), read("attic", 2)]).await;
    bell.eventually(&[2]).await;
    eventually_left(&house.db, 1).await;
    assert_eq!(readings(&house.db).await, [1], "in the same transaction");
    house.abort().await;
    let house = begun(&place, &bell, config(&[])).await;
    append(&place.source, reads(3..=3)).await;
    bell.eventually(&[2, 3]).await;
    run(&house.db, "UPDATE headwater_intent SET due_at = 0").await;
    bell.eventually(&[1, 2, 3]).await;
    eventually_left(&house.db, 0).await;
    house.stop().await;
    let house = begun(&place, &bell, config(&[])).await;
    append(&place.source, reads(4..=4)).await;
    bell.eventually(&[1, 2, 3, 4]).await;
    house.stop().await;
    place.relay.stop().await;
}

/// At first the source is down, then only its relay: what it recorded is in no stream yet, and may
/// be what stops the timer.
#[tokio::test(flavor = "multi_thread")]
async fn a_timer_waits_until_all_is_read_that_was_recorded_when_it_was_due() {
    let mut place = Place::start().await;
    let bell = Bell::default();
    let house = begun(&place, &bell, config(&[])).await;
    append(&place.source, vec![read("timer", 1)]).await;
    eventually_left(&house.db, 1).await;
    place.stop_source().await;
    append(&place.source, vec![read("attic", 2), read("attic", 3)]).await;
    run(&house.db, "UPDATE headwater_intent SET due_at = 0").await;
    let says = async |text| eventually_says(&house.health, "bell work", text).await;
    says("timers that are due wait: sensors does not say what it has recorded").await;
    assert!(bell.values().is_empty(), "before its source answers");
    let mut answering = Tasks::none();
    answering.operator(&place.source, &place.bus);
    says("wait: the events of sensors up to 3 are not read yet, only up to 1").await;
    assert!(bell.values().is_empty(), "before its source's events");
    answering.stop().await;
    place.start_source();
    bell.eventually(&[1, 2, 3]).await;
    says("0 intents wait").await;
    house.stop().await;
    place.relay.stop().await;
}

/// A newer program wrote the first intent, and was rolled back. The second one has the same key.
#[tokio::test(flavor = "multi_thread")]
async fn an_intent_in_a_newer_version_and_those_of_its_key_wait_for_an_upgrade() {
    let place = Place::start().await;
    let bell = Bell::default();
    bell.on(1, failed(1));
    let house = begun(&place, &bell, config(&[LONG])).await;
    append(&place.source, vec![read("cellar", 1), read("cellar", 2)]).await;
    bell.eventually(&[1]).await;
    eventually_left(&house.db, 2).await;
    eventually("the failure to be recorded", async || {
        let failed = "SELECT max(attempts) AS n FROM headwater_intent";
        let failed = house
            .db
            .read(move |snapshot: &Snapshot| integers(snapshot, failed));
        is(failed.await.unwrap()[0], &1)
    })
    .await;
    run(
        &house.db,
        "UPDATE headwater_intent SET subject = replace(subject, '.v1.', '.v9.')
         WHERE attempts = 1",
    )
    .await;
    house.stop().await;

    let house = begun(&place, &bell, config(&[])).await;
    let newer = "1 are held: sensors.v9.read is newer than this service knows: upgrade house";
    eventually_says(&house.health, "bell work", newer).await;
    run(&house.db, "UPDATE headwater_intent SET due_at = 0").await;
    append(&place.source, reads(3..=3)).await;
    bell.eventually(&[1, 3]).await;
    eventually_left(&house.db, 2).await;
    assert!(dead_letters(&house.db).await.is_empty());
    let older = "UPDATE headwater_intent SET subject = replace(subject, '.v9.', '.v1.')";
    run(&house.db, older).await;
    house.stop().await;

    let house = begun(&place, &bell, config(&[])).await;
    bell.eventually(&[1, 1, 2, 3]).await;
    eventually_left(&house.db, 0).await;
    house.stop().await;
    place.relay.stop().await;
}

/// A dead letter of the worker comes back at once; it is not decided again.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_decided_is_not_decided_again_and_poison_is() {
    let place = Place::start().await;
    let bell = Bell::default();
    bell.on(1, [Does::Answers(Outcome::GiveUp("no".to_owned()))]);
    let house = begun(&place, &bell, config(&[])).await;
    append(&place.source, vec![read("timer", 1), read("attic", -2)]).await;
    eventually_left(&house.db, 1).await;
    run(&house.db, "UPDATE headwater_intent SET due_at = 0").await;
    eventually("two dead letters", async || {
        is(dead_letters(&house.db).await.len(), &2)
    })
    .await;
    assert_eq!(bell.values(), [1]);
    run(&house.db, "INSERT INTO label (value) VALUES (1)").await;
    ask(&place, "dead-letters.retry", json!({"all": {}})).await;
    bell.eventually(&[-2, 1, 1]).await;
    assert_eq!(readings(&house.db).await, [1]);
    house.stop().await;
    place.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_published_by_hand_has_no_key_and_is_not_performed() {
    let place = Place::start().await;
    let bell = Bell::default();
    let house = begun(&place, &bell, config(&[])).await;
    append(&place.source, reads(1..=1)).await;
    eventually_stored(&place.bus, "sensors", &[1]).await;
    publish_by_hand(&place.bus, None, &read("attic", 2)).await;
    // A message of another stream, copied.
    publish_by_hand(&place.bus, Some("users.X.7"), &read("attic", 4)).await;
    eventually_says(&house.health, "bell from sensors", "applied up to 1").await;
    append(&place.source, reads(3..=3)).await;
    bell.eventually(&[1, 3]).await;
    assert!(dead_letters(&house.db).await.is_empty());
    house.stop().await;
    place.relay.stop().await;
}
