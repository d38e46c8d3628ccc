//! The ledger: the intents that are not done.

use std::collections::BTreeMap;
use std::time::Duration;

use headwater_event::{Envelope, EventId};
use headwater_projection::ApplyError;
use headwater_projection::dead_letter::{self, NewLetter};
use headwater_store::Tx;
use headwater_store::number::{signed, unsigned};
use headwater_telemetry::crash;
use sea_orm::{ConnectionTrait, DbErr, QueryResult, Statement, Value};

use crate::config::Start;
use crate::effect::{Effect, Intent};

/// Work that an effect has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: i64,
    pub(crate) event: Envelope,
    /// The same at each attempt.
    pub(crate) key: String,
    /// Attempts that failed.
    pub(crate) attempts: usize,
}

/// The intents of an effect that are not done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// How many there are, including those that are not due.
    pub(crate) intents: u64,
    /// How many of them have failed and are to be tried again.
    pub(crate) failed: u64,
    /// Since when the oldest of them is due, in milliseconds since 1970; `None` if none is.
    pub(crate) since: Option<i64>,
    /// Why the last attempt at the oldest of these failed.
    pub(crate) failure: Option<String>,
    /// How many are held because they are in a newer version than the program knows.
    pub(crate) newer: u64,
    /// The subject of one of these.
    pub(crate) newer_subject: Option<String>,
}

/// What an effect may do now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) entries: Vec<Entry>,
    /// When the next one is due, in milliseconds since 1970.
    pub(crate) next: Option<i64>,
    /// When the first timer that is held is or was due, in milliseconds since 1970.
    pub(crate) timer: Option<i64>,
}

/// The intents that may be performed, the first ones first.
const DUE: &str = "SELECT id, source, epoch, position, subject, payload, traceparent, attempts
     FROM headwater_intent
     WHERE effect = ?1 AND waits = 0 AND is_newer = 0 AND is_timer = 0 AND due_at <= ?2
     ORDER BY due_at, id LIMIT ?3";

/// When the next of them is due, and when the first timer is.
const NEXT: &str = "SELECT
         (SELECT min(due_at) FROM headwater_intent WHERE effect = ?1
          AND waits = 0 AND is_newer = 0 AND is_timer = 0 AND due_at > ?2),
         (SELECT min(due_at) FROM headwater_intent WHERE effect = ?1
          AND waits = 0 AND is_newer = 0 AND is_timer = 1)";

/// Lets the next intent of a key be performed.
const FREE_NEXT: &str = "UPDATE headwater_intent SET waits = 0 WHERE id =
         (SELECT min(id) FROM headwater_intent WHERE effect = ? AND key = ?)";

/// Whether an attempt at an intent has failed and is to be repeated.
const ANY_FAILED: &str =
    "SELECT EXISTS (SELECT 1 FROM headwater_intent WHERE effect = ? AND attempts > 0)";

pub(crate) fn statement<const N: usize>(
    db: &impl ConnectionTrait,
    sql: &str,
    values: [Value; N],
) -> Statement {
    Statement::from_sql_and_values(db.get_database_backend(), sql, values)
}

/// The key of the work of the effect `name` for the event `id`.
fn key(id: &EventId, name: &str) -> String {
    format!("{}:{}:{}:{name}", id.source, id.epoch, id.position)
}

/// The blocked key of a dead intent: it blocks no other.
fn blocked_key(key: &str) -> String {
    format!("intent {key}")
}

/// The time of the first start of an effect that begins with the first event.
pub(crate) const FIRST_EVENT: i64 = 0;

/// The time at which the effect `name` was first started with each source, in milliseconds since
/// 1970.
pub(crate) fn started_at(
    db: &impl ConnectionTrait,
    name: &str,
) -> Result<BTreeMap<String, i64>, DbErr> {
    let sql = "SELECT source, started_at FROM headwater_effect_source WHERE effect = ?";
    let rows = db.query_all_raw(statement(db, sql, [name.into()]))?;
    let each = rows
        .iter()
        .map(|row| Ok((row.try_get_by(0)?, row.try_get_by(1)?)));
    each.collect()
}

/// Records that the effect `name` is started, for the first time with those of its `sources` that
/// are not recorded.
pub(crate) fn start(tx: &Tx, name: &str, sources: &[&str], start: Start) -> Result<(), DbErr> {
    let at = match start {
        Start::Now => tx.now_ms(),
        Start::Beginning => FIRST_EVENT,
    };
    let sql = "INSERT INTO headwater_effect (name) VALUES (?) ON CONFLICT DO NOTHING";
    tx.run_raw(statement(tx, sql, [name.into()]))?;
    for source in sources {
        tx.run_raw(statement(
            tx,
            "INSERT INTO headwater_effect_source (effect, source, started_at) VALUES (?, ?, ?)
             ON CONFLICT DO NOTHING",
            [name.into(), (*source).into(), at.into()],
        ))?;
    }
    Ok(())
}

/// Writes what `effect` intends for `event`. An event that comes back from the dead letters of its
/// worker was decided before: its intent is put back.
pub(crate) fn intend<E: Effect>(
    effect: &E,
    tx: &Tx,
    event: &Envelope,
    id: &EventId,
) -> Result<(), ApplyError> {
    let intent = if is_dead(tx, E::NAME, id)? {
        Intent::Now
    } else {
        effect.intend(tx, event)?
    };
    let (after, is_timer) = match intent {
        Intent::None => return Ok(()),
        Intent::Now => (Duration::ZERO, false),
        Intent::After(after) => (after, true),
    };
    let due_at = later(tx.now_ms(), after);
    tx.run_raw(statement(
        tx,
        "INSERT INTO headwater_intent
             (effect, source, epoch, position, subject, payload, traceparent, key, wanted_at,
              due_at, is_timer, waits)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?9, ?10,
             EXISTS (SELECT 1 FROM headwater_intent WHERE effect = ?1 AND key = ?8))",
        [
            E::NAME.into(),
            (*id.source).into(),
            (*id.epoch).into(),
            signed(id.position).into(),
            (*event.subject).into(),
            event.payload.to_vec().into(),
            event.traceparent.clone().into(),
            effect.key(event).into(),
            due_at.into(),
            is_timer.into(),
        ],
    ))?;
    crash::point("effect.intended");
    Ok(())
}

/// Whether the work for the event `id` was given up.
fn is_dead(tx: &Tx, name: &str, id: &EventId) -> Result<bool, DbErr> {
    let found = tx.query_one_raw(statement(
        tx,
        "SELECT 1 FROM headwater_dead_letter
         WHERE projection = ? AND source = ? AND epoch = ? AND position = ? AND lane = ?",
        [
            name.into(),
            (*id.source).into(),
            (*id.epoch).into(),
            signed(id.position).into(),
            blocked_key(&key(id, name)).into(),
        ],
    ))?;
    Ok(found.is_some())
}

/// The time `after` later than `now`, in milliseconds since 1970.
fn later(now: i64, after: Duration) -> i64 {
    now.saturating_add(i64::try_from(after.as_millis()).unwrap_or(i64::MAX))
}

/// The first intents of the effect `name` that may be performed at `now`, at most `limit`. An intent
/// waits for earlier ones of its key.
pub(crate) fn due(
    db: &impl ConnectionTrait,
    name: &str,
    now: i64,
    limit: usize,
) -> Result<Due, DbErr> {
    let rows = db.query_all_raw(statement(
        db,
        DUE,
        [
            name.into(),
            now.into(),
            i64::try_from(limit).unwrap_or(i64::MAX).into(),
        ],
    ))?;
    let entries = rows.iter().map(|row| entry(row, name));
    let entries = entries.collect::<Result<_, _>>()?;
    let next = statement(db, NEXT, [name.into(), now.into()]);
    let Some(row) = db.query_one_raw(next)? else {
        return Ok(Due::default());
    };
    Ok(Due {
        entries,
        next: row.try_get_by(0)?,
        timer: row.try_get_by(1)?,
    })
}

/// Lets the timers of the effect `name` that were due at `at` be performed.
pub(crate) fn free_timers(tx: &Tx, name: &str, at: i64) -> Result<(), DbErr> {
    let sql = "UPDATE headwater_intent SET is_timer = 0 WHERE effect = ? AND waits = 0
               AND is_newer = 0 AND is_timer = 1 AND due_at <= ?";
    tx.run_raw(statement(tx, sql, [name.into(), at.into()]))
}

/// The last event that the effect `name` has read of an epoch of `source`.
pub(crate) fn position(
    db: &impl ConnectionTrait,
    name: &str,
    source: &str,
    epoch: &str,
) -> Result<u64, DbErr> {
    let sql = "SELECT position FROM headwater_position
               WHERE projection = ? AND source = ? AND epoch = ?";
    let values = [name.into(), source.into(), epoch.into()];
    let row = db.query_one_raw(statement(db, sql, values))?;
    row.map_or(Ok(0), |row| row.try_get_by(0).map(unsigned))
}

/// The subjects of the intents of the effect `name`, and whether these are held because the program
/// did not know their version.
pub(crate) fn subjects(
    db: &impl ConnectionTrait,
    name: &str,
) -> Result<Vec<(String, bool)>, DbErr> {
    let sql = "SELECT DISTINCT subject, is_newer FROM headwater_intent WHERE effect = ?";
    let rows = db.query_all_raw(statement(db, sql, [name.into()]))?;
    let subjects = rows
        .iter()
        .map(|row| Ok((row.try_get_by(0)?, row.try_get_by(1)?)));
    subjects.collect()
}

/// Holds the intents of the effect `name` for `subject`, or no longer.
pub(crate) fn hold(tx: &Tx, name: &str, subject: &str, is_newer: bool) -> Result<(), DbErr> {
    let sql = "UPDATE headwater_intent SET is_newer = ? WHERE effect = ? AND subject = ?";
    let values = [is_newer.into(), name.into(), subject.into()];
    tx.run_raw(statement(tx, sql, values))
}

fn entry(row: &QueryResult, name: &str) -> Result<Entry, DbErr> {
    let text = |column: &str| row.try_get_by::<String, _>(column);
    let id = EventId {
        source: text("source")?.into(),
        epoch: text("epoch")?.into(),
        position: unsigned(row.try_get_by("position")?),
    };
    let attempts: i64 = row.try_get_by("attempts")?;
    Ok(Entry {
        id: row.try_get_by("id")?,
        key: key(&id, name),
        attempts: usize::try_from(attempts).unwrap_or(usize::MAX),
        event: Envelope {
            source: id.source.clone(),
            subject: text("subject")?.into(),
            id: Some(id),
            sequence: None,
            payload: row.try_get_by::<Vec<u8>, _>("payload")?.into(),
            traceparent: row.try_get_by("traceparent")?,
        },
    })
}

/// What the effect `name` has not done.
pub(crate) fn waiting(db: &impl ConnectionTrait, name: &str, now: i64) -> Result<Waiting, DbErr> {
    let row = db.query_one_raw(statement(
        db,
        "SELECT count(*), count(nullif(attempts, 0)),
             min(iif(wanted_at <= ?2, wanted_at, NULL)),
             (SELECT failure FROM headwater_intent WHERE effect = ?1 AND attempts > 0
              ORDER BY id LIMIT 1),
             count(nullif(is_newer, 0)), min(iif(is_newer, subject, NULL))
         FROM headwater_intent WHERE effect = ?1",
        [name.into(), now.into()],
    ))?;
    row.map_or(Ok(Waiting::default()), |row| {
        Ok(Waiting {
            intents: unsigned(row.try_get_by(0)?),
            failed: unsigned(row.try_get_by(1)?),
            since: row.try_get_by(2)?,
            failure: row.try_get_by(3)?,
            newer: unsigned(row.try_get_by(4)?),
            newer_subject: row.try_get_by(5)?,
        })
    })
}

/// Removes the intent `id`, whose work is done.
pub(crate) fn done(tx: &Tx, name: &str, id: i64) -> Result<(), DbErr> {
    remove(tx, id)?;
    works_again(tx, name)
}

fn remove(tx: &Tx, id: i64) -> Result<(), DbErr> {
    let sql = "DELETE FROM headwater_intent WHERE id = ? RETURNING effect, key";
    if let Some(row) = tx.query_one_raw(statement(tx, sql, [id.into()]))? {
        let (effect, key) = (row.try_get_by::<String, _>(0)?, row.try_get_by(1)?);
        if let Some::<String>(key) = key {
            tx.run_raw(statement(tx, FREE_NEXT, [effect.into(), key.into()]))?;
        }
    }
    crash::point("effect.removed");
    Ok(())
}

/// Ends the time in which all attempts of the effect `name` failed.
pub(crate) fn works_again(tx: &Tx, name: &str) -> Result<(), DbErr> {
    let sql = "UPDATE headwater_effect SET failing_since = NULL
               WHERE name = ? AND failing_since IS NOT NULL";
    tx.run_raw(statement(tx, sql, [name.into()]))
}

/// Records a failed attempt of the effect `name`. Returns since when all attempts have failed, in
/// milliseconds since 1970.
pub(crate) fn fails(tx: &Tx, name: &str) -> Result<i64, DbErr> {
    let sql = "UPDATE headwater_effect SET failing_since = coalesce(failing_since, ?)
               WHERE name = ? RETURNING failing_since";
    let now = tx.now_ms();
    let row = tx.query_one_raw(statement(tx, sql, [now.into(), name.into()]))?;
    row.map_or(Ok(now), |row| row.try_get_by(0))
}

/// Whether the effect `name` has work that failed and is to be tried again.
pub(crate) fn any_failed(db: &impl ConnectionTrait, name: &str) -> Result<bool, DbErr> {
    let row = db.query_one_raw(statement(db, ANY_FAILED, [name.into()]))?;
    row.map_or(Ok(false), |row| row.try_get_by(0))
}

/// Postpones the intent `id`, which failed because of `reason`.
pub(crate) fn postpone(tx: &Tx, id: i64, after: Duration, reason: &str) -> Result<(), DbErr> {
    let due_at = later(tx.now_ms(), after);
    tx.run_raw(statement(
        tx,
        "UPDATE headwater_intent SET due_at = ?, attempts = attempts + 1, failure = ?
         WHERE id = ?",
        [due_at.into(), reason.into(), id.into()],
    ))
}

/// Makes `entry` of the effect `name` a dead letter.
pub(crate) fn give_up(
    tx: &Tx,
    name: &'static str,
    entry: &Entry,
    reason: &str,
) -> Result<(), DbErr> {
    let blocked_key = blocked_key(&entry.key);
    let why = NewLetter::at_fault(&blocked_key, reason);
    let source = entry.event.source.clone();
    dead_letter::insert(tx, name, &source, &entry.event, &why)?;
    remove(tx, entry.id)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use headwater_store::{Database, Snapshot};
    use headwater_telemetry::Clock;

    use super::*;

    /// Each look at a backlog, of one key or of many, costs as many steps as it finds intents.
    #[tokio::test]
    async fn a_look_at_the_ledger_reads_no_more_than_it_finds() {
        let folder = tempfile::tempdir().unwrap();
        let config = headwater_store::Config::at(folder.path().join("house.db"));
        let db = Database::open("house", &config, &[], Clock::system()).await;
        let db = db.unwrap();
        for (sql, values) in [(DUE, 3), (NEXT, 2), (FREE_NEXT, 2), (ANY_FAILED, 1)] {
            let explain = move |snapshot: &Snapshot| {
                let backend = snapshot.get_database_backend();
                let sql = format!("EXPLAIN QUERY PLAN {sql}");
                let values: Vec<Value> = (0..values).map(Value::from).collect();
                snapshot.query_all_raw(Statement::from_sql_and_values(backend, sql, values))
            };
            let rows = db.read(explain).await.unwrap();
            let plan: Vec<String> = rows
                .iter()
                .map(|row| row.try_get("", "detail").unwrap())
                .collect();
            for step in &plan {
                let is_search = step.starts_with("SEARCH") && !step.ends_with("(effect=?)")
                    || step.contains("headwater_intent_failed")
                    || step.starts_with("SCALAR SUBQUERY")
                    || step == "SCAN CONSTANT ROW";
                assert!(is_search, "{step} of {plan:#?}");
            }
        }
    }
}
