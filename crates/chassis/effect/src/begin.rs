//! With which event of an epoch an effect begins.
//!
//! Events that were recorded before the effect was first started are not performed. A source whose
//! database was restored from a backup begins a new epoch with events that it had in the former
//! one; those that were seen there are not performed again. Both boundaries are times, found in the
//! source's outbox: in a stream that was recreated, all times are new.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use headwater_event::EventId;
use headwater_nats::Bus;
use headwater_nats::control::{self, Endpoint, EventsAnswer, EventsRequest};
use headwater_store::number::{signed, unsigned};
use headwater_store::{Database, Tx, WriteError};
use headwater_telemetry::causes;
use sea_orm::{ConnectionTrait, DbErr};
use tokio::sync::Notify;

use crate::config::Start;
use crate::ledger::statement;

/// How long a source may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Epochs in which an effect does not know yet where to begin.
#[derive(Debug, Default)]
pub(crate) struct Unknown {
    epochs: Mutex<BTreeSet<(String, String)>>,
    added: Notify,
}

impl Unknown {
    fn add(&self, id: &EventId) {
        let mut epochs = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        epochs.insert((id.source.to_string(), id.epoch.to_string()));
        self.added.notify_one();
    }

    /// Waits for epochs. The projection adds them again until they are known.
    async fn take(&self) -> BTreeSet<(String, String)> {
        self.added.notified().await;
        let mut epochs = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *epochs)
    }
}

/// Whether the effect `name` performs the event `id`. Records that it was seen.
///
/// # Errors
/// It is not known yet with which event of its epoch the effect begins.
pub(crate) fn is_due(tx: &Tx, name: &str, id: &EventId, unknown: &Unknown) -> Result<bool, DbErr> {
    let row = tx.query_one_raw(statement(
        tx,
        "UPDATE headwater_effect_epoch SET seen_at = max(seen_at, ?)
         WHERE effect = ? AND source = ? AND epoch = ? RETURNING first",
        [
            tx.now_ms().into(),
            name.into(),
            (*id.source).into(),
            (*id.epoch).into(),
        ],
    ))?;
    let Some(row) = row else {
        unknown.add(id);
        let why = format!("{} does not say yet where to begin", id.source);
        return Err(DbErr::Custom(why));
    };
    Ok(id.position >= unsigned(row.try_get_by(0)?))
}

/// Events before this time, and up to this position, are passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Past {
    /// In milliseconds since 1970.
    before: i64,
    upto: u64,
}

/// Finds out where the effect `name` begins in each unknown epoch. Never ends.
pub(crate) async fn find_all(
    unknown: &Unknown,
    (db, bus): (&Database, &Bus),
    name: &'static str,
    (start, started_at): (Start, i64),
) {
    loop {
        for (source, epoch) in unknown.take().await {
            let read = (source.clone(), epoch.clone());
            let former = db.read(move |snapshot| former(snapshot, name, &read.0, &read.1));
            let found = async {
                let mut past = former.await?;
                if past.is_empty() && start == Start::Now {
                    let (before, upto) = (started_at, u64::MAX);
                    past.push(Past { before, upto });
                }
                let first = find(bus, &source, &epoch, &past).await?;
                let known = (source.clone(), epoch.clone());
                let add = move |tx: &Tx| add(tx, name, (&known.0, &known.1), first);
                db.write(add).await.map_err(WriteError::flat)?;
                anyhow::Ok(first)
            };
            match found.await {
                Ok(first) => tracing::info!(
                    effect = name,
                    source,
                    epoch,
                    position = first,
                    "the effect begins with the event at this position"
                ),
                // The projection waits, and says so.
                Err(error) => {
                    let error = causes(&error);
                    tracing::debug!(effect = name, source, error, "where to begin is not known");
                }
            }
        }
    }
}

/// What the effect `name` has seen of other epochs of `source` than `epoch`.
fn former(
    db: &impl ConnectionTrait,
    name: &str,
    source: &str,
    epoch: &str,
) -> Result<Vec<Past>, DbErr> {
    let rows = db.query_all_raw(statement(
        db,
        "SELECT seen_at, position FROM headwater_effect_epoch AS seen
         JOIN headwater_position AS at
             ON at.projection = seen.effect AND at.source = seen.source AND at.epoch = seen.epoch
         WHERE seen.effect = ? AND seen.source = ? AND seen.epoch <> ?",
        [name.into(), source.into(), epoch.into()],
    ))?;
    let past = rows.iter().map(|row| {
        Ok(Past {
            before: row.try_get_by::<i64, _>(0)?.saturating_add(1),
            upto: unsigned(row.try_get_by(1)?),
        })
    });
    past.collect()
}

/// Records with which event of an epoch the effect `name` begins.
fn add(tx: &Tx, name: &str, (source, epoch): (&str, &str), first: u64) -> Result<(), DbErr> {
    tx.run_raw(statement(
        tx,
        "INSERT INTO headwater_effect_epoch (effect, source, epoch, first, seen_at)
         VALUES (?, ?, ?, ?, 0) ON CONFLICT DO NOTHING",
        [
            name.into(),
            source.into(),
            epoch.into(),
            signed(first).into(),
        ],
    ))
}

/// The position of the first event of `source` that is not in `past`.
async fn find(bus: &Bus, source: &str, epoch: &str, past: &[Past]) -> anyhow::Result<u64> {
    let mut first = 1;
    for past in past {
        let (head, _) = ask(bus, source, epoch, 1).await?;
        // The events before `from` are earlier, those from `end` on are not: they are recorded in
        // the order of their positions.
        let (mut from, mut end) = (first, head.min(past.upto).saturating_add(1));
        while from < end {
            let middle = from + (end - from) / 2;
            let (_, recorded_at) = ask(bus, source, epoch, middle).await?;
            let recorded_at =
                recorded_at.with_context(|| format!("{source} has no event {middle}"))?;
            if recorded_at < past.before {
                from = middle + 1;
            } else {
                end = middle;
            }
        }
        first = from;
    }
    Ok(first)
}

/// Asks `source` for its head, and when it recorded the event at `position`.
async fn ask(
    bus: &Bus,
    source: &str,
    epoch: &str,
    position: u64,
) -> anyhow::Result<(u64, Option<i64>)> {
    let request = EventsRequest {
        epoch: Some(epoch.to_owned()),
        from: position,
        limit: 1,
        // Part of the payload is enough.
        max_bytes: Some(0),
        offset: Some(0),
    };
    let answer = control::ask::<EventsAnswer>(bus, source, Endpoint::Events, &request);
    let answer = tokio::time::timeout(ANSWER_WITHIN, answer).await;
    let answer = answer.context("no answer in time")??;
    ensure!(answer.epoch == epoch, "{source} has another epoch now");
    Ok((
        answer.head,
        answer.events.first().map(|row| row.recorded_at),
    ))
}
