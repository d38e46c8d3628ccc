//! Dead letters: events that a projection could not apply, and what a person does with them.
//!
//! A letter waits in a **lane**: its event's key, or its partition where the key cannot be read.
//! Only the first of a lane is at fault; those behind it wait, so that the key's events are
//! applied in their order, whenever that is. So it is always the first of a lane that is tried
//! again, and after it those that wait, up to the next one that fails.

use std::collections::HashSet;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sea_orm::{ConnectionTrait, DbErr, QueryResult, Statement, Value};

use super::apply::guarded;
use super::{ApplyError, Projection};
use crate::crash;
use crate::database::{Inspection, Tx, with_attached};
use crate::envelope::{Envelope, EventId};
use crate::operator::{DiscardAnswer, Letter, ListAnswer, RetryAnswer, RetryRequest};
use crate::outbox::{signed, unsigned};

/// Why dead letters could not be tried again or given up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("there is no dead letter {0}")]
    Unknown(u64),
    #[error("there are no dead letters in the lane `{0}`")]
    UnknownLane(String),
    #[error("dead letter {id} waits behind {first}: try that one again, or discard it")]
    Waits { id: u64, first: u64 },
    #[error("say why it is discarded")]
    NoReason,
    #[error("the database cannot take it now")]
    Database(#[from] DbErr),
}

impl From<ApplyError> for Refusal {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Transient(error) => Self::Database(error),
            ApplyError::Poison(reason) => Self::Database(DbErr::Custom(reason)),
        }
    }
}

const COLUMNS: &str = "id, projection, source, lane, epoch, position, sequence, subject, payload, \
                       reason, recorded_at";

/// Why an event is parked.
pub(super) struct Parked<'a> {
    pub(super) lane: &'a str,
    pub(super) reason: &'a str,
    pub(super) waiting: bool,
}

/// Parks `event`.
pub(super) fn park(
    tx: &Tx,
    projection: &'static str,
    source: &str,
    event: &Envelope,
    why: &Parked<'_>,
) -> Result<(), DbErr> {
    let Parked {
        lane,
        reason,
        waiting,
    } = *why;
    let id = event.id.as_ref().map(tracing::field::display);
    let (subject, sequence) = (&event.subject, event.sequence);
    if waiting {
        tracing::warn!(
            projection,
            source,
            event.subject = subject,
            event.id = id,
            event.sequence = sequence,
            lane,
            "event waits behind a dead letter"
        );
    } else {
        tracing::error!(
            projection,
            source,
            event.subject = subject,
            event.id = id,
            event.sequence = sequence,
            lane,
            reason,
            "event parked as a dead letter"
        );
    }
    metrics::counter!("headwater_dead_letters_total", "projection" => projection, "source" => source.to_owned())
        .increment(1);
    tx.run_raw(statement(
        tx,
        "INSERT INTO headwater_dead_letter
             (projection, source, lane, epoch, position, sequence, subject, payload, reason,
              recorded_at, waiting)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            projection.into(),
            source.into(),
            lane.into(),
            event.id.as_ref().map(|id| id.epoch.clone()).into(),
            event.id.as_ref().map(|id| signed(id.position)).into(),
            event.sequence.map(signed).into(),
            event.subject.clone().into(),
            event.payload.to_vec().into(),
            reason.into(),
            tx.now_ms().into(),
            waiting.into(),
        ],
    ))
}

/// How many dead letters `projection` has of `source`.
pub(super) fn count(
    db: &impl ConnectionTrait,
    projection: &str,
    source: &str,
) -> Result<u64, DbErr> {
    counted(
        db,
        "SELECT count(*) AS n FROM headwater_dead_letter WHERE projection = ? AND source = ?",
        [projection.into(), source.into()],
    )
}

/// How many dead letters `projection` has of all its sources.
pub(crate) fn count_all(db: &impl ConnectionTrait, projection: &str) -> Result<u64, DbErr> {
    counted(
        db,
        "SELECT count(*) AS n FROM headwater_dead_letter WHERE projection = ?",
        [projection.into()],
    )
}

/// The first of `lanes` in which letters wait.
pub(super) fn blocked(
    tx: &Tx,
    projection: &str,
    source: &str,
    lanes: &[String],
) -> Result<Option<String>, DbErr> {
    for lane in lanes {
        let waiting = counted(
            tx,
            "SELECT count(*) AS n FROM (SELECT 1 FROM headwater_dead_letter
             WHERE projection = ? AND source = ? AND lane = ? LIMIT 1)",
            [projection.into(), source.into(), lane.as_str().into()],
        )?;
        if waiting > 0 {
            return Ok(Some(lane.clone()));
        }
    }
    Ok(None)
}

/// What tells an event from all others of its source: its place in the outbox, or in the stream
/// where somebody published it by hand.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    epoch: Option<String>,
    place: Option<u64>,
}

impl Identity {
    pub(super) fn of(event: &Envelope) -> Self {
        match &event.id {
            Some(EventId {
                epoch, position, ..
            }) => Self {
                epoch: Some(epoch.clone()),
                place: Some(*position),
            },
            None => Self {
                epoch: None,
                place: event.sequence,
            },
        }
    }
}

/// The events of `source` that were given up.
pub(super) fn discarded(
    tx: &Tx,
    projection: &str,
    source: &str,
) -> Result<HashSet<Identity>, DbErr> {
    let rows = tx.query_all_raw(statement(
        tx,
        "SELECT epoch, coalesce(position, sequence) AS place FROM headwater_discarded
         WHERE projection = ? AND source = ?",
        [projection.into(), source.into()],
    ))?;
    rows.iter()
        .map(|row| {
            Ok(Identity {
                epoch: row.try_get_by("epoch")?,
                place: row.try_get_by::<Option<i64>, _>("place")?.map(unsigned),
            })
        })
        .collect()
}

/// A page of the dead letters, or of the discarded ones, of all projections of this database.
pub(crate) fn list(
    db: &impl ConnectionTrait,
    table: Table,
    after: u64,
    limit: usize,
) -> Result<ListAnswer, DbErr> {
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let sql = format!("{} WHERE id > ? ORDER BY id LIMIT ?", table.select());
    let rows = db.query_all_raw(statement(db, &sql, [after.into(), limit.into()]))?;
    let total = format!("SELECT count(*) AS n FROM {}", table.name());
    Ok(ListAnswer {
        letters: rows.iter().map(letter).collect::<Result<_, _>>()?,
        total: counted(db, &total, [])?,
    })
}

/// Where letters are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Table {
    Dead,
    Discarded,
}

impl Table {
    fn name(self) -> &'static str {
        match self {
            Self::Dead => "headwater_dead_letter",
            Self::Discarded => "headwater_discarded",
        }
    }

    fn select(self) -> String {
        let more = match self {
            Self::Dead => "waiting, NULL AS discarded_because, NULL AS discarded_at",
            Self::Discarded => "0 AS waiting, discarded_because, discarded_at",
        };
        format!("SELECT {COLUMNS}, {more} FROM {}", self.name())
    }
}

/// One dead letter, with its payload.
pub(crate) fn show(db: &impl ConnectionTrait, id: u64) -> Result<Letter, Refusal> {
    let (letter, payload) = find(db, id)?;
    Ok(Letter {
        payload: Some(BASE64_STANDARD.encode(payload)),
        ..letter
    })
}

/// Tries letters of `projection` again: those that are asked for, and what waits behind them.
pub(crate) fn retry<P: Projection>(
    projection: &P,
    tx: &Tx,
    which: &RetryRequest,
) -> Result<RetryAnswer, Refusal> {
    let mut answer = RetryAnswer::default();
    for lane in chosen::<P>(tx, which)? {
        retry_lane(projection, tx, &lane, &mut answer)?;
    }
    answer.left = counted(tx, "SELECT count(*) AS n FROM headwater_dead_letter", [])?;
    Ok(answer)
}

/// Gives up letter `id` of `projection`, and tries what only waited behind it.
pub(crate) fn discard<P: Projection>(
    projection: &P,
    tx: &Tx,
    id: u64,
    reason: &str,
) -> Result<DiscardAnswer, Refusal> {
    if reason.trim().is_empty() {
        return Err(Refusal::NoReason);
    }
    let (letter, _) = find(tx, id)?;
    let columns = COLUMNS.trim_start_matches("id, ");
    tx.run_raw(statement(
        tx,
        &format!(
            "INSERT INTO headwater_discarded ({columns}, discarded_because, discarded_at)
             SELECT {columns}, ?, ? FROM headwater_dead_letter WHERE id = ?"
        ),
        [reason.into(), tx.now_ms().into(), signed(id).into()],
    ))?;
    remove(tx, id)?;
    crash::point("dead-letter.discarded");
    tracing::warn!(
        projection = letter.projection,
        source = letter.source,
        event.subject = letter.subject,
        event.position = letter.position,
        reason,
        "dead letter discarded"
    );
    let lane = Lane {
        source: letter.source.clone(),
        name: letter.lane.clone(),
    };
    let mut retried = RetryAnswer::default();
    if first_of::<P>(tx, &lane)?.is_some_and(|(first, _)| first.waiting) {
        retry_lane(projection, tx, &lane, &mut retried)?;
    }
    retried.left = counted(tx, "SELECT count(*) AS n FROM headwater_dead_letter", [])?;
    Ok(DiscardAnswer {
        discarded: letter,
        retried,
    })
}

/// Letters that wait for one another.
#[derive(Debug, Clone)]
struct Lane {
    source: String,
    name: String,
}

/// The lanes that `which` means, in the order in which they began to wait.
fn chosen<P: Projection>(tx: &Tx, which: &RetryRequest) -> Result<Vec<Lane>, Refusal> {
    let rows = tx.query_all_raw(statement(
        tx,
        "SELECT source, lane, min(id) AS first FROM headwater_dead_letter
         WHERE projection = ? GROUP BY source, lane ORDER BY first",
        [P::NAME.into()],
    ))?;
    let lanes: Vec<(Lane, u64)> = rows
        .iter()
        .map(|row| {
            let lane = Lane {
                source: row.try_get_by("source")?,
                name: row.try_get_by("lane")?,
            };
            Ok::<_, DbErr>((lane, unsigned(row.try_get_by("first")?)))
        })
        .collect::<Result<_, _>>()?;
    match which {
        RetryRequest::All {} => Ok(lanes.into_iter().map(|(lane, _)| lane).collect()),
        RetryRequest::Lane(name) => {
            let named = lanes.into_iter().filter(|(lane, _)| lane.name == *name);
            let named: Vec<_> = named.map(|(lane, _)| lane).collect();
            if named.is_empty() {
                return Err(Refusal::UnknownLane(name.clone()));
            }
            Ok(named)
        }
        RetryRequest::Id(id) => {
            let (letter, _) = find(tx, *id)?;
            let of_it = |lane: &Lane| lane.name == letter.lane && lane.source == letter.source;
            match lanes.into_iter().find(|(lane, _)| of_it(lane)) {
                Some((lane, first)) if first == *id => Ok(vec![lane]),
                Some((_, first)) => Err(Refusal::Waits { id: *id, first }),
                None => Err(Refusal::Unknown(*id)),
            }
        }
    }
}

/// Applies the letters of a lane in order, up to the first that fails.
fn retry_lane<P: Projection>(
    projection: &P,
    tx: &Tx,
    lane: &Lane,
    answer: &mut RetryAnswer,
) -> Result<(), Refusal> {
    while let Some((letter, payload)) = first_of::<P>(tx, lane)? {
        let id = letter.id;
        match guarded(projection, tx, &[envelope(&letter, payload)]) {
            Ok(()) => {
                remove(tx, id)?;
                crash::point("dead-letter.retried");
                answer.applied += 1;
            }
            Err(ApplyError::Poison(reason)) => {
                tx.run_raw(statement(
                    tx,
                    "UPDATE headwater_dead_letter SET reason = ?, waiting = 0 WHERE id = ?",
                    [reason.clone().into(), signed(id).into()],
                ))?;
                answer.failed.push(Letter {
                    reason,
                    waiting: false,
                    ..letter
                });
                return Ok(());
            }
            Err(transient) => return Err(transient.into()),
        }
    }
    Ok(())
}

fn first_of<P: Projection>(tx: &Tx, lane: &Lane) -> Result<Option<(Letter, Vec<u8>)>, DbErr> {
    let sql = format!(
        "{} WHERE projection = ? AND source = ? AND lane = ? ORDER BY id LIMIT 1",
        Table::Dead.select()
    );
    let values = [
        P::NAME.into(),
        lane.source.as_str().into(),
        lane.name.as_str().into(),
    ];
    let row = tx.query_one_raw(statement(tx, &sql, values))?;
    row.map(|row| Ok((letter(&row)?, row.try_get_by("payload")?)))
        .transpose()
}

fn find(db: &impl ConnectionTrait, id: u64) -> Result<(Letter, Vec<u8>), Refusal> {
    let known = i64::try_from(id).map_err(|_| Refusal::Unknown(id))?;
    let sql = format!("{} WHERE id = ?", Table::Dead.select());
    let row = db
        .query_one_raw(statement(db, &sql, [known.into()]))?
        .ok_or(Refusal::Unknown(id))?;
    Ok((letter(&row)?, row.try_get_by("payload")?))
}

fn remove(tx: &Tx, id: u64) -> Result<(), DbErr> {
    let sql = "DELETE FROM headwater_dead_letter WHERE id = ?";
    tx.run_raw(statement(tx, sql, [signed(id).into()]))
}

fn letter(row: &QueryResult) -> Result<Letter, DbErr> {
    let payload: Vec<u8> = row.try_get_by("payload")?;
    let number = |column: &str| {
        let value: Option<i64> = row.try_get_by(column)?;
        Ok::<_, DbErr>(value.map(unsigned))
    };
    Ok(Letter {
        id: unsigned(row.try_get_by("id")?),
        projection: row.try_get_by("projection")?,
        source: row.try_get_by("source")?,
        lane: row.try_get_by("lane")?,
        waiting: row.try_get_by("waiting")?,
        epoch: row.try_get_by("epoch")?,
        position: number("position")?,
        sequence: number("sequence")?,
        subject: row.try_get_by("subject")?,
        reason: row.try_get_by("reason")?,
        recorded_at: row.try_get_by("recorded_at")?,
        bytes: payload.len() as u64,
        payload: None,
        discarded_because: row.try_get_by("discarded_because")?,
        discarded_at: row.try_get_by("discarded_at")?,
    })
}

fn envelope(letter: &Letter, payload: Vec<u8>) -> Envelope {
    let id = letter.epoch.clone().zip(letter.position);
    Envelope {
        source: letter.source.clone(),
        subject: letter.subject.clone(),
        id: id.map(|(epoch, position)| EventId {
            source: letter.source.clone(),
            epoch,
            position,
        }),
        sequence: letter.sequence,
        payload: payload.into(),
        traceparent: None,
    }
}

fn counted<const N: usize>(
    db: &impl ConnectionTrait,
    sql: &str,
    values: [Value; N],
) -> Result<u64, DbErr> {
    let row = db.query_one_raw(statement(db, sql, values))?;
    row.map_or(Ok(0), |row| Ok(unsigned(row.try_get_by("n")?)))
}

fn statement<const N: usize>(
    db: &impl ConnectionTrait,
    sql: &str,
    values: [Value; N],
) -> Statement {
    Statement::from_sql_and_values(db.get_database_backend(), sql, values)
}

/// Tries lanes again whose first letter only waits: what it waited for was discarded since.
pub(crate) fn retry_unblocked<P: Projection>(projection: &P, tx: &Tx) -> Result<(), Refusal> {
    let mut answer = RetryAnswer::default();
    for lane in chosen::<P>(tx, &RetryRequest::All {})? {
        if first_of::<P>(tx, &lane)?.is_some_and(|(first, _)| first.waiting) {
            retry_lane(projection, tx, &lane, &mut answer)?;
        }
    }
    Ok(())
}

/// Takes the discarded letters of the store `from` to the store `to`, and what waits there as one
/// of them out.
pub(crate) fn carry_over(from: &Path, to: &Path) -> rusqlite::Result<()> {
    with_attached(
        to,
        from,
        "BEGIN IMMEDIATE;
         INSERT INTO main.headwater_discarded SELECT * FROM other.headwater_discarded AS theirs
         WHERE NOT EXISTS (SELECT 1 FROM main.headwater_discarded AS own WHERE own.id = theirs.id);
         DELETE FROM main.headwater_dead_letter AS letter
         WHERE EXISTS (SELECT 1 FROM main.headwater_discarded AS discarded
             WHERE discarded.projection = letter.projection AND discarded.source = letter.source
             AND discarded.epoch IS letter.epoch
             AND coalesce(discarded.position, discarded.sequence)
                 IS coalesce(letter.position, letter.sequence));
         COMMIT",
    )
}

/// An event that is a dead letter at fault in the store `next`, and which the store `live` has
/// passed without parking it, in words; if there is one.
pub(crate) fn only_in(next: &Path, live: &Path) -> rusqlite::Result<Option<String>> {
    let live = Inspection::open(live)?;
    let next = Inspection::open(next)?;
    let mut letters = next.connection().prepare(
        "SELECT projection, source, epoch, position, sequence, subject, reason
         FROM headwater_dead_letter WHERE NOT waiting",
    )?;
    let mut letters = letters.query([])?;
    while let Some(letter) = letters.next()? {
        let text = |column: usize| letter.get::<_, Option<String>>(column);
        let number = |column: usize| letter.get::<_, Option<i64>>(column);
        let is_applied: bool = live.connection().query_row(
            "SELECT (EXISTS (SELECT 1 FROM headwater_position
                     WHERE projection = ?1 AND source = ?2 AND epoch = ?3 AND position >= ?4)
                 OR ?3 IS NULL AND EXISTS (SELECT 1 FROM headwater_checkpoint
                     WHERE projection = ?1 AND source = ?2 AND sequence >= ?5))
             AND NOT EXISTS (SELECT 1 FROM headwater_dead_letter
                 WHERE projection = ?1 AND source = ?2 AND epoch IS ?3
                 AND coalesce(position, sequence) IS coalesce(?4, ?5))
             AND NOT EXISTS (SELECT 1 FROM headwater_discarded
                 WHERE projection = ?1 AND source = ?2 AND epoch IS ?3
                 AND coalesce(position, sequence) IS coalesce(?4, ?5))",
            rusqlite::params![text(0)?, text(1)?, text(2)?, number(3)?, number(4)?],
            |row| row.get(0),
        )?;
        if is_applied {
            let place = number(3)?.or(number(4)?).unwrap_or(0);
            let (subject, reason) = (text(5)?.unwrap_or_default(), text(6)?.unwrap_or_default());
            return Ok(Some(format!("{subject} at {place} ({reason})")));
        }
    }
    Ok(None)
}
