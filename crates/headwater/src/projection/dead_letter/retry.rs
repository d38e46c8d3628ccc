//! Trying letters again, and giving them up.

use sea_orm::{ConnectionTrait as _, DbErr};

use super::letters::{COLUMNS, FILTER, Table, find, left, letter};
use super::{Refusal, statement};
use crate::crash;
use crate::database::Tx;
use crate::envelope::{Envelope, EventId};
use crate::operator::{DiscardAnswer, Filter, Letter, RetryAnswer, RetryRequest};
use crate::outbox::{signed, unsigned};
use crate::projection::apply::guarded;
use crate::projection::{ApplyError, Projection};

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
    answer.left = left(tx)?;
    Ok(answer)
}

/// Gives up letter `id` of `projection`, and tries what only waited behind it. How many letters
/// are left in all is not counted.
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
    let any = Filter::default();
    let filter = match which {
        RetryRequest::All(filter) => filter,
        _ => &any,
    };
    let [source, lane, error, waiting] = filter.values();
    let rows = tx.query_all_raw(statement(
        tx,
        &format!(
            "SELECT source, lane, id AS first FROM headwater_dead_letter AS letter
             WHERE {FILTER} AND projection = ?5 AND id = (
                 SELECT min(id) FROM headwater_dead_letter AS other
                 WHERE other.projection = letter.projection AND other.source = letter.source
                 AND other.lane = letter.lane)
             ORDER BY first"
        ),
        [source, lane, error, waiting, P::NAME.into()],
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
        RetryRequest::All(_) => Ok(lanes.into_iter().map(|(lane, _)| lane).collect()),
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

fn remove(tx: &Tx, id: u64) -> Result<(), DbErr> {
    let sql = "DELETE FROM headwater_dead_letter WHERE id = ?";
    tx.run_raw(statement(tx, sql, [signed(id).into()]))
}

fn envelope(letter: &Letter, payload: Vec<u8>) -> Envelope {
    let id = letter.epoch.clone().zip(letter.position);
    Envelope {
        source: letter.source.as_str().into(),
        subject: letter.subject.as_str().into(),
        id: id.map(|(epoch, position)| EventId {
            source: letter.source.as_str().into(),
            epoch: epoch.into(),
            position,
        }),
        sequence: letter.sequence,
        payload: payload.into(),
        traceparent: None,
    }
}

/// Tries lanes again whose first letter only waits: what it waited for was discarded since.
pub(crate) fn retry_unblocked<P: Projection>(projection: &P, tx: &Tx) -> Result<(), Refusal> {
    let mut answer = RetryAnswer::default();
    for lane in chosen::<P>(tx, &RetryRequest::All(Filter::default()))? {
        if first_of::<P>(tx, &lane)?.is_some_and(|(first, _)| first.waiting) {
            retry_lane(projection, tx, &lane, &mut answer)?;
        }
    }
    Ok(())
}
