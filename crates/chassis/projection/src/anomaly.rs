//! Events in a source's stream that its relay did not publish in this form. They are counted next
//! to the checkpoint, in the same transaction, for as long as that stream exists.
//!
//! A recreated stream has none, and neither has a stream refilled by `headwater stream restore`.

use headwater_event::Envelope;
use headwater_store::Tx;
use headwater_store::number::{signed, unsigned};
use sea_orm::{ConnectionTrait, DbErr, Statement, Value};

/// How many events of a batch are logged one by one; the rest are summed up.
const LOGGED_MAX: usize = 20;

/// What is unusual about an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Published by hand, without a position: applied.
    ByHand,
    /// Of an epoch that the source does not have: refused.
    ForeignEpoch,
    /// At a position that was applied before, with different content than the outbox: skipped.
    Altered,
    /// Not in the stream: fetched from the outbox.
    Missing,
}

impl Kind {
    /// The name in the table. Never rename.
    fn name(self) -> &'static str {
        match self {
            Self::ByHand => "by-hand",
            Self::ForeignEpoch => "foreign-epoch",
            Self::Altered => "altered",
            Self::Missing => "missing",
        }
    }
}

/// The events of one kind in a batch.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    pub(super) events: u64,
    /// The first of them, to be logged.
    first: Vec<Envelope>,
    last: Option<Envelope>,
}

impl Tally {
    pub(super) fn add(&mut self, event: &Envelope) {
        self.events += 1;
        if self.first.len() < LOGGED_MAX {
            self.first.push(event.clone());
        }
        self.last = Some(event.clone());
    }

    /// Logs the first events, with `what` they are.
    pub(super) fn log(&self, projection: &str, source: &str, what: &str) {
        for event in &self.first {
            tracing::warn!(
                projection,
                source,
                event.subject = &*event.subject,
                event.id = event.id.as_ref().map(tracing::field::display),
                event.sequence = event.sequence,
                "{what}"
            );
        }
    }

    /// How many events are not logged one by one.
    pub(super) fn more(&self) -> u64 {
        self.events - self.first.len() as u64
    }

    /// Adds the events to the counts of `projection` and `source`.
    pub(super) fn save(
        &self,
        tx: &Tx,
        (projection, source): (&str, &str),
        stream_created: i64,
        kind: Kind,
    ) -> Result<(), DbErr> {
        let Some(last) = &self.last else {
            return Ok(());
        };
        tx.run_raw(Statement::from_sql_and_values(
            tx.get_database_backend(),
            "INSERT INTO headwater_anomaly
                 (projection, source, kind, stream_created, events, sequence, subject)
             VALUES (?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT DO UPDATE SET
                 events = excluded.events + iif(stream_created = excluded.stream_created, events, 0),
                 stream_created = excluded.stream_created,
                 sequence = excluded.sequence, subject = excluded.subject",
            [
                projection.into(),
                source.into(),
                kind.name().into(),
                stream_created.into(),
                signed(self.events).into(),
                signed(last.sequence.unwrap_or_default()).into(),
                (*last.subject).into(),
            ] as [Value; 7],
        ))
    }
}

/// The counts of a source's stream, by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Anomalies {
    /// Events without a position, published by hand.
    pub by_hand: u64,
    /// Events of an epoch that the source does not have.
    pub foreign_epoch: u64,
    /// Events at a known position, with different content.
    pub altered: u64,
    /// Events fetched from the outbox.
    pub missing: u64,
    faults: Vec<String>,
}

impl Anomalies {
    /// What `projection` has found in the stream of `source` that it reads.
    pub fn load(db: &impl ConnectionTrait, projection: &str, source: &str) -> Result<Self, DbErr> {
        let rows = db.query_all_raw(Statement::from_sql_and_values(
            db.get_database_backend(),
            "SELECT kind, events, anomaly.sequence, subject FROM headwater_anomaly AS anomaly
             JOIN headwater_checkpoint USING (projection, source, stream_created)
             WHERE projection = ? AND source = ? ORDER BY kind",
            [projection.into(), source.into()] as [Value; 2],
        ))?;
        let mut found = Self::default();
        for row in rows {
            let events = unsigned(row.try_get_by("events")?);
            let at: i64 = row.try_get_by("sequence")?;
            let subject: String = row.try_get_by("subject")?;
            let last = format!("the last is {subject} at sequence {at} of the stream of {source}");
            match &*row.try_get_by::<String, _>("kind")? {
                "by-hand" => found.by_hand = events,
                "missing" => found.missing = events,
                "foreign-epoch" => {
                    found.foreign_epoch = events;
                    found.faults.push(format!(
                        "{events} events of an epoch that {source} does not have were refused, \
                         {last}: `headwater verify` shows them, `headwater stream restore \
                         {source}` removes them"
                    ));
                }
                "altered" => {
                    found.altered = events;
                    found.faults.push(format!(
                        "{events} events were skipped whose position was applied before and whose \
                         content is not what the outbox has, {last}: `headwater verify` shows \
                         them, `headwater stream restore {source}` removes them"
                    ));
                }
                _ => {}
            }
        }
        Ok(found)
    }

    /// What an operator must act on, as sentences.
    pub fn faults(&self) -> &[String] {
        &self.faults
    }
}

/// Forgets anomalies of the stream of `source` after `sequence`: the stream was rolled back, and
/// what follows is read again.
pub(super) fn forget_behind(
    tx: &Tx,
    projection: &str,
    source: &str,
    sequence: u64,
) -> Result<(), DbErr> {
    tx.run_raw(Statement::from_sql_and_values(
        tx.get_database_backend(),
        "DELETE FROM headwater_anomaly WHERE projection = ? AND source = ? AND sequence > ?",
        [projection.into(), source.into(), signed(sequence).into()] as [Value; 3],
    ))
}
