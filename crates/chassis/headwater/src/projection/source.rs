//! What a source says of itself, and what of its stream contradicts it.
//!
//! Only the source knows its epoch and how far its outbox is. It is asked at its endpoint `events`:
//! every few seconds, whenever the stream is opened, and before an event of an epoch is applied
//! that it has not confirmed. From the answers follow the faults of a projection: it has applied
//! what the source does not have.
//!
//! Positions that come again further on in the stream are compared with the outbox here as well,
//! beside the reading: the same content is a redelivery, another one is forged.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use sea_orm::DbErr;
use tokio::sync::Notify;

use super::Projection;
use super::anomaly::{Anomalies, Kind, Tally};
use super::checkpoint::Checkpoint;
use super::reader::{WAITING, flat};
use super::runner::Shared;
use crate::bus::{Bus, LOGIN_REFUSED, NOT_CONNECTED};
use crate::causes;
use crate::database::Tx;
use crate::envelope::Envelope;
use crate::health::{Health, State};
use crate::operator::{self, Endpoint, EventsAnswer, EventsRequest};

/// How often a source is asked what it is.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// How long it has for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Events that wait for a comparison with the outbox; what comes beyond them is not compared.
const AGAIN_MAX: usize = 1000;

/// Events that are compared with one answer.
const COMPARED_MAX: usize = 100;

/// The pause between two comparisons.
const COMPARE_PAUSE: Duration = Duration::from_millis(250);

/// What a source answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// Its epoch.
    pub(super) epoch: Arc<str>,
    /// The newest position of its outbox.
    pub(super) head: u64,
}

/// What a source said of its epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// It was not asked.
    Nothing,
    /// It did not answer.
    Away,
    /// This is its epoch.
    Epoch(Arc<str>),
}

/// The sources of a projection. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Sources(Arc<BTreeMap<&'static str, Source>>);

impl Sources {
    pub(super) fn new<P: Projection>(health: &Health) -> Self {
        let source = |name: &&'static str| (*name, Source::new::<P>(name, health.clone()));
        Self(Arc::new(P::SOURCES.iter().map(source).collect()))
    }

    pub(super) fn get(&self, name: &str) -> &Source {
        &self.0[name]
    }

    /// What the reading waits for, by the source that it cannot go on in.
    pub(super) fn waiting(&self) -> BTreeMap<String, String> {
        let sources = self.0.iter();
        let waiting = sources.filter_map(|(name, source)| match &source.state().reading {
            State::Degraded(why) if why == NOT_CONNECTED || why.starts_with(LOGIN_REFUSED) => {
                Some(((*name).to_owned(), why.clone()))
            }
            State::Degraded(why) | State::Failed(why) => {
                let why = why.strip_prefix(WAITING)?;
                Some(((*name).to_owned(), why.to_owned()))
            }
            State::Ok(_) => None,
        });
        waiting.collect()
    }

    /// How what was applied of the source `name` contradicts it, as a sentence.
    pub(crate) fn fault(&self, name: &str) -> Option<String> {
        self.0
            .get(name)
            .and_then(|source| source.state().fault.clone())
    }
}

/// One source of a projection.
#[derive(Debug)]
pub(super) struct Source {
    name: &'static str,
    part: String,
    health: Health,
    state: Mutex<Inner>,
    /// Wakes whoever asks the source: the stream was opened.
    opened: Notify,
    /// The same for comparisons: events came again.
    came_again: Notify,
}

#[derive(Debug)]
struct Inner {
    /// How the reading goes.
    reading: State,
    fault: Option<String>,
    anomalies: Anomalies,
    again: VecDeque<Envelope>,
}

impl Source {
    fn new<P: Projection>(name: &'static str, health: Health) -> Self {
        let source = Self {
            name,
            part: format!("{} from {name}", P::NAME),
            health,
            state: Mutex::new(Inner {
                reading: State::Degraded("starting".to_owned()),
                fault: None,
                anomalies: Anomalies::default(),
                again: VecDeque::new(),
            }),
            opened: Notify::new(),
            came_again: Notify::new(),
        };
        source.publish(&source.state());
        source
    }

    fn state(&self) -> MutexGuard<'_, Inner> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports how the reading goes.
    pub(super) fn report(&self, reading: State) {
        let mut state = self.state();
        state.reading = reading;
        self.publish(&state);
    }

    /// Notes what is out of the ordinary in the stream.
    pub(super) fn note_anomalies(&self, anomalies: Anomalies) {
        let mut state = self.state();
        state.anomalies = anomalies;
        self.publish(&state);
    }

    /// Notes that the stream was opened: a time to ask the source.
    pub(super) fn note_opened(&self) {
        self.opened.notify_one();
    }

    /// Notes that known positions came again, to be compared with the outbox.
    pub(super) fn note_again(&self, events: Vec<Envelope>) {
        if events.is_empty() {
            return;
        }
        let mut state = self.state();
        let room = AGAIN_MAX.saturating_sub(state.again.len());
        state.again.extend(events.into_iter().take(room));
        self.came_again.notify_one();
    }

    fn note_fault(&self, projection: &str, fault: Option<String>) {
        let mut state = self.state();
        if state.fault == fault {
            return;
        }
        match &fault {
            Some(fault) => {
                tracing::error!(
                    projection,
                    source = self.name,
                    fault,
                    "projection and source contradict each other"
                );
            }
            None => {
                tracing::info!(
                    projection,
                    source = self.name,
                    "projection and source agree again"
                );
            }
        }
        state.fault = fault;
        self.publish(&state);
    }

    /// How the reading goes, and what is wrong besides.
    fn publish(&self, state: &Inner) {
        let Inner {
            reading,
            fault,
            anomalies,
            ..
        } = state;
        let (State::Ok(detail) | State::Degraded(detail) | State::Failed(detail)) = reading;
        let faults = fault.iter().chain(anomalies.faults());
        let all: Vec<&str> = faults.map(String::as_str).chain([&**detail]).collect();
        let is_failed = fault.is_some() || matches!(reading, State::Failed(_));
        let state = match (is_failed, all.len(), reading) {
            (true, ..) => State::Failed(all.join("; ")),
            (false, 1, reading) => reading.clone(),
            (false, ..) => State::Degraded(all.join("; ")),
        };
        self.health.set(&self.part, state);
    }
}

/// Asks `source` for its epoch and its head.
///
/// # Errors
/// It does not answer.
async fn ask(bus: &Bus, source: &str) -> anyhow::Result<Answer> {
    let request = EventsRequest {
        from: 1,
        ..EventsRequest::default()
    };
    let answer = operator::ask::<EventsAnswer>(bus, source, Endpoint::Events, &request);
    let answer = tokio::time::timeout(ANSWER_WITHIN, answer).await;
    let answer = answer.context("no answer in time")??;
    Ok(Answer {
        epoch: answer.epoch.into(),
        head: answer.head,
    })
}

/// What `source` says of its epoch.
pub(super) async fn epoch(bus: &Bus, source: &str) -> Said {
    match ask(bus, source).await {
        Ok(answer) => Said::Epoch(answer.epoch),
        Err(error) => {
            tracing::debug!(source, error = causes(&error), "ask for the epoch");
            Said::Away
        }
    }
}

/// What the outbox of `source` has where `run` claims to be.
async fn outbox(bus: &Bus, source: &str, run: &[Envelope]) -> anyhow::Result<EventsAnswer> {
    let first = run.first().and_then(|event| event.id.as_ref());
    let first = first.context("there are none")?;
    let request = EventsRequest {
        epoch: Some(first.epoch.to_string()),
        from: first.position,
        limit: run.len(),
        max_bytes: Some(bus.reply_max()),
        offset: None,
    };
    operator::fetch_events(request, async |request| {
        operator::ask(bus, source, Endpoint::Events, &request).await
    })
    .await
}

/// Asks `source` now and then what it is, and compares with that what was applied; never ends.
pub(super) async fn watch<P: Projection>(shared: Arc<Shared<P>>, source: &'static str) {
    let watch = Watch { shared, source };
    let mut said_since = None;
    loop {
        if let Err(error) = watch.check(&mut said_since).await {
            tracing::debug!(
                projection = P::NAME,
                source,
                error = causes(&error),
                "ask the source"
            );
        }
        let next = tokio::time::sleep(ASK_EVERY);
        tokio::pin!(next);
        loop {
            tokio::select! {
                () = &mut next => break,
                () = watch.of().opened.notified() => break,
                () = watch.of().came_again.notified() => watch.compare().await,
            }
        }
    }
}

struct Watch<P> {
    shared: Arc<Shared<P>>,
    source: &'static str,
}

impl<P: Projection> Watch<P> {
    fn of(&self) -> &Source {
        self.shared.sources.get(self.source)
    }

    /// Asks once. Where the source does not answer, what was known of it stays. `said_since`: the
    /// epoch that it says, and since when.
    async fn check(&self, said_since: &mut Option<(Arc<str>, Instant)>) -> anyhow::Result<()> {
        let (db, source) = (&self.shared.db, self.source);
        // Before the question: the outbox may grow meanwhile, and never shrinks.
        let load = move |snapshot: &_| Checkpoint::load(snapshot, P::NAME, source);
        let before = db.read(load).await.context("load the checkpoint")?;
        let said = ask(self.shared.bus(), source).await?;
        if !before.has_confirmed() {
            let epoch = Arc::clone(&said.epoch);
            let confirm = move |tx: &Tx| {
                let mut checkpoint = Checkpoint::load(tx, P::NAME, source)?;
                if !checkpoint.has_confirmed() {
                    checkpoint.confirm(&epoch);
                    checkpoint.save(tx)?;
                }
                Ok::<_, DbErr>(())
            };
            let confirmed = db.write(confirm).await;
            confirmed.map_err(flat).context("confirm the epoch")?;
        }
        let (_, since) = said_since
            .take_if(|(epoch, _)| *epoch == said.epoch)
            .unwrap_or_else(|| (Arc::clone(&said.epoch), Instant::now()));
        let is_settled = since.elapsed() >= ASK_EVERY;
        let fault = before.contradiction(&said, is_settled);
        self.of().note_fault(P::NAME, fault);
        *said_since = Some((said.epoch, since));
        Ok(())
    }

    /// Compares a run of the events that came again with the outbox.
    async fn compare(&self) {
        let (run, is_more) = {
            let mut state = self.of().state();
            let run = take_run(&mut state.again);
            (run, !state.again.is_empty())
        };
        let source = self.source;
        match outbox(self.shared.bus(), source, &run).await {
            Ok(outbox) => self.note_altered(&run, &outbox).await,
            // Of a former epoch, or the source is away: `headwater verify` compares all.
            Err(error) => tracing::debug!(
                projection = P::NAME,
                source,
                events = run.len(),
                error = format!("{error:#}"),
                "events that came again were not compared"
            ),
        }
        if is_more {
            self.of().came_again.notify_one();
        }
        tokio::time::sleep(COMPARE_PAUSE).await;
    }

    /// Notes which events of `run` are not what the outbox has.
    async fn note_altered(&self, run: &[Envelope], outbox: &EventsAnswer) {
        let mut altered = Tally::default();
        for event in run {
            let position = event.id.as_ref().map(|id| id.position);
            let row = outbox
                .events
                .iter()
                .find(|row| Some(row.position) == position);
            let is_beyond = position > Some(outbox.head);
            match row {
                Some(row) if row.subject == *event.subject && row.payload == *event.payload => {}
                // The answer may be shorter than the run.
                None if !is_beyond => {}
                _ => altered.add(event),
            }
        }
        let source = self.source;
        if altered.events == 0 {
            let events = run.len();
            tracing::debug!(
                projection = P::NAME,
                source,
                events,
                "known events came again"
            );
            return;
        }
        metrics::counter!("headwater_projection_altered_total", "projection" => self.shared.config.consumer.clone(), "source" => source)
            .increment(altered.events);
        for event in &altered.first {
            tracing::warn!(
                projection = P::NAME,
                source,
                event.subject = event.subject.as_str(),
                event.id = event.id.as_ref().map(tracing::field::display),
                event.sequence = event.sequence,
                "an event at a known position is not what the outbox has: skipped"
            );
        }
        let save = move |tx: &Tx| {
            let stream = Checkpoint::load(tx, P::NAME, source)?.stream_created;
            altered.save(tx, (P::NAME, source), stream, Kind::Altered)?;
            Anomalies::load(tx, P::NAME, source)
        };
        match self.shared.db.write(save).await {
            Ok(saved) => self.of().note_anomalies(saved.value),
            Err(error) => {
                tracing::warn!(projection = P::NAME, source, %error, "note an altered event");
            }
        }
    }
}

/// Takes the first of `again`, and those behind it whose positions follow it.
fn take_run(again: &mut VecDeque<Envelope>) -> Vec<Envelope> {
    let place = |event: &Envelope| {
        event
            .id
            .as_ref()
            .map(|id| (Arc::clone(&id.epoch), id.position))
    };
    let mut run: Vec<Envelope> = Vec::new();
    while run.len() < COMPARED_MAX {
        let expected = run
            .last()
            .and_then(place)
            .map(|(epoch, at)| (epoch, at + 1));
        let follows = |event: &&Envelope| expected.is_none() || place(event) == expected;
        let Some(event) = again.front().filter(follows).cloned() else {
            break;
        };
        again.pop_front();
        run.push(event);
    }
    run
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::projection::ApplyError;

    #[derive(Debug)]
    struct Nothing;

    impl Projection for Nothing {
        const NAME: &'static str = "nothing";
        const VERSION: u32 = 1;
        const SOURCES: &'static [&'static str] = &["sensors"];

        fn apply(&self, _: &Tx, _: &[Envelope]) -> Result<(), ApplyError> {
            Ok(())
        }
    }

    fn event(id: &str) -> Envelope {
        Envelope {
            source: "sensors".into(),
            subject: "sensors.v1.read.0".into(),
            id: Some(id.parse().unwrap()),
            sequence: Some(1),
            payload: bytes::Bytes::new(),
            traceparent: None,
        }
    }

    #[test]
    fn a_run_is_of_positions_that_follow_each_other() {
        let ids = ["sensors.x.4", "sensors.x.5", "sensors.y.6", "sensors.y.9"];
        let mut again: VecDeque<_> = ids.into_iter().map(event).collect();
        let runs = std::iter::from_fn(|| Some(take_run(&mut again)).filter(|run| !run.is_empty()));
        let lengths: Vec<usize> = runs.map(|run| run.len()).collect();
        assert_eq!(lengths, [2, 1, 1]);
    }

    #[test]
    fn a_fault_fails_the_part_and_what_was_met_in_the_stream_degrades_it() {
        let health = Health::new();
        let source = Source::new::<Nothing>("sensors", health.clone());
        let part = || health.parts()["nothing from sensors"].clone();
        source.report(State::Ok("applied up to 2".to_owned()));
        assert_eq!(part(), State::Ok("applied up to 2".to_owned()));
        source.note_fault("nothing", Some("ahead".to_owned()));
        assert_eq!(part(), State::Failed("ahead; applied up to 2".to_owned()));
        source.note_fault("nothing", None);
        assert_eq!(part(), State::Ok("applied up to 2".to_owned()));
    }
}
