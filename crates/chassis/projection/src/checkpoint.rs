//! How far a projection got: stored in the same database and transaction as its effect.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use headwater_event::{AsOf, Envelope, EventId};
use headwater_store::number::{signed, unsigned};
use headwater_store::{RawSnapshot, Tx};
use sea_orm::{ConnectionTrait, DbErr, QueryResult, Statement, Value};
use serde::de::DeserializeOwned;

use crate::config::Remedy;
use crate::projection::Projection;
use crate::source_answer::{Answer, EpochAnswer};
use headwater_nats::start::Start;

/// A projection's progress in one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Checkpoint {
    projection: &'static str,
    source: &'static str,
    /// The stream of the sequence; 0 before the first event.
    pub(super) stream_created: i64,
    /// The last sequence that was processed.
    pub(super) sequence: u64,
    /// The epoch of the last applied event.
    epoch: Option<Arc<str>>,
    /// The last position of each epoch that was applied, or became a dead letter.
    positions: BTreeMap<Arc<str>, u64>,
    /// The epochs whose position has moved since loading: one batch may have the end of one epoch
    /// and the beginning of the next.
    moved: BTreeSet<Arc<str>>,
    /// The epochs that the source has confirmed: `None` for its present one, else the last position
    /// of a former one.
    confirmed: BTreeMap<Arc<str>, Option<u64>>,
    has_new_confirmation: bool,
    /// In a store that is to replace another: up to which sequence of this stream the other store
    /// has classified the epochs.
    judged: Option<u64>,
    /// Dead letters of this source at loading.
    pub(super) dead_letters: u64,
    /// Whether any of them was ever discarded.
    pub(super) has_discarded: bool,
}

/// Loads everything about a source in one statement: each batch begins with it.
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

/// A JSON object with a number, or null, for each epoch.
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

/// What to do with an event, by the checkpoint.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Disposition {
    Apply,
    Skip,
    /// The source does not have its epoch.
    Foreign,
    /// Its epoch is unconfirmed: ask the source.
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
            has_new_confirmation: false,
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
        for (epoch, last) in self.confirmed.iter().filter(|_| self.has_new_confirmation) {
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

    /// Moves the sequence to where reading starts if the stream was recreated or rolled back.
    /// Positions stay. Returns whether anything changed.
    pub(super) fn rewind(&mut self, start: Start) -> bool {
        let before = (self.stream_created, self.sequence);
        self.stream_created = start.stream_created;
        self.sequence = start.known;
        before != (self.stream_created, self.sequence)
    }

    /// The epoch of the newest event.
    pub(super) fn epoch(&self) -> Option<String> {
        self.epoch.as_deref().map(str::to_owned)
    }

    /// The position in the source's present epoch.
    pub(super) fn position(&self) -> u64 {
        self.epoch
            .as_deref()
            .map_or(0, |epoch| self.position_of(epoch))
    }

    fn position_of(&self, epoch: &str) -> u64 {
        self.positions.get(epoch).copied().unwrap_or(0)
    }

    /// What to do with `event`, which is of the checkpoint's stream. `answer`: the source's answer
    /// about its epoch since the event came.
    pub(super) fn classify(&self, event: &Envelope, answer: &EpochAnswer) -> Disposition {
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
            match answer {
                EpochAnswer::Epoch(own) if *own == id.epoch => {}
                EpochAnswer::Epoch(_) => return Disposition::Foreign,
                EpochAnswer::NotAsked | EpochAnswer::Away if is_judged && self.has_confirmed() => {
                    return Disposition::Foreign;
                }
                // Provisionally: the source is asked when it is back.
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

    /// Whether `id` is of a confirmed epoch and not beyond its end; or of the epoch accepted while
    /// the source was down, until the source contradicts.
    fn trusts(&self, id: &EventId) -> bool {
        match self.confirmed.get(&id.epoch) {
            Some(last) => last.is_none_or(|last| id.position <= last),
            None => !self.has_confirmed() && self.epoch.as_ref() == Some(&id.epoch),
        }
    }

    /// Whether the source has confirmed its present epoch.
    pub(super) fn has_confirmed(&self) -> bool {
        self.confirmed.values().any(Option::is_none)
    }

    /// Records `epoch` as the source's present one. A former epoch ends at its applied position.
    pub(super) fn confirm(&mut self, epoch: &Arc<str>) {
        if self.confirmed.get(epoch) == Some(&None) {
            return;
        }
        let positions = &self.positions;
        for (former, last) in &mut self.confirmed {
            last.get_or_insert_with(|| positions.get(former).copied().unwrap_or(0));
        }
        self.confirmed.insert(Arc::clone(epoch), None);
        self.has_new_confirmation = true;
    }

    /// How the applied events contradict the source's answer, as a sentence.
    ///
    /// `is_settled`: whether the source has had time to publish something of the epoch in its
    /// answer. `remedy`: what the sentence is to advise.
    pub(super) fn contradiction(
        &self,
        answer: &Answer,
        is_settled: bool,
        remedy: Remedy,
    ) -> Option<String> {
        let Self {
            projection, source, ..
        } = self;
        let Answer {
            epoch: own, head, ..
        } = answer;
        let unconfirmed = self.positions.iter().find(|(epoch, at)| {
            // What cannot be forgotten is reported until events of another epoch follow.
            let is_reported = remedy == Remedy::Rebuild || self.epoch.as_ref() == Some(*epoch);
            is_reported && **at > 0 && *epoch != own && !self.confirmed.contains_key(*epoch)
        });
        if let Some((epoch, at)) = unconfirmed {
            let then = match remedy {
                Remedy::Rebuild => format!("then rebuild {projection}"),
                Remedy::GoOn => {
                    format!("{projection} then goes on with the events of {own}")
                }
            };
            return Some(format!(
                "{at} events were applied of the epoch {epoch}, which {source} does not have: its \
                 epoch is {own}. {source} was down when they came. `headwater stream restore \
                 {source}` removes them from the stream; {then}"
            ));
        }
        let (epoch, at) = (self.epoch.as_ref()?, self.position());
        if at == 0 {
            None
        } else if epoch != own {
            is_settled.then(|| {
                let then = match remedy {
                    Remedy::Rebuild => format!("restore the stream and rebuild {projection}"),
                    Remedy::GoOn => {
                        format!(
                            "restore the stream, and {projection} goes on with the events of {own}"
                        )
                    }
                };
                format!(
                    "applied up to {at} of the epoch {epoch}, and {source} is at {head} of the \
                     epoch {own}: these events came from another database. Put back the database \
                     with the epoch {epoch}; or continue without it: {then} \
                     (docs/operations.md)"
                )
            })
        } else {
            (at > *head).then(|| {
                let then = match remedy {
                    Remedy::Rebuild => format!(
                        "Run `headwater stream restore {source}`, then rebuild {projection}"
                    ),
                    Remedy::GoOn => format!(
                        "{projection} would take the next events for known ones: run `headwater \
                         restore {source}` with a copy, which begins a new epoch \
                         (docs/operations.md)"
                    ),
                };
                format!(
                    "applied up to {at} of {head}: ahead of {source}. Either events were published \
                     by hand under its positions, or its database was restored from an old copy: \
                     `headwater verify --source {source}` shows which. {then}; or put back \
                     the newest database"
                )
            })
        }
    }

    /// Moves past `event`, which is applied or became a dead letter. `answer`: as passed to
    /// [`classify`](Self::classify).
    pub(super) fn advance(&mut self, event: &Envelope, answer: &EpochAnswer) {
        if let Some(id) = self.own(event)
            && let EpochAnswer::Epoch(own) = answer
            && *own == id.epoch
            && !self.trusts(id)
        {
            self.confirm(own);
        }
        if let Some(EventId {
            epoch, position, ..
        }) = self.own(event)
        {
            // Most events are of the same epoch as the event before.
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

    /// Moves past `event`, which is skipped and does not change the source's present epoch.
    pub(super) fn pass(&mut self, event: &Envelope) {
        if let Some(sequence) = event.sequence {
            self.sequence = self.sequence.max(sequence);
        }
    }

    /// Whether the event has a position of this source, so it was not published by hand.
    pub(super) fn is_own(&self, event: &Envelope) -> bool {
        self.own(event).is_some()
    }

    /// The event's id, if it is of this source. An id copied from another source's events does not
    /// count.
    fn own<'a>(&self, event: &'a Envelope) -> Option<&'a EventId> {
        event.id.as_ref().filter(|id| *id.source == *self.source)
    }
}

/// How far the projection `P` got in each of its sources, as `db` sees it.
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

/// [`as_of`] in a raw snapshot.
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

/// The positions that were found, and 0 for other sources.
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

/// The state of a projection's tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tables {
    /// The version that built them.
    pub(super) version: u32,
    /// Whether they were once built to the end of all sources.
    pub(super) is_complete: bool,
}

/// The state of the tables of `projection`; new ones are of `version`.
pub(super) fn claim(tx: &Tx, projection: &str, version: u32) -> Result<Tables, DbErr> {
    tx.run_raw(Statement::from_sql_and_values(
        tx.get_database_backend(),
        "INSERT INTO headwater_projection (name, version) VALUES (?, ?) ON CONFLICT DO NOTHING",
        [projection.into(), version.into()] as [Value; 2],
    ))?;
    claimed(tx, projection)?.ok_or(DbErr::RecordNotInserted)
}

/// The state of tables that exist.
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

/// Records that the tables of `projection` were built to the end of all sources.
pub(super) fn note_complete(tx: &Tx, projection: &str) -> Result<(), DbErr> {
    tx.run_raw(Statement::from_sql_and_values(
        tx.get_database_backend(),
        "UPDATE headwater_projection SET completed_at = ? WHERE name = ? AND completed_at IS NULL",
        [tx.now_ms().into(), projection.into()] as [Value; 2],
    ))
}

/// The epoch that `projection` applied last, of each source of which it has applied anything.
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

/// Records the version of the tables of `projection`.
pub fn note_version(tx: &Tx, projection: &str, version: u32) -> Result<(), DbErr> {
    tx.run_raw(Statement::from_sql_and_values(
        tx.get_database_backend(),
        "UPDATE headwater_projection SET version = ? WHERE name = ?",
        [version.into(), projection.into()] as [Value; 2],
    ))
}

/// For each source: the stream that a projection reads, and the sequence it has read up to.
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
