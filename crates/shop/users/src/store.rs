//! The tables of `users.db`.

use headwater::database::{Snapshot, Tx};
use headwater::personal::{self, Keys};
use headwater::{idempotency, outbox};
use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, Value, raw_sql};
use uuid::Uuid;

use crate::user::{self, Person, User};

/// A row of `user`.
#[derive(Debug, FromQueryResult)]
pub(crate) struct Row {
    id: Uuid,
    key_slot: i64,
    person: Vec<u8>,
    fingerprint: Vec<u8>,
    registered_at: i64,
    position: i64,
}

/// A decrypted row.
#[derive(Debug)]
pub(crate) struct Registration {
    pub(crate) id: Uuid,
    pub(crate) person: Person,
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) registered_at: i64,
    pub(crate) position: i64,
    pub(crate) key: personal::Key,
}

impl From<&Registration> for User {
    fn from(row: &Registration) -> Self {
        Self {
            id: row.id,
            name: row.person.name.clone(),
            email: row.person.email.clone(),
            registered_at: shop_events::timestamp(row.registered_at).to_string(),
        }
    }
}

/// The user. `None` also if the key was destroyed after this copy of the database was made.
pub(crate) fn find(
    db: &impl ConnectionTrait,
    keys: &Keys,
    id: Uuid,
) -> Result<Option<Registration>, DbErr> {
    let row = find_encrypted(db, id)?;
    row.map(|row| decrypt(keys, &row))
        .transpose()
        .map(Option::flatten)
}

fn decrypt(keys: &Keys, row: &Row) -> Result<Option<Registration>, DbErr> {
    let Some(key) = keys.find(row.key_slot)? else {
        return Ok(None);
    };
    let about = row.id.as_bytes();
    // serde's own error could quote personal data.
    let person = serde_json::from_slice(&key.open(about, &row.person)?)
        .map_err(|_| DbErr::Json(format!("the person of user {} is not readable", row.id)))?;
    Ok(Some(Registration {
        id: row.id,
        person,
        fingerprint: key.open(about, &row.fingerprint)?,
        registered_at: row.registered_at,
        position: row.position,
        key,
    }))
}

/// The next `limit` users after `after`, sorted by id, with their names; `None` for a user whose key
/// was destroyed.
pub(crate) fn names(
    snapshot: &Snapshot,
    after: Option<Uuid>,
    limit: usize,
) -> Result<Vec<(Uuid, Option<String>)>, DbErr> {
    // The empty id sorts before all ids.
    let after = after.map(|id| id.into_bytes().to_vec()).unwrap_or_default();
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = Row::find_by_statement(raw_sql!(
        Sqlite,
        "SELECT * FROM user WHERE id > {after} ORDER BY id LIMIT {limit}"
    ));
    let name = |row: Row| {
        let found = decrypt(snapshot.keys(), &row)?;
        Ok((row.id, found.map(|found| found.person.name)))
    };
    rows.all(snapshot)?.into_iter().map(name).collect()
}

/// The row of a user, even if the key was destroyed.
pub(crate) fn find_encrypted(db: &impl ConnectionTrait, id: Uuid) -> Result<Option<Row>, DbErr> {
    Row::find_by_statement(raw_sql!(Sqlite, "SELECT * FROM user WHERE id = {id}")).one(db)
}

/// The position of the event that erased a user.
pub(crate) fn erased_at(db: &impl ConnectionTrait, id: Uuid) -> Result<Option<u64>, DbErr> {
    let row = db.query_one_raw(raw_sql!(
        Sqlite,
        "SELECT position FROM erased_user WHERE id = {id}"
    ))?;
    let position = row.map(|row| row.try_get_by_index(0)).transpose()?;
    Ok(position.map(outbox::unsigned))
}

/// Whether the user existed and is erased, so that [`find`] returns `None`.
pub(crate) fn is_erased(db: &impl ConnectionTrait, id: Uuid) -> Result<bool, DbErr> {
    Ok(erased_at(db, id)?.is_some() || find_encrypted(db, id)?.is_some())
}

/// Whether a user logs in with this e-mail address.
pub(crate) fn is_login(db: &impl ConnectionTrait, keys: &Keys, email: &str) -> Result<bool, DbErr> {
    let row = find_login(db, &login(keys, email))?;
    row.map_or(Ok(false), |row| Ok(keys.find(row.key_slot)?.is_some()))
}

fn find_login(db: &impl ConnectionTrait, login: &[u8]) -> Result<Option<Row>, DbErr> {
    Row::find_by_statement(raw_sql!(Sqlite, "SELECT * FROM user WHERE login = {login}")).one(db)
}

/// The lookup key of a login: a keyed hash of the e-mail address.
fn login(keys: &Keys, email: &str) -> Vec<u8> {
    keys.digest("users.login", user::email_key(email).as_bytes())
}

pub(crate) fn insert(
    tx: &Tx,
    id: Uuid,
    person: Person,
    registered_at: i64,
    fingerprint: &[u8],
    position: u64,
) -> Result<Registration, DbErr> {
    let row = Registration {
        id,
        person,
        fingerprint: fingerprint.to_vec(),
        registered_at,
        position: outbox::signed(position),
        key: personal::issue(tx)?,
    };
    let has_login = row.person.password_hash.is_some();
    let login = has_login.then(|| login(tx.keys(), &row.person.email));
    if let Some(login) = &login
        && let Some(other) = find_login(tx, login)?
        && tx.keys().find(other.key_slot)?.is_none()
    {
        // That user was erased after this copy of the database was made: the address is free.
        tx.run_raw(raw_sql!(
            Sqlite,
            "UPDATE user SET login = NULL WHERE id = {other.id}"
        ))?;
    }
    insert_encrypted(tx, &row, login)?;
    Ok(row)
}

fn insert_encrypted(tx: &Tx, row: &Registration, login: Option<Vec<u8>>) -> Result<(), DbErr> {
    let json = serde_json::to_vec(&row.person).expect("persons are plain data");
    let login = Value::from(login);
    let (about, key_slot) = (row.id.as_bytes(), row.key.slot());
    let person = row.key.seal(about, &json);
    let fingerprint = row.key.seal(about, &row.fingerprint);
    tx.run_raw(raw_sql!(
        Sqlite,
        "INSERT INTO user (id, key_slot, person, fingerprint, login, registered_at, position)
         VALUES ({row.id}, {key_slot}, {person}, {fingerprint}, {login}, {row.registered_at},
                 {row.position})"
    ))
}

/// Deletes the user, and records that there was one.
pub(crate) fn erase(tx: &Tx, row: &Row, position: u64) -> Result<(), DbErr> {
    let position = outbox::signed(position);
    tx.run_raw(raw_sql!(Sqlite, "DELETE FROM user WHERE id = {row.id}"))?;
    personal::destroy(tx, row.key_slot)?;
    tx.run_raw(raw_sql!(
        Sqlite,
        "INSERT INTO erased_user (id, position) VALUES ({row.id}, {position})"
    ))
}

/// Rows of the old table that are read at once.
const PAGE: u32 = 1_000;

/// A row of the table of an earlier version.
#[derive(FromQueryResult)]
struct ClearRow {
    id: Uuid,
    name: String,
    email: String,
    password_hash: Option<String>,
    fingerprint: Vec<u8>,
    registered_at: i64,
    position: i64,
}

/// Encrypts the rows that an earlier version stored in clear text, and drops their table.
pub(crate) fn encrypt_all(tx: &Tx) -> Result<(), DbErr> {
    // The empty id sorts before all ids.
    let mut after = Vec::new();
    loop {
        let page = ClearRow::find_by_statement(raw_sql!(
            Sqlite,
            "SELECT * FROM user_clear WHERE id > {after} ORDER BY id LIMIT {PAGE}"
        ));
        let page = page.all(tx)?;
        let Some(last) = page.last() else { break };
        after = last.id.into_bytes().to_vec();
        for row in page {
            encrypt(tx, row)?;
        }
    }
    tx.execute_unprepared("DROP TABLE user_clear").map(drop)
}

fn encrypt(tx: &Tx, row: ClearRow) -> Result<(), DbErr> {
    let row = Registration {
        id: row.id,
        person: Person {
            name: row.name,
            email: row.email,
            password_hash: row.password_hash,
        },
        fingerprint: row.fingerprint,
        registered_at: row.registered_at,
        position: row.position,
        key: personal::issue(tx)?,
    };
    let wants_login = row.person.password_hash.is_some();
    // Some addresses that differed in an earlier version are equal now: the lowest id keeps the
    // login.
    let is_taken = wants_login && is_login(tx, tx.keys(), &row.person.email)?;
    if is_taken {
        tracing::warn!(
            user.id = %row.id,
            "another user logs in with the same e-mail address, so this user cannot; erase one of them"
        );
    }
    let login = (wants_login && !is_taken).then(|| login(tx.keys(), &row.person.email));
    insert_encrypted(tx, &row, login)?;
    idempotency::seal_answers(tx, &row.id.to_string(), &row.key)
}
