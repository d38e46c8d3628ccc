//! The tables of `users.db`.

use headwater::database::Tx;
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

/// A row that was decrypted.
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

/// The user; none either where the key was destroyed since this copy of the database was made.
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
    // What serde has to say of it may quote it.
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

/// The row of a user, also where the key was destroyed.
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

/// Whether there was a user whom [`find`] does not find any more.
pub(crate) fn is_erased(db: &impl ConnectionTrait, id: Uuid) -> Result<bool, DbErr> {
    Ok(erased_at(db, id)?.is_some() || find_encrypted(db, id)?.is_some())
}

/// Whether somebody logs in with an e-mail address.
pub(crate) fn is_login(db: &impl ConnectionTrait, keys: &Keys, email: &str) -> Result<bool, DbErr> {
    let row = find_login(db, &login(keys, email))?;
    row.map_or(Ok(false), |row| Ok(keys.find(row.key_slot)?.is_some()))
}

fn find_login(db: &impl ConnectionTrait, login: &[u8]) -> Result<Option<Row>, DbErr> {
    Row::find_by_statement(raw_sql!(Sqlite, "SELECT * FROM user WHERE login = {login}")).one(db)
}

/// What the e-mail address of a login is looked up by.
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
        // Erased since this copy of the database was made: the address is free.
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

/// Takes the user out and leaves that there was one.
pub(crate) fn erase(tx: &Tx, row: &Row, position: u64) -> Result<(), DbErr> {
    let position = outbox::signed(position);
    tx.run_raw(raw_sql!(Sqlite, "DELETE FROM user WHERE id = {row.id}"))?;
    personal::destroy(tx, row.key_slot)?;
    tx.run_raw(raw_sql!(
        Sqlite,
        "INSERT INTO erased_user (id, position) VALUES ({row.id}, {position})"
    ))
}

/// Rows of the old table that are read at a time.
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

/// Encrypts what an earlier version stored in clear text, and drops that.
pub(crate) fn encrypt_all(tx: &Tx) -> Result<(), DbErr> {
    // An id without a byte comes before all ids.
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
    // An earlier version took some for two addresses that are one now; the first by id keeps it.
    let is_taken = wants_login && is_login(tx, tx.keys(), &row.person.email)?;
    if is_taken {
        tracing::warn!(
            user.id = %row.id,
            "somebody else logs in with the user's e-mail address: erase one of them"
        );
    }
    let login = (wants_login && !is_taken).then(|| login(tx.keys(), &row.person.email));
    insert_encrypted(tx, &row, login)?;
    idempotency::seal_answers(tx, &row.id.to_string(), &row.key)
}
