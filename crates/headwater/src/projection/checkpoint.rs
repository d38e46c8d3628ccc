//! How far a projection got: in the same database, and the same transaction, as its effect.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sea_orm::{ConnectionTrait, DbErr, Statement, Value};

use super::Projection;
use super::feed::Start;
use crate::database::{BareSnapshot, Tx};
use crate::envelope::{Envelope, EventId};
use crate::outbox::{signed, unsigned};
use crate::position::Positions;

/// A projection's progress in one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Checkpoint {
    projection: &'static str,
    source: &'static str,
    /// Which stream the sequence belongs to; 0 before the first event.
    pub(super) stream_created: i64,
    /// The last sequence that was looked at.
    pub(super) sequence: u64,
    /// The life of the source that the last applied event was of.
    epoch: Option<Arc<str>>,
    /// The last position that was applied (or parked), of each life.
    positions: BTreeMap<Arc<str>, u64>,
    /// The lives whose position has moved since it was loaded: one batch may have the end of one
    /// life and the beginning of the next.
    moved: BTreeSet<Arc<str>>,
}

/// What the checkpoint says of an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Apply,
    Skip,
    /// The events of `epoch` after `have` are missing before this one.
    Gap {
        epoch: Arc<str>,
        have: u64,
    },
}

impl Checkpoint {
    pub(super) fn load(
        db: &impl ConnectionTrait,
        projection: &'static str,
        source: &'static str,
    ) -> Result<Self, DbErr> {
        let row = db.query_one_raw(Statement::from_sql_and_values(
            db.get_database_backend(),
            "SELECT stream_created, sequence, epoch FROM headwater_checkpoint
             WHERE projection = ? AND source = ?",
            [projection.into(), source.into()] as [Value; 2],
        ))?;
        let mut checkpoint = Self {
            projection,
            source,
            stream_created: 0,
            sequence: 0,
            epoch: None,
            positions: BTreeMap::new(),
            moved: BTreeSet::new(),
        };
        if let Some(row) = row {
            checkpoint.stream_created = row.try_get_by("stream_created")?;
            checkpoint.sequence = unsigned(row.try_get_by("sequence")?);
            let epoch: Option<String> = row.try_get_by("epoch")?;
            checkpoint.epoch = epoch.map(Into::into);
        }
        let rows = db.query_all_raw(Statement::from_sql_and_values(
            db.get_database_backend(),
            "SELECT epoch, position FROM headwater_position WHERE projection = ? AND source = ?",
            [projection.into(), source.into()] as [Value; 2],
        ))?;
        for row in rows {
            let position = unsigned(row.try_get_by("position")?);
            let epoch: String = row.try_get_by("epoch")?;
            checkpoint.positions.insert(epoch.into(), position);
        }
        Ok(checkpoint)
    }

    pub(super) fn save(&self, tx: &Tx) -> Result<(), DbErr> {
        tx.run_raw(Statement::from_sql_and_values(
            tx.get_database_backend(),
            "INSERT INTO headwater_checkpoint (projection, source, stream_created, sequence, epoch)
             VALUES (?, ?, ?, ?, ?)
             ON CONFLICT DO UPDATE SET stream_created = excluded.stream_created,
                 sequence = excluded.sequence, epoch = excluded.epoch",
            [
                self.projection.into(),
                self.source.into(),
                self.stream_created.into(),
                signed(self.sequence).into(),
                self.epoch.as_deref().into(),
            ] as [Value; 5],
        ))?;
        for epoch in &self.moved {
            tx.run_raw(Statement::from_sql_and_values(
                tx.get_database_backend(),
                "INSERT INTO headwater_position (projection, source, epoch, position)
                 VALUES (?, ?, ?, ?)
                 ON CONFLICT DO UPDATE SET position = excluded.position",
                [
                    self.projection.into(),
                    self.source.into(),
                    (**epoch).into(),
                    signed(self.position_of(epoch)).into(),
                ] as [Value; 4],
            ))?;
        }
        Ok(())
    }

    /// Puts the sequence where reading starts, if it is not there: the stream is another one
    /// than before, or was rolled back. Positions stay. Whether there was anything to do.
    pub(super) fn rewind(&mut self, start: Start) -> bool {
        let before = (self.stream_created, self.sequence);
        self.stream_created = start.stream_created;
        self.sequence = start.known;
        before != (self.stream_created, self.sequence)
    }

    /// The position in the source's present life.
    pub(super) fn position(&self) -> u64 {
        self.epoch
            .as_deref()
            .map_or(0, |epoch| self.position_of(epoch))
    }

    fn position_of(&self, epoch: &str) -> u64 {
        self.positions.get(epoch).copied().unwrap_or(0)
    }

    /// What is to be done with `event`, which is of the stream that the checkpoint is of.
    pub(super) fn judge(&self, event: &Envelope) -> Verdict {
        let Some(id) = self.own(event) else {
            return match event.sequence {
                Some(sequence) if sequence <= self.sequence => Verdict::Skip,
                _ => Verdict::Apply,
            };
        };
        let have = self.position_of(&id.epoch);
        if id.position <= have {
            Verdict::Skip
        } else if id.position == have + 1 {
            Verdict::Apply
        } else {
            Verdict::Gap {
                epoch: id.epoch.clone(),
                have,
            }
        }
    }

    /// Moves on past `event`, which is applied or parked.
    pub(super) fn advance(&mut self, event: &Envelope) {
        if let Some(EventId {
            epoch, position, ..
        }) = self.own(event)
        {
            // Most events are of the life that the one before was of.
            if self.epoch.as_ref() != Some(epoch) || !self.moved.contains(epoch) {
                self.epoch = Some(Arc::clone(epoch));
                self.moved.insert(Arc::clone(epoch));
                self.positions.entry(Arc::clone(epoch)).or_default();
            }
            if let Some(at) = self.positions.get_mut(epoch) {
                *at = *position;
            }
        }
        self.pass(event);
    }

    /// Moves on past `event`, which is skipped: it says nothing of the source's present life.
    pub(super) fn pass(&mut self, event: &Envelope) {
        if let Some(sequence) = event.sequence {
            self.sequence = self.sequence.max(sequence);
        }
    }

    /// The event's identity, if it is one of this source: an id that somebody copied from
    /// another source's events counts for nothing.
    fn own<'a>(&self, event: &'a Envelope) -> Option<&'a EventId> {
        event.id.as_ref().filter(|id| *id.source == *self.source)
    }
}

/// How far the projection `P` got in each of its sources, in the view that `db` has.
///
/// # Errors
/// The database's.
pub fn positions<P: Projection>(db: &impl ConnectionTrait) -> Result<Positions, DbErr> {
    let rows = db.query_all_raw(Statement::from_sql_and_values(
        db.get_database_backend(),
        POSITIONS,
        [Value::from(P::NAME)],
    ))?;
    let rows = rows
        .iter()
        .map(|row| Ok((row.try_get_by(0)?, row.try_get_by(1)?)));
    Ok(of_all_sources::<P>(rows.collect::<Result<_, DbErr>>()?))
}

/// [`positions`] in a bare snapshot.
///
/// # Errors
/// The database's.
pub fn positions_bare<P: Projection>(snapshot: &BareSnapshot) -> Result<Positions, DbErr> {
    let rows = snapshot.rows(POSITIONS, [P::NAME], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(of_all_sources::<P>(rows))
}

const POSITIONS: &str = "SELECT source, position FROM headwater_checkpoint
     JOIN headwater_position USING (projection, source, epoch) WHERE projection = ?";

/// Those that were found, and 0 of the others.
fn of_all_sources<P: Projection>(found: Vec<(String, i64)>) -> Positions {
    let none = P::SOURCES.iter().map(|source| ((*source).to_owned(), 0));
    let found = found
        .into_iter()
        .map(|(source, position)| (source, unsigned(position)));
    Positions(none.chain(found).collect())
}

/// What is known of a projection's tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tables {
    /// The version that they are folded with.
    pub(super) version: u32,
    /// Whether they were folded to the end of all sources once.
    pub(super) is_complete: bool,
}

/// What is known of the tables of `projection`; new ones are of `version`.
pub(super) fn claim(tx: &Tx, projection: &str, version: u32) -> Result<Tables, DbErr> {
    let backend = tx.get_database_backend();
    tx.run_raw(Statement::from_sql_and_values(
        backend,
        "INSERT INTO headwater_projection (name, version) VALUES (?, ?) ON CONFLICT DO NOTHING",
        [projection.into(), version.into()] as [Value; 2],
    ))?;
    let row = tx
        .query_one_raw(Statement::from_sql_and_values(
            backend,
            "SELECT version, completed_at IS NOT NULL AS is_complete
             FROM headwater_projection WHERE name = ?",
            [Value::from(projection)],
        ))?
        .ok_or(DbErr::RecordNotInserted)?;
    Ok(Tables {
        version: row.try_get_by("version")?,
        is_complete: row.try_get_by("is_complete")?,
    })
}

/// Notes that the tables of `projection` have been folded to the end of all sources.
pub(super) fn note_complete(tx: &Tx, projection: &str) -> Result<(), DbErr> {
    tx.run_raw(Statement::from_sql_and_values(
        tx.get_database_backend(),
        "UPDATE headwater_projection SET completed_at = ? WHERE name = ? AND completed_at IS NULL",
        [tx.now_ms().into(), projection.into()] as [Value; 2],
    ))
}

/// The life of each source that `projection` has applied last, where it has applied anything.
pub(crate) fn epochs(
    db: &impl ConnectionTrait,
    projection: &str,
) -> Result<BTreeMap<String, String>, DbErr> {
    let rows = db.query_all_raw(Statement::from_sql_and_values(
        db.get_database_backend(),
        "SELECT source, epoch FROM headwater_checkpoint
         WHERE projection = ? AND epoch IS NOT NULL",
        [Value::from(projection)],
    ))?;
    rows.iter()
        .map(|row| Ok((row.try_get_by("source")?, row.try_get_by("epoch")?)))
        .collect()
}

/// Notes which version the tables of `projection` are of now.
pub(crate) fn note_version(tx: &Tx, projection: &str, version: u32) -> Result<(), DbErr> {
    tx.run_raw(Statement::from_sql_and_values(
        tx.get_database_backend(),
        "UPDATE headwater_projection SET version = ? WHERE name = ?",
        [version.into(), projection.into()] as [Value; 2],
    ))
}

/// How far a projection has read its sources' streams: for each, which stream, and the sequence.
pub(crate) fn places<P: Projection>(
    db: &impl ConnectionTrait,
) -> Result<BTreeMap<String, (i64, u64)>, DbErr> {
    let rows = db.query_all_raw(Statement::from_sql_and_values(
        db.get_database_backend(),
        "SELECT source, stream_created, sequence FROM headwater_checkpoint WHERE projection = ?",
        [Value::from(P::NAME)],
    ))?;
    rows.iter()
        .map(|row| {
            let sequence = unsigned(row.try_get_by("sequence")?);
            Ok((
                row.try_get_by("source")?,
                (row.try_get_by("stream_created")?, sequence),
            ))
        })
        .collect()
}
