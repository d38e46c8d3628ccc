//! One idempotency key, one effect.
//!
//! A client that got no answer sends its command again under the same `Idempotency-Key` and gets
//! the first answer again, as long as the key is kept ([`KEPT`]). The key is written in the same
//! transaction as the command's effect, so there is no moment in which one is there without the
//! other. A refused command leaves no key: it had no effect, and may be sent again.
//!
//! The age of a key is the time that the service has run since, not a difference of two dates: a
//! machine's clock that jumps by a week would make all keys a week older at once.

use std::time::Duration;

use sea_orm::{ConnectionTrait, DbErr, QueryResult, Statement, Value};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::database::{Bulk, Tx};
use crate::http::Answer;

/// How long a key is kept, as time in which the service runs.
pub const KEPT: Duration = Duration::from_hours(7 * 24);

/// How many expired keys one new key clears away: more than one, so that they never pile up.
const CLEARED_AT_ONCE: u32 = 2;

/// A client's `Idempotency-Key`, within the kind of command it was sent with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The kind of command, such as `POST /orders`: two of them may use the same key.
    pub scope: &'static str,
    /// What the client sent; `None` where it sent none, and nothing is remembered.
    pub text: Option<String>,
}

/// A digest of a command, by which the same one is known again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint(pub Vec<u8>);

impl Fingerprint {
    /// The digest of the parsed command, so that white space and the order of fields do not
    /// count. Leave passwords out, hashed ones too: a command is known again by its key, and an
    /// answer that depends on a password tells whether a guess is right.
    ///
    /// # Panics
    /// When `command` cannot be written as JSON.
    pub fn of(command: &impl Serialize) -> Self {
        let json = serde_json::to_vec(command).expect("commands are plain data");
        Self(Sha256::digest(json).to_vec())
    }
}

/// Why a key was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refusal {
    /// The key came with another command before.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// What the key made was erased since.
    #[error("what the idempotency key made was erased")]
    Erased,
}

/// Runs `work` unless `key` was answered before: then that answer is given again.
///
/// `work` gives the answer and the id of the object it is about, for [`forget`].
///
/// # Errors
/// The database's, `work`'s, or a [`Refusal`].
pub fn once<E>(
    tx: &Tx,
    key: &Key,
    fingerprint: &Fingerprint,
    work: impl FnOnce() -> Result<(Answer, String), E>,
) -> Result<Answer, E>
where
    E: From<DbErr> + From<Refusal>,
{
    let Some(text) = key.text.as_deref() else {
        return Ok(work()?.0);
    };
    if let Some(answer) = earlier::<E>(tx, key, fingerprint)? {
        return Ok(answer);
    }
    let (answer, entity) = work()?;
    let json = serde_json::to_string(&answer).expect("answers are plain data");
    let now_ms = tx.age_ms(newest)?;
    tx.run_raw(Statement::from_sql_and_values(
        tx.get_database_backend(),
        "INSERT INTO headwater_idempotency (scope, key, fingerprint, entity, answer, recorded_at)
         VALUES (?, ?, ?, ?, ?, ?)",
        [
            key.scope.into(),
            text.into(),
            fingerprint.0.clone().into(),
            entity.into(),
            json.into(),
            now_ms.into(),
        ] as [Value; 6],
    ))?;
    clear_expired(tx, now_ms)?;
    Ok(answer)
}

/// Forgets the answers about objects that were erased, by their ids. Their keys stay, so that a late
/// retry does not make them again.
///
/// # Errors
/// The database's.
pub fn forget(
    tx: &Tx,
    entities: impl IntoIterator<Item = String, IntoIter: ExactSizeIterator>,
) -> Result<(), DbErr> {
    let rows = entities.into_iter().map(|entity| [entity.into()]);
    FORGET.run(tx, rows)
}

const FORGET: Bulk = Bulk {
    before: "UPDATE headwater_idempotency SET fingerprint = NULL, answer = NULL WHERE entity IN (",
    row: "?",
    after: ")",
};

/// The answer that the command was given before under this key: [`once`] without the work, for
/// those that want to know before they prepare something costly.
///
/// # Errors
/// The database's, or a [`Refusal`].
pub fn earlier<E>(
    db: &impl ConnectionTrait,
    key: &Key,
    fingerprint: &Fingerprint,
) -> Result<Option<Answer>, E>
where
    E: From<DbErr> + From<Refusal>,
{
    let Some(text) = key.text.as_deref() else {
        return Ok(None);
    };
    let Some(row) = find(db, key.scope, text)? else {
        return Ok(None);
    };
    Ok(Some(earlier_answer(&row, fingerprint)??))
}

fn find(db: &impl ConnectionTrait, scope: &str, key: &str) -> Result<Option<QueryResult>, DbErr> {
    db.query_one_raw(Statement::from_sql_and_values(
        db.get_database_backend(),
        "SELECT fingerprint, answer FROM headwater_idempotency WHERE scope = ? AND key = ?",
        [scope.into(), key.into()] as [Value; 2],
    ))
}

fn earlier_answer(
    row: &QueryResult,
    fingerprint: &Fingerprint,
) -> Result<Result<Answer, Refusal>, DbErr> {
    let before: Option<Vec<u8>> = row.try_get_by("fingerprint")?;
    let answer: Option<String> = row.try_get_by("answer")?;
    let (Some(before), Some(answer)) = (before, answer) else {
        return Ok(Err(Refusal::Erased));
    };
    if before != fingerprint.0 {
        return Ok(Err(Refusal::KeyReused));
    }
    serde_json::from_str(&answer)
        .map(Ok)
        .map_err(|error| DbErr::Json(error.to_string()))
}

/// When the newest key was recorded.
fn newest(tx: &Tx) -> Result<Option<i64>, DbErr> {
    let row = tx.query_one_raw(Statement::from_string(
        tx.get_database_backend(),
        "SELECT max(recorded_at) AS newest FROM headwater_idempotency",
    ))?;
    row.map_or(Ok(None), |row| row.try_get_by("newest"))
}

fn clear_expired(tx: &Tx, now_ms: i64) -> Result<(), DbErr> {
    let kept_ms = i64::try_from(KEPT.as_millis()).expect("a week in ms");
    tx.run_raw(Statement::from_sql_and_values(
        tx.get_database_backend(),
        "DELETE FROM headwater_idempotency WHERE (scope, key) IN
             (SELECT scope, key FROM headwater_idempotency
              WHERE recorded_at < ? ORDER BY recorded_at LIMIT ?)",
        [(now_ms - kept_ms).into(), CLEARED_AT_ONCE.into()] as [Value; 2],
    ))?;
    Ok(())
}
