//! How far a projection got: in the same database, and the same transaction, as its effect.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use headwater_event::{AsOf, Envelope, EventId};
use headwater_store::number::{signed, unsigned};
use headwater_store::{RawSnapshot, Tx};
use sea_orm::{ConnectionTrait, DbErr, QueryResult, Statement, Value};
use serde::de::DeserializeOwned;

use crate::projection::Projection;
use crate::source_answer::{Answer, EpochAnswer};
use crate::start::Start;

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
    /// The epochs that the source has said are its own: `None` for its present one, else the last
    /// position of a former one.
    confirmed: BTreeMap<Arc<str>, Option<u64>>,
    is_confirmed_anew: bool,
    /// Up to which sequence of this stream another store has judged the epochs, where this one is
    /// to replace it.
    judged: Option<u64>,
    /// Dead letters of this source when it was loaded.
    pub(super) dead_letters: u64,
    /// Whether any of them was ever given up.
    pub(super) has_discarded: bool,
}

/// All that is kept of a source beside the tables, in one statement: each batch begins with it.
const LOAD: &str = "
    WITH asked AS (SELECT ? AS projection, ? AS source)
    SELECT coalesce(stream_created, 0) AS stream_created, sequence, epoch,
        (SELECT json_group_object(epoch, position)
            FROM headwater_position JOIN asked USING (projection, source)) AS positions,
        (SELECT json_group_object(epoch, last)
            FROM headwater_epoch JOIN asked USING (projection, source)) AS confirmed,
        (SELECT judged.sequence
            FROM headwater_judged AS judged JOIN asked USING (projection, source)
            WHERE judged.stream_created = coalesce(checkpoint.stream_created, 0)) AS judged,
        (SELECT count(*)
            FROM headwater_dead_letter JOIN asked USING (projection, source)) AS dead_letters,
        EXISTS (SELECT 1 FROM headwater_discarded AS discarded
            WHERE discarded.projection = asked.projection
            AND discarded.source = asked.source) AS has_discarded
    FROM asked LEFT JOIN headwater_checkpoint AS checkpoint USING (projection, source)";

/// A JSON object with a number, or nothing, for each epoch.
fn by_epoch<T: DeserializeOwned>(
    row: &QueryResult,
    column: &str,
) -> Result<BTreeMap<Arc<str>, T>, DbErr> {
    let text: String = row.try_get_by(column)?;
    let read: BTreeMap<String, T> =
        serde_json::from_str(&text).map_err(|error| DbErr::Json(error.to_string()))?;
    let each = read.into_iter();
    Ok(each.map(|(epoch, number)| (epoch.into(), number)).collect())
}

/// What the checkpoint says of an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Disposition {
    Apply,
    Skip,
    /// The source does not have its epoch.
    Foreign,
    /// Nobody has confirmed its epoch: the source is to be asked.
    Unconfirmed(Arc<str>),
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
            LOAD,
            [projection.into(), source.into()] as [Value; 2],
        ))?;
        let row = row.ok_or_else(|| DbErr::RecordNotFound(source.to_owned()))?;
        let number = |column: &str| {
            let number: Option<i64> = row.try_get_by(column)?;
            Ok::<_, DbErr>(number.map(unsigned))
        };
        let epoch: Option<String> = row.try_get_by("epoch")?;
        Ok(Self {
            projection,
            source,
            stream_created: row.try_get_by("stream_created")?,
            sequence: number("sequence")?.unwrap_or_default(),
            epoch: epoch.map(Into::into),
            positions: by_epoch(&row, "positions")?,
            moved: BTreeSet::new(),
            confirmed: by_epoch(&row, "confirmed")?,
            is_confirmed_anew: false,
            judged: number("judged")?,
            dead_letters: number("dead_letters")?.unwrap_or_default(),
            has_discarded: number("has_discarded")? == Some(1),
        })
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
        for (epoch, last) in self.confirmed.iter().filter(|_| self.is_confirmed_anew) {
            tx.run_raw(Statement::from_sql_and_values(
                tx.get_database_backend(),
                "INSERT INTO headwater_epoch (projection, source, epoch, last)
                 VALUES (?, ?, ?, ?)
                 ON CONFLICT DO UPDATE SET last = excluded.last",
                [
                    self.projection.into(),
                    self.source.into(),
                    (**epoch).into(),
                    last.map(signed).into(),
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

    /// The source's epoch, as the newest event has it.
    pub(super) fn epoch(&self) -> Option<String> {
        self.epoch.as_deref().map(str::to_owned)
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

    /// What is to be done with `event`, which is of the stream that the checkpoint is of. `said`:
    /// what the source said of its epoch since the event came.
    pub(super) fn classify(&self, event: &Envelope, said: &EpochAnswer) -> Disposition {
        let Some(id) = self.own(event) else {
            return match event.sequence {
                Some(sequence) if sequence <= self.sequence => Disposition::Skip,
                _ => Disposition::Apply,
            };
        };
        let have = self.position_of(&id.epoch);
        if id.position <= have {
            return Disposition::Skip;
        }
        if !self.trusts(id) {
            let is_judged = event.sequence.is_some() && event.sequence <= self.judged;
            match said {
                EpochAnswer::Epoch(own) if *own == id.epoch => {}
                EpochAnswer::Epoch(_) => return Disposition::Foreign,
                EpochAnswer::NotAsked | EpochAnswer::Away if is_judged && self.has_confirmed() => {
                    return Disposition::Foreign;
                }
                // Provisionally: the source is asked once it is there.
                EpochAnswer::Away if self.epoch.is_none() && self.confirmed.is_empty() => {}
                EpochAnswer::NotAsked | EpochAnswer::Away => {
                    return Disposition::Unconfirmed(id.epoch.clone());
                }
            }
        }
        if id.position == have + 1 {
            Disposition::Apply
        } else {
            Disposition::Gap {
                epoch: id.epoch.clone(),
                have,
            }
        }
    }

    /// Whether `id` is of an epoch that the source has confirmed, and not beyond its end; or of
    /// the one that was taken while the source was away, until it says otherwise.
    fn trusts(&self, id: &EventId) -> bool {
        match self.confirmed.get(&id.epoch) {
            Some(last) => last.is_none_or(|last| id.position <= last),
            None => !self.has_confirmed() && self.epoch.as_ref() == Some(&id.epoch),
        }
    }

    /// Whether the source has said which epoch is its present one.
    pub(super) fn has_confirmed(&self) -> bool {
        self.confirmed.values().any(Option::is_none)
    }

    /// Notes that the source has said that `epoch` is its present one: a former one ends where it
    /// is applied up to.
    pub(super) fn confirm(&mut self, epoch: &Arc<str>) {
        if self.confirmed.get(epoch) == Some(&None) {
            return;
        }
        let positions = &self.positions;
        for (former, last) in &mut self.confirmed {
            last.get_or_insert_with(|| positions.get(former).copied().unwrap_or(0));
        }
        self.confirmed.insert(Arc::clone(epoch), None);
        self.is_confirmed_anew = true;
    }

    /// How what was applied contradicts what the source says of itself, as a sentence.
    ///
    /// `is_settled`: whether it has had the time to publish something of the epoch that it says.
    pub(super) fn contradiction(&self, said: &Answer, is_settled: bool) -> Option<String> {
        let Self {
            projection, source, ..
        } = self;
        let Answer {
            epoch: own, head, ..
        } = said;
        let unconfirmed = self
            .positions
            .iter()
            .find(|(epoch, at)| **at > 0 && *epoch != own && !self.confirmed.contains_key(*epoch));
        if let Some((epoch, at)) = unconfirmed {
            return Some(format!(
                "{at} events were applied of the epoch {epoch}, which {source} does not have: its \
                 epoch is {own}. It was away when they came. `headwater stream restore {source}` \
                 removes them from the stream; then rebuild {projection}"
            ));
        }
        let (epoch, at) = (self.epoch.as_ref()?, self.position());
        if at == 0 {
            None
        } else if epoch != own {
            is_settled.then(|| {
                format!(
                    "applied up to {at} of the epoch {epoch}, and {source} is at {head} of the \
                     epoch {own}: its database is not the one that these events came from. Put \
                     back the one with the epoch {epoch}; or go on without it: restore the stream \
                     and rebuild {projection} (docs/operations.md)"
                )
            })
        } else {
            (at > *head).then(|| {
                format!(
                    "applied up to {at} of {head}: ahead of {source}. Either somebody published \
                     events under its positions, or its database was put back from an old copy: \
                     `headwater verify --source {source}` tells which. `headwater stream restore \
                     {source}`, then rebuild {projection}; or put back the newest database"
                )
            })
        }
    }

    /// Moves on past `event`, which is applied or parked. `said`: as it was judged with.
    pub(super) fn advance(&mut self, event: &Envelope, said: &EpochAnswer) {
        if let Some(id) = self.own(event)
            && let EpochAnswer::Epoch(own) = said
            && *own == id.epoch
            && !self.trusts(id)
        {
            self.confirm(own);
        }
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

    /// Whether the event has a position of this source: nobody published it by hand.
    pub(super) fn is_own(&self, event: &Envelope) -> bool {
        self.own(event).is_some()
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
pub fn as_of<P: Projection>(db: &impl ConnectionTrait) -> Result<AsOf, DbErr> {
    let rows = db.query_all_raw(Statement::from_sql_and_values(
        db.get_database_backend(),
        AS_OF,
        [Value::from(P::NAME)],
    ))?;
    let rows = rows
        .iter()
        .map(|row| Ok((row.try_get_by(0)?, row.try_get_by(1)?, row.try_get_by(2)?)));
    Ok(of_all_sources::<P>(rows.collect::<Result<_, DbErr>>()?))
}

/// [`as_of`] in a bare snapshot.
///
/// # Errors
/// The database's.
pub fn as_of_raw<P: Projection>(snapshot: &RawSnapshot) -> Result<AsOf, DbErr> {
    let rows = snapshot.rows(AS_OF, [P::NAME], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
    })?;
    Ok(of_all_sources::<P>(rows))
}

const AS_OF: &str = "SELECT source, position,
         (SELECT min(letter.position) FROM headwater_dead_letter AS letter
          WHERE letter.projection = checkpoint.projection
          AND letter.source = checkpoint.source AND letter.epoch = checkpoint.epoch)
     FROM headwater_checkpoint AS checkpoint
     JOIN headwater_position USING (projection, source, epoch) WHERE projection = ?";

/// Those that were found, and 0 of the others.
fn of_all_sources<P: Projection>(found: Vec<(String, i64, Option<i64>)>) -> AsOf {
    let mut as_of = AsOf::default();
    for source in P::SOURCES {
        as_of.applied.0.insert((*source).to_owned(), 0);
    }
    for (source, position, parked) in found {
        if let Some(parked) = parked {
            as_of.parked.0.insert(source.clone(), unsigned(parked));
        }
        as_of.applied.0.insert(source, unsigned(position));
    }
    as_of
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
    tx.run_raw(Statement::from_sql_and_values(
        tx.get_database_backend(),
        "INSERT INTO headwater_projection (name, version) VALUES (?, ?) ON CONFLICT DO NOTHING",
        [projection.into(), version.into()] as [Value; 2],
    ))?;
    claimed(tx, projection)?.ok_or(DbErr::RecordNotInserted)
}

/// The same of tables that are there already.
pub(super) fn claimed(
    db: &impl ConnectionTrait,
    projection: &str,
) -> Result<Option<Tables>, DbErr> {
    let row = db.query_one_raw(Statement::from_sql_and_values(
        db.get_database_backend(),
        "SELECT version, completed_at IS NOT NULL AS is_complete
         FROM headwater_projection WHERE name = ?",
        [Value::from(projection)],
    ))?;
    row.map(|row| {
        Ok(Tables {
            version: row.try_get_by("version")?,
            is_complete: row.try_get_by("is_complete")?,
        })
    })
    .transpose()
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
pub fn epochs(
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
pub fn note_version(tx: &Tx, projection: &str, version: u32) -> Result<(), DbErr> {
    tx.run_raw(Statement::from_sql_and_values(
        tx.get_database_backend(),
        "UPDATE headwater_projection SET version = ? WHERE name = ?",
        [version.into(), projection.into()] as [Value; 2],
    ))
}

/// How far a projection has read its sources' streams: for each, which stream, and the sequence.
pub fn places<P: Projection>(
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
