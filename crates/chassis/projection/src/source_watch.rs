//! Asks a source about its epoch and outbox, and finds what contradicts its stream.
//!
//! Only the source knows its epoch and how far its outbox is. Its endpoint `events` is asked every
//! few seconds, whenever the stream is opened, and before applying an event of an epoch that the
//! source has not confirmed. The answers show a projection's faults: it has applied what the source
//! does not have.
//!
//! Positions that come again later in the stream are compared with the outbox here too, while
//! reading continues: the same content is a redelivery, different content is forged.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use headwater_event::Envelope;
use headwater_nats::Bus;
use headwater_nats::control::{self, Endpoint, EventsAnswer, EventsRequest};
use headwater_store::Tx;
use headwater_telemetry::causes;
use sea_orm::DbErr;

use crate::Anomalies;
use crate::anomaly::{Kind, Tally};
use crate::checkpoint::Checkpoint;
use crate::projection::Projection;
use crate::shared::Shared;
use crate::source::Source;
use crate::source_answer::{Answer, Backlog, EpochAnswer};

/// How often a source is asked.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// How long the source may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// The most events compared with one answer.
const COMPARED_MAX: usize = 100;

/// The pause between two comparisons.
const COMPARE_PAUSE: Duration = Duration::from_millis(250);

/// Asks `source` for its epoch and its head. With a position `from`, also asks when that event was
/// recorded.
///
/// # Errors
/// The source does not answer.
async fn ask(bus: &Bus, source: &str, from: Option<u64>) -> anyhow::Result<Answer> {
    let request = EventsRequest {
        from: from.unwrap_or(1),
        limit: usize::from(from.is_some()),
        // Part of the payload is enough.
        max_bytes: Some(0),
        offset: Some(0),
        ..EventsRequest::default()
    };
    let answer = control::ask::<EventsAnswer>(bus, source, Endpoint::Events, &request);
    let answer = tokio::time::timeout(ANSWER_WITHIN, answer).await;
    let answer = answer.context("no answer in time")??;
    Ok(Answer {
        epoch: answer.epoch.into(),
        head: answer.head,
        recorded_at: answer.events.first().map(|row| row.recorded_at),
    })
}

/// Asks `source` for its epoch.
pub(crate) async fn epoch(bus: &Bus, source: &str) -> EpochAnswer {
    match ask(bus, source, None).await {
        Ok(answer) => EpochAnswer::Epoch(answer.epoch),
        Err(error) => {
            tracing::debug!(
                source,
                error = causes(error.as_ref()),
                "the source did not answer for its epoch"
            );
            EpochAnswer::Away
        }
    }
}

/// The outbox rows of `source` at the positions of `run`.
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
    let fetched = control::fetch_events(request, async |request| {
        control::ask(bus, source, Endpoint::Events, &request).await
    });
    Ok(fetched.await?)
}

/// Regularly asks `source` and compares the answer with what was applied. Never ends.
pub(crate) async fn watch<P: Projection>(shared: Arc<Shared<P>>, source: &'static str) {
    let watch = Watch { shared, source };
    let mut answered_since = None;
    loop {
        if let Err(error) = watch.check(&mut answered_since).await {
            tracing::debug!(
                projection = P::NAME,
                source,
                error = causes(error.as_ref()),
                "the source did not answer"
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

    /// Asks once. If the source does not answer, its state stays. `answered_since`: the epoch in
    /// its answers, and since when.
    async fn check(&self, answered_since: &mut Option<(Arc<str>, Instant)>) -> anyhow::Result<()> {
        let (db, source) = (&self.shared.db, self.source);
        // Load before asking: the outbox may grow meanwhile, and never shrinks.
        let load = move |snapshot: &_| Checkpoint::load(snapshot, P::NAME, source);
        let before = db.read(load).await.context("load the checkpoint")?;
        let at = before.position();
        let answer = ask(&self.shared.bus, source, Some(at + 1)).await?;
        self.of().note_backlog(Backlog {
            head: answer.head,
            ahead: at.saturating_sub(answer.head),
            oldest_at: answer.recorded_at,
        });
        if !before.has_confirmed() {
            let epoch = Arc::clone(&answer.epoch);
            let confirm = move |tx: &Tx| {
                let mut checkpoint = Checkpoint::load(tx, P::NAME, source)?;
                if !checkpoint.has_confirmed() {
                    checkpoint.confirm(&epoch);
                    checkpoint.save(tx)?;
                }
                Ok::<_, DbErr>(())
            };
            let confirmed = db.write(confirm).await;
            confirmed.context("confirm the epoch")?;
        }
        let (_, since) = answered_since
            .take_if(|(epoch, _)| *epoch == answer.epoch)
            .unwrap_or_else(|| (Arc::clone(&answer.epoch), Instant::now()));
        let is_settled = since.elapsed() >= ASK_EVERY;
        let remedy = self.shared.config.remedy;
        let fault = before.contradiction(&answer, is_settled, remedy);
        self.of().note_fault(P::NAME, fault);
        *answered_since = Some((answer.epoch, since));
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
        match outbox(&self.shared.bus, source, &run).await {
            Ok(outbox) => self.note_altered(&run, &outbox).await,
            // Of a former epoch, or the source is down: `headwater verify` compares everything.
            Err(error) => tracing::debug!(
                projection = P::NAME,
                source,
                events = run.len(),
                error = causes(error.as_ref()),
                "events that came again were not compared"
            ),
        }
        if is_more {
            self.of().came_again.notify_one();
        }
        tokio::time::sleep(COMPARE_PAUSE).await;
    }

    /// Records the events of `run` whose content differs from the outbox.
    async fn note_altered(&self, run: &[Envelope], outbox: &EventsAnswer) {
        let mut altered = Tally::default();
        for event in run.iter().filter(|event| is_altered(event, outbox)) {
            altered.add(event);
        }
        let (projection, source) = (P::NAME, self.source);
        if altered.events == 0 {
            let events = run.len();
            tracing::debug!(projection, source, events, "known events came again");
            return;
        }
        metrics::counter!("headwater_projection_altered_total", "projection" => self.shared.config.consumer.clone(), "source" => source)
            .increment(altered.events);
        altered.log(
            projection,
            source,
            "an event at a known position is not what the outbox has: skipped",
        );
        let save = move |tx: &Tx| {
            let stream = Checkpoint::load(tx, projection, source)?.stream_created;
            altered.save(tx, (projection, source), stream, Kind::Altered)?;
            Anomalies::load(tx, projection, source)
        };
        match self.shared.db.write(save).await {
            Ok(saved) => self.of().note_anomalies(saved.value),
            Err(error) => {
                tracing::warn!(projection, source, %error, "could not record an altered event");
            }
        }
    }
}

/// Whether `outbox` has a different event at the position of `event`.
fn is_altered(event: &Envelope, outbox: &EventsAnswer) -> bool {
    let position = event.id.as_ref().map(|id| id.position);
    let mut rows = outbox.events.iter();
    match rows.find(|row| Some(row.position) == position) {
        Some(row) => row.subject != *event.subject || row.payload != *event.payload,
        // The answer may be shorter than the run.
        None => position > Some(outbox.head),
    }
}

/// Takes the first event of `again`, and the events after it with consecutive positions.
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
}
