//! With which event of an epoch an effect begins.
//!
//! Events that were recorded before the effect was first started with their source are not
//! performed. That boundary is a time, found in the source's outbox: in a stream that was recreated,
//! all times are new.
//!
//! A source whose database was restored from a backup begins a new epoch with events that it had in
//! a former one. It says up to which position; those that the effect has passed there are not
//! performed again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, ensure};
use headwater_event::EventId;
use headwater_nats::Bus;
use headwater_nats::control::EventsAnswer;
use headwater_store::number::{signed, unsigned};
use headwater_store::{Database, Snapshot, Tx};
use headwater_telemetry::causes;
use sea_orm::{ConnectionTrait, DbErr};
use tokio::sync::Notify;

use crate::ask::ask;
use crate::ledger::{FIRST_EVENT, statement};

/// The highest position that a column holds.
const ALL: u64 = i64::MAX.unsigned_abs();

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

/// Whether the effect `name` performs the event `id`.
///
/// # Errors
/// It is not known yet with which event of its epoch the effect begins.
pub(crate) fn is_due(tx: &Tx, name: &str, id: &EventId, unknown: &Unknown) -> Result<bool, DbErr> {
    let row = tx.query_one_raw(statement(
        tx,
        "SELECT first FROM headwater_effect_epoch WHERE effect = ? AND source = ? AND epoch = ?",
        [name.into(), (*id.source).into(), (*id.epoch).into()],
    ))?;
    let Some(row) = row else {
        unknown.add(id);
        let why = format!("{} does not say yet where to begin", id.source);
        return Err(DbErr::Custom(why));
    };
    Ok(id.position >= unsigned(row.try_get_by(0)?))
}

/// Finds out where the effect `name` begins in each unknown epoch. Never ends. `started_at`: when it
/// was first started with each source, in milliseconds since 1970.
pub(crate) async fn find_all(
    unknown: &Unknown,
    (db, bus): (&Database, &Bus),
    name: &'static str,
    started_at: &BTreeMap<String, i64>,
) {
    loop {
        for (source, epoch) in unknown.take().await {
            let found = async {
                let inherited = inherited((db, bus), name, &source, &epoch).await?;
                let started_at = started_at.get(&source).context("it is not started")?;
                let first = find(bus, &source, &epoch, *started_at).await?;
                let of = (source.clone(), epoch.clone());
                let add = move |tx: &Tx| add(tx, name, (&of.0, &of.1), &inherited, first);
                let added = db.write(add).await?;
                anyhow::Ok(added.value)
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
                    let error = causes(error.as_ref());
                    tracing::debug!(effect = name, source, error, "where to begin is not known");
                }
            }
        }
    }
}

/// The last position up to which the present epoch of `source` has the events of each former one.
async fn inherited(
    (db, bus): (&Database, &Bus),
    name: &'static str,
    source: &str,
    epoch: &str,
) -> anyhow::Result<BTreeMap<String, u64>> {
    if let Some(inherited) = ask_in(bus, source, epoch, None).await?.inherited {
        return Ok(inherited);
    }
    // A source that is older than this question. It matters only if there is a former epoch.
    let of = source.to_owned();
    let known = db.read(move |snapshot: &Snapshot| {
        let sql = "SELECT 1 FROM headwater_effect_epoch WHERE effect = ? AND source = ?";
        snapshot.query_one_raw(statement(snapshot, sql, [name.into(), of.into()]))
    });
    let is_first = known.await?.is_none();
    ensure!(
        is_first,
        "{source} does not say what it had in a former epoch: update it"
    );
    Ok(BTreeMap::new())
}

/// Records that the effect `name` begins in this epoch with `first`, or with a later event if it has
/// passed that one in another epoch. Returns the position.
fn add(
    tx: &Tx,
    name: &str,
    (source, epoch): (&str, &str),
    inherited: &BTreeMap<String, u64>,
    first: u64,
) -> Result<u64, DbErr> {
    let inherited = inherited.iter().map(|(former, last)| (&**former, *last));
    for (former, last) in inherited.chain([(epoch, u64::MAX)]) {
        tx.run_raw(statement(
            tx,
            "INSERT INTO headwater_effect_inherited (effect, source, epoch, former, last)
             VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            [
                name.into(),
                source.into(),
                epoch.into(),
                former.into(),
                signed(last.min(ALL)).into(),
            ],
        ))?;
    }
    // Two epochs share the events that both have from a third, which may be one of them.
    let passed = tx.query_one_raw(statement(
        tx,
        "SELECT coalesce(max(min(ours.last, theirs.last, at.position)), 0)
         FROM headwater_effect_inherited AS ours
         JOIN headwater_effect_inherited AS theirs USING (effect, source, former)
         JOIN headwater_position AS at ON at.projection = theirs.effect
             AND at.source = theirs.source AND at.epoch = theirs.epoch
         WHERE ours.effect = ? AND ours.source = ? AND ours.epoch = ?
             AND theirs.epoch <> ours.epoch",
        [name.into(), source.into(), epoch.into()],
    ))?;
    let passed = passed.map_or(Ok(0), |row| row.try_get_by(0))?;
    let first = first.max(unsigned(passed) + 1);
    tx.run_raw(statement(
        tx,
        "INSERT INTO headwater_effect_epoch (effect, source, epoch, first)
         VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        [
            name.into(),
            source.into(),
            epoch.into(),
            signed(first).into(),
        ],
    ))?;
    Ok(first)
}

/// The position of the first event of `source` that was not recorded before `started_at`.
async fn find(bus: &Bus, source: &str, epoch: &str, started_at: i64) -> anyhow::Result<u64> {
    if started_at == FIRST_EVENT {
        return Ok(1);
    }
    let head = ask_in(bus, source, epoch, None).await?.head;
    // The events before `from` are earlier, those from `end` on are not: they are recorded in the
    // order of their positions.
    let (mut from, mut end) = (1, head.saturating_add(1));
    while from < end {
        let middle = from + (end - from) / 2;
        let answer = ask_in(bus, source, epoch, Some(middle)).await?;
        let event = answer.events.first();
        let event = event.with_context(|| format!("{source} has no event {middle}"))?;
        if event.recorded_at < started_at {
            from = middle + 1;
        } else {
            end = middle;
        }
    }
    Ok(from)
}

/// Asks `source`, if its epoch is still `epoch`.
async fn ask_in(
    bus: &Bus,
    source: &str,
    epoch: &str,
    position: Option<u64>,
) -> anyhow::Result<EventsAnswer> {
    let answer = ask(bus, source, position).await?;
    ensure!(answer.epoch == epoch, "{source} has another epoch now");
    Ok(answer)
}
