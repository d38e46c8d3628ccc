//! One idempotency key, one effect.
//!
//! A client that got no answer sends its command again with the same `Idempotency-Key` and gets
//! the first answer, as long as the key is kept ([`KEPT`]). The key is written in the same
//! transaction as the command's effect, so one never exists without the other. A refused command
//! leaves no key: it had no effect and may be sent again.
//!
//! The text of a key is not stored, only its [keyed hash](crate::keys::Keys::digest). The same is
//! true of the command's fingerprint. An answer about a person is encrypted with their key.
//!
//! The age of a key is the running time of the service since then, not a difference of two dates:
//! a clock that jumps by a week would otherwise age all keys by a week at once.

use std::time::Duration;

use sea_orm::{ConnectionTrait, DbErr, QueryResult, Statement, Value};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use crate::bulk::Bulk;
use crate::keys::{self, Keys};
use crate::transaction::Tx;

/// How long a key is kept, in running time of the service.
pub const KEPT: Duration = Duration::from_hours(7 * 24);

/// How many expired keys each new key removes: more than one, so that they never pile up.
const CLEARED_AT_ONCE: u32 = 2;

/// A client's `Idempotency-Key`, scoped to a kind of command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The kind of command, such as `POST /orders`. Different kinds may use the same key.
    pub scope: &'static str,
    /// The key that the client sent. If `None`, nothing is stored.
    pub text: Option<String>,
}

/// The object that a command created.
#[derive(Debug)]
pub struct Made {
    entity: String,
    key: Option<keys::Key>,
}

impl Made {
    /// A person; the answer is stored encrypted with their `key`.
    pub fn person(id: String, key: keys::Key) -> Self {
        Self {
            entity: id,
            key: Some(key),
        }
    }
}

/// The id of an object without personal data.
impl From<String> for Made {
    fn from(entity: String) -> Self {
        Self { entity, key: None }
    }
}

/// A digest that identifies a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint(pub Vec<u8>);

impl Fingerprint {
    /// The digest of the parsed command, so that white space and the order of fields do not
    /// matter. Leave out passwords, even hashed: the key identifies the command, and an answer
    /// that depends on a password reveals whether a guess is right.
    ///
    /// # Panics
    /// If `command` cannot be serialized as JSON.
    pub fn of(command: &impl Serialize) -> Self {
        let json = serde_json::to_vec(command).expect("commands are plain data");
        Self(Sha256::digest(json).to_vec())
    }
}

/// Why a key was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refusal {
    /// The key was used with another command before.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// The object that the command created was erased since.
    #[error("the object that was created with the idempotency key was erased")]
    Erased,
}

/// Runs `work`, unless `key` was answered before: then returns that answer.
///
/// `work` returns the answer and the object it is about: an id, for [`forget`], or a
/// [person](Made::person).
///
/// # Errors
/// A database error, the error of `work`, or a [`Refusal`].
pub fn once<A, E, M>(
    tx: &Tx,
    key: &Key,
    fingerprint: &Fingerprint,
    work: impl FnOnce() -> Result<(A, M), E>,
) -> Result<A, E>
where
    A: Serialize + DeserializeOwned,
    E: From<DbErr> + From<Refusal>,
    M: Into<Made>,
{
    let Some(text) = key.text.as_deref() else {
        return Ok(work()?.0);
    };
    if let Some(answer) = earlier::<A, E>(tx, tx.keys(), key, fingerprint)? {
        return Ok(answer);
    }
    let (answer, made) = work()?;
    let hash = hash(tx.keys(), text);
    let json = serde_json::to_vec(&answer).expect("answers are plain data");
    let now_ms = tx.age_ms(newest)?;
    let Made {
        entity,
        key: person,
    } = made.into();
    let seal = |text: Vec<u8>| match &person {
        Some(person) => person.seal(&hash, &text),
        None => text,
    };
    insert(
        tx,
        [
            key.scope.into(),
            hash.clone().into(),
            seal(keyed(tx.keys(), fingerprint)).into(),
            entity.into(),
            seal(json).into(),
            person.as_ref().map(keys::Key::slot).into(),
            now_ms.into(),
        ],
    )?;
    clear_expired(tx, now_ms)?;
    Ok(answer)
}

fn insert(tx: &Tx, row: [Value; 7]) -> Result<(), DbErr> {
    tx.run_raw(Statement::from_sql_and_values(
        tx.get_database_backend(),
        "INSERT INTO headwater_idempotency
             (scope, key, fingerprint, entity, answer, key_slot, recorded_at)
         VALUES (?, ?, ?, ?, ?, ?, ?)",
        row,
    ))
}

/// The keyed hash that is stored in place of the key's text.
fn hash(keys: &Keys, text: &str) -> Vec<u8> {
    keys.digest("headwater.idempotency.key", text.as_bytes())
}

/// The keyed hash of a fingerprint.
fn keyed(keys: &Keys, fingerprint: &Fingerprint) -> Vec<u8> {
    keys.digest("headwater.idempotency.fingerprint", &fingerprint.0)
}

/// Deletes the answers about erased objects, by the objects' ids. The keys stay, so that a late
/// retry does not create the objects again.
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

/// The earlier answer to this command under this key: [`once`] without the work, to check before
/// preparing something costly.
///
/// # Errors
/// A database error, or a [`Refusal`].
pub fn earlier<A, E>(
    db: &impl ConnectionTrait,
    keys: &Keys,
    key: &Key,
    fingerprint: &Fingerprint,
) -> Result<Option<A>, E>
where
    A: DeserializeOwned,
    E: From<DbErr> + From<Refusal>,
{
    let Some(text) = key.text.as_deref() else {
        return Ok(None);
    };
    let hash = hash(keys, text);
    let Some(row) = find(db, key.scope, &hash)? else {
        return Ok(None);
    };
    Ok(Some(earlier_answer(keys, &hash, &row, fingerprint)??))
}

/// Encrypts the answers about a person that are stored in clear text, with their `key`. For the
/// [step](crate::migration::Step) of a migration.
pub fn seal_answers(tx: &Tx, entity: &str, key: &keys::Key) -> Result<(), DbErr> {
    let rows = tx.query_all_raw(Statement::from_sql_and_values(
        tx.get_database_backend(),
        "SELECT scope, key, fingerprint, answer FROM headwater_idempotency
         WHERE entity = ? AND answer IS NOT NULL AND key_slot IS NULL",
        [entity.into()] as [Value; 1],
    ))?;
    for row in rows {
        let (scope, hash): (String, Vec<u8>) = (row.try_get_by("scope")?, row.try_get_by("key")?);
        let seal = |column: &str| {
            let text: Option<Vec<u8>> = row.try_get_by(column)?;
            Ok::<_, DbErr>(text.map(|text| key.seal(&hash, &text)))
        };
        tx.run_raw(Statement::from_sql_and_values(
            tx.get_database_backend(),
            "UPDATE headwater_idempotency SET fingerprint = ?, answer = ?, key_slot = ?
             WHERE scope = ? AND key = ?",
            [
                seal("fingerprint")?.into(),
                seal("answer")?.into(),
                key.slot().into(),
                scope.into(),
                hash.clone().into(),
            ] as [Value; 5],
        ))?;
    }
    Ok(())
}

/// The number of rows read at a time.
const PAGE: u32 = 1_000;

/// Replaces the keys that an earlier version stored in clear text with their hashes, and drops the
/// clear text.
pub(crate) fn hash_clear_keys(tx: &Tx) -> Result<(), DbErr> {
    let query = |sql: &str, values: [Value; 3]| {
        tx.query_all_raw(Statement::from_sql_and_values(
            tx.get_database_backend(),
            sql,
            values,
        ))
    };
    let exists = Statement::from_string(
        tx.get_database_backend(),
        "SELECT 1 FROM sqlite_schema WHERE name = 'headwater_idempotency_clear'",
    );
    if tx.query_one_raw(exists)?.is_none() {
        return Ok(());
    }
    let mut after = (String::new(), String::new());
    loop {
        let page = query(
            "SELECT scope, key, fingerprint, entity, answer, recorded_at
             FROM headwater_idempotency_clear WHERE (scope, key) > (?, ?)
             ORDER BY scope, key LIMIT ?",
            [after.0.into(), after.1.into(), PAGE.into()],
        )?;
        for row in &page {
            let key: String = row.try_get_by("key")?;
            let fingerprint: Option<Vec<u8>> = row.try_get_by("fingerprint")?;
            let answer: Option<String> = row.try_get_by("answer")?;
            insert(
                tx,
                [
                    row.try_get_by::<String, _>("scope")?.into(),
                    hash(tx.keys(), &key).into(),
                    fingerprint
                        .map(|it| keyed(tx.keys(), &Fingerprint(it)))
                        .into(),
                    row.try_get_by::<String, _>("entity")?.into(),
                    answer.map(String::into_bytes).into(),
                    None::<i64>.into(),
                    row.try_get_by::<i64, _>("recorded_at")?.into(),
                ],
            )?;
        }
        let Some(last) = page.last() else { break };
        after = (last.try_get_by("scope")?, last.try_get_by("key")?);
    }
    tx.execute_unprepared("DROP TABLE headwater_idempotency_clear")?;
    Ok(())
}

fn find(db: &impl ConnectionTrait, scope: &str, hash: &[u8]) -> Result<Option<QueryResult>, DbErr> {
    db.query_one_raw(Statement::from_sql_and_values(
        db.get_database_backend(),
        "SELECT fingerprint, answer, key_slot FROM headwater_idempotency
         WHERE scope = ? AND key = ?",
        [scope.into(), hash.into()] as [Value; 2],
    ))
}

fn earlier_answer<A: DeserializeOwned>(
    keys: &Keys,
    hash: &[u8],
    row: &QueryResult,
    fingerprint: &Fingerprint,
) -> Result<Result<A, Refusal>, DbErr> {
    let before: Option<Vec<u8>> = row.try_get_by("fingerprint")?;
    let answer: Option<Vec<u8>> = row.try_get_by("answer")?;
    let slot: Option<i64> = row.try_get_by("key_slot")?;
    let (Some(mut before), Some(mut answer)) = (before, answer) else {
        return Ok(Err(Refusal::Erased));
    };
    if let Some(slot) = slot {
        let Some(person) = keys.find(slot)? else {
            return Ok(Err(Refusal::Erased));
        };
        before = person.open(hash, &before)?;
        answer = person.open(hash, &answer)?;
    }
    if before != keyed(keys, fingerprint) {
        return Ok(Err(Refusal::KeyReused));
    }
    // Serde's message may quote the answer.
    serde_json::from_slice(&answer)
        .map(Ok)
        .map_err(|_| DbErr::Json("the stored answer of an idempotency key is invalid".to_owned()))
}

/// The time of the newest key.
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
