//! Retries and discards dead letters.

use std::collections::HashSet;
use std::sync::Arc;

use headwater_event::{Envelope, EventId};
use headwater_nats::control::{DiscardAnswer, Filter, Letter, RetryAnswer, RetryRequest};
use headwater_store::Tx;
use headwater_store::number::{signed, unsigned};
use headwater_telemetry::crash;
use sea_orm::{ConnectionTrait, DbErr};

use crate::apply::guarded;
use crate::dead_letter::check::{self, Checked};
use crate::dead_letter::letters::{COLUMNS, FILTER, Table, bound, find, left, letter};
use crate::dead_letter::refusal::Refusal;
use crate::dead_letter::scope::Scope;
use crate::dead_letter::sql::statement;
use crate::projection::{ApplyError, Projection};
use crate::runner::RunnerHandle;

/// The letters to retry.
#[derive(Debug, Clone)]
pub enum Which {
    /// The letters that an operator names.
    Request(RetryRequest),
    /// Keys whose first letter only waits: the letter before it was discarded.
    Unblocked,
}

/// A blocked key: its letters wait for one another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct BlockedKey {
    source: String,
    name: String,
}

impl BlockedKey {
    fn of(letter: &Letter) -> Self {
        Self {
            source: letter.source.clone(),
            name: letter.lane.clone(),
        }
    }

    fn scope(self) -> Scope {
        Scope::BlockedKey {
            source: Some(self.source),
            name: self.name,
        }
    }
}

/// Retries the requested letters of the projection that `live` runs, and the letters that wait
/// behind them, each with its source's outbox content.
///
/// # Errors
/// There are no such letters, or a source does not answer: then nothing was changed, or only the
/// letters before were applied.
pub async fn retry<P: Projection>(
    live: &RunnerHandle<P>,
    which: Which,
) -> Result<RetryAnswer, Refusal> {
    let scope = match which {
        Which::Unblocked => Scope::Unblocked,
        Which::Request(RetryRequest::All(filter)) => Scope::All(filter),
        Which::Request(RetryRequest::Lane(name)) => Scope::BlockedKey { source: None, name },
        Which::Request(RetryRequest::Id(id)) => {
            let find = move |snapshot: &_| key_that_begins_with::<P>(snapshot, id);
            live.db().read(find).await?.scope()
        }
    };
    retry_from(live, scope, 0).await
}

/// Discards letter `id`, and retries letters that only waited behind it.
///
/// # Errors
/// There is no such letter; or a letter waits behind it and its source does not answer. Then
/// nothing was changed.
pub async fn discard<P: Projection>(
    live: &RunnerHandle<P>,
    id: u64,
    reason: String,
) -> Result<DiscardAnswer, Refusal> {
    if reason.trim().is_empty() {
        return Err(Refusal::NoReason);
    }
    let find = move |snapshot: &_| {
        let (letter, _) = find(snapshot, id)?;
        let key = BlockedKey::of(&letter);
        let is_first = first_of::<P>(snapshot, &key)?.is_some_and(|(first, _)| first.id == id);
        Ok::<_, Refusal>((letter, key, is_first))
    };
    let (letter, key, is_first) = live.db().read(find).await?;
    let scope = key.clone().scope();
    let checked = if is_first {
        check::check(live.db(), live.bus(), P::NAME, &scope, id).await?
    } else {
        Checked::default()
    };
    let upto = checked.upto;
    let running = live.clone();
    let discard = move |tx: &Tx| {
        running.expect_no_take_over()?;
        move_to_discarded(tx, id, &reason)?;
        let mut retried = RetryAnswer::default();
        if first_of::<P>(tx, &key)?.is_some_and(|(first, _)| first.waiting) {
            checked.correct(tx)?;
            retry_key(&**running.projection(), tx, &key, &checked, &mut retried)?;
        }
        retried.left = left(tx)?;
        Ok::<_, Refusal>(retried)
    };
    let mut retried = live.db().write(discard).await?.value;
    live.wake_followers();
    if let (Some(upto), true) = (upto, retried.failed.is_empty()) {
        retry_further(live, scope, upto, &mut retried).await;
    }
    Ok(DiscardAnswer {
        discarded: letter,
        retried,
    })
}

/// Retries letters behind a discarded one that do not fit into one page.
async fn retry_further<P: Projection>(
    live: &RunnerHandle<P>,
    scope: Scope,
    upto: u64,
    retried: &mut RetryAnswer,
) {
    match retry_from(live, scope, upto).await {
        Ok(more) => add(retried, more),
        Err(Refusal::UnknownLane(_)) => {}
        Err(error) => {
            tracing::warn!(projection = P::NAME, %error, "events that waited behind a discarded one still wait: retry them");
        }
    }
}

/// Adds the results of further letters to `sum`.
fn add(sum: &mut RetryAnswer, more: RetryAnswer) {
    sum.applied += more.applied;
    sum.left = more.left;
    sum.failed.extend(more.failed);
}

/// Retries the letters of `scope` whose keys begin above the id `after`, page by page.
async fn retry_from<P: Projection>(
    live: &RunnerHandle<P>,
    scope: Scope,
    mut after: u64,
) -> Result<RetryAnswer, Refusal> {
    let mut sum = RetryAnswer::default();
    let mut done = Arc::new(HashSet::new());
    let mut is_first = true;
    loop {
        let checked = check::check(live.db(), live.bus(), P::NAME, &scope, after).await?;
        let upto = checked.upto;
        let (running, scope, failed) = (live.clone(), scope.clone(), Arc::clone(&done));
        let pass = move |tx: &Tx| {
            running.expect_no_take_over()?;
            checked.correct(tx)?;
            let mut answer = RetryAnswer::default();
            for key in chosen::<P>(tx, &scope, is_first)? {
                if !failed.contains(&key) {
                    retry_key(&**running.projection(), tx, &key, &checked, &mut answer)?;
                }
            }
            answer.left = left(tx)?;
            Ok::<_, Refusal>(answer)
        };
        let answer = live.db().write(pass).await?.value;
        live.wake_followers();
        Arc::make_mut(&mut done).extend(answer.failed.iter().map(BlockedKey::of));
        add(&mut sum, answer);
        match upto {
            Some(upto) => (after, is_first) = (upto, false),
            None => return Ok(sum),
        }
    }
}

/// Moves a letter to the discarded ones.
fn move_to_discarded(tx: &Tx, id: u64, reason: &str) -> Result<(), Refusal> {
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
    Ok(())
}

/// The blocked keys of `P` whose first letter `filter` matches, with that letter, ordered by when
/// they began to wait.
fn blocked_keys<P: Projection>(
    db: &impl ConnectionTrait,
    filter: &Filter,
) -> Result<Vec<(BlockedKey, u64)>, DbErr> {
    let [source, key, error, waiting] = bound(filter);
    let rows = db.query_all_raw(statement(
        db,
        &format!(
            "SELECT source, lane, id AS first FROM headwater_dead_letter AS letter
             WHERE {FILTER} AND projection = ?5 AND id = (
                 SELECT min(id) FROM headwater_dead_letter AS other
                 WHERE other.projection = letter.projection AND other.source = letter.source
                 AND other.lane = letter.lane)
             ORDER BY first"
        ),
        [source, key, error, waiting, P::NAME.into()],
    ))?;
    rows.iter()
        .map(|row| {
            let key = BlockedKey {
                source: row.try_get_by("source")?,
                name: row.try_get_by("lane")?,
            };
            Ok((key, unsigned(row.try_get_by("first")?)))
        })
        .collect()
}

/// The key whose first letter is `id`.
fn key_that_begins_with<P: Projection>(
    db: &impl ConnectionTrait,
    id: u64,
) -> Result<BlockedKey, Refusal> {
    let key = BlockedKey::of(&find(db, id)?.0);
    let keys = blocked_keys::<P>(db, &Filter::default())?;
    let first = keys.into_iter().find(|(of, _)| *of == key);
    match first {
        Some((key, first)) if first == id => Ok(key),
        Some((_, first)) => Err(Refusal::Waits { id, first }),
        None => Err(Refusal::Unknown(id)),
    }
}

/// The keys of `scope`. Fails if a key `must_be` there and is missing.
fn chosen<P: Projection>(
    tx: &Tx,
    scope: &Scope,
    must_be: bool,
) -> Result<Vec<BlockedKey>, Refusal> {
    let any = Filter::default();
    let filter = match scope {
        Scope::All(filter) => filter,
        Scope::Unblocked | Scope::BlockedKey { .. } => &any,
    };
    let mut chosen = Vec::new();
    for (key, _) in blocked_keys::<P>(tx, filter)? {
        let is_meant = match scope {
            Scope::All(_) => true,
            Scope::Unblocked => first_of::<P>(tx, &key)?.is_some_and(|(first, _)| first.waiting),
            Scope::BlockedKey { source, name } => {
                key.name == *name && source.as_ref().is_none_or(|source| key.source == *source)
            }
        };
        if is_meant {
            chosen.push(key);
        }
    }
    match scope {
        Scope::BlockedKey { name, .. } if must_be && chosen.is_empty() => {
            Err(Refusal::UnknownLane(name.clone()))
        }
        _ => Ok(chosen),
    }
}

/// Applies the letters of a key in order, up to the first that fails, as far as they are checked.
fn retry_key<P: Projection>(
    projection: &P,
    tx: &Tx,
    key: &BlockedKey,
    checked: &Checked,
    answer: &mut RetryAnswer,
) -> Result<(), Refusal> {
    while let Some((letter, payload)) = first_of::<P>(tx, key)? {
        let id = letter.id;
        if !checked.has(id) {
            return Ok(());
        }
        let applied = match checked.foreign.get(&id) {
            Some(reason) => Err(ApplyError::Poison(reason.clone())),
            None => guarded(projection, tx, &[envelope(&letter, payload)]),
        };
        match applied {
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

fn first_of<P: Projection>(
    db: &impl ConnectionTrait,
    key: &BlockedKey,
) -> Result<Option<(Letter, Vec<u8>)>, DbErr> {
    let sql = format!(
        "{} WHERE projection = ? AND source = ? AND lane = ? ORDER BY id LIMIT 1",
        Table::Dead.select()
    );
    let values = [
        P::NAME.into(),
        key.source.as_str().into(),
        key.name.as_str().into(),
    ];
    let row = db.query_one_raw(statement(db, &sql, values))?;
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
