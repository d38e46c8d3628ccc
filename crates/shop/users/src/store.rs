//! The tables of `users.db`.

use headwater::database::Tx;
use headwater::personal::{self, Keys};
use headwater::{idempotency, outbox};
use sea_orm::entity::prelude::*;
use sea_orm::{DbBackend, Set, Statement};

use crate::user::{self, Person, User};

#[expect(unreachable_pub, reason = "the derives make public types")]
pub(crate) mod row {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "user")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub key_slot: i64,
        pub person: Vec<u8>,
        pub fingerprint: Vec<u8>,
        pub login: Option<Vec<u8>>,
        pub registered_at: i64,
        pub position: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

#[expect(unreachable_pub, reason = "the derives make public types")]
pub(crate) mod erased {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "erased_user")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub position: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
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

fn decrypt(keys: &Keys, row: &row::Model) -> Result<Option<Registration>, DbErr> {
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
pub(crate) fn find_encrypted(
    db: &impl ConnectionTrait,
    id: Uuid,
) -> Result<Option<row::Model>, DbErr> {
    row::Entity::find_by_id(id).one(db)
}

pub(crate) fn find_erased(
    db: &impl ConnectionTrait,
    id: Uuid,
) -> Result<Option<erased::Model>, DbErr> {
    erased::Entity::find_by_id(id).one(db)
}

/// Whether there was a user whom [`find`] does not find any more.
pub(crate) fn is_erased(db: &impl ConnectionTrait, id: Uuid) -> Result<bool, DbErr> {
    Ok(find_erased(db, id)?.is_some() || find_encrypted(db, id)?.is_some())
}

/// Whether somebody logs in with an e-mail address.
pub(crate) fn is_login(db: &impl ConnectionTrait, keys: &Keys, email: &str) -> Result<bool, DbErr> {
    let row = find_login(db, &login(keys, email))?;
    row.map_or(Ok(false), |row| Ok(keys.find(row.key_slot)?.is_some()))
}

fn find_login(db: &impl ConnectionTrait, login: &[u8]) -> Result<Option<row::Model>, DbErr> {
    row::Entity::find()
        .filter(row::Column::Login.eq(login))
        .one(db)
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
        tx.run_raw(sql(
            "UPDATE user SET login = NULL WHERE id = ?",
            [other.id.into()],
        ))?;
    }
    insert_encrypted(tx, &row, login)?;
    Ok(row)
}

fn insert_encrypted(tx: &Tx, row: &Registration, login: Option<Vec<u8>>) -> Result<(), DbErr> {
    let json = serde_json::to_vec(&row.person).expect("persons are plain data");
    let about = row.id.as_bytes();
    tx.run(&row::Entity::insert(row::ActiveModel {
        id: Set(row.id),
        key_slot: Set(row.key.slot()),
        person: Set(row.key.seal(about, &json)),
        fingerprint: Set(row.key.seal(about, &row.fingerprint)),
        login: Set(login),
        registered_at: Set(row.registered_at),
        position: Set(row.position),
    }))
}

/// Takes the user out and leaves that there was one.
pub(crate) fn erase(tx: &Tx, row: &row::Model, position: u64) -> Result<(), DbErr> {
    row::Entity::delete_by_id(row.id).exec(tx)?;
    personal::destroy(tx, row.key_slot)?;
    tx.run(&erased::Entity::insert(erased::ActiveModel {
        id: Set(row.id),
        position: Set(outbox::signed(position)),
    }))
}

/// Rows of the old table that are read at a time.
const PAGE: u32 = 1_000;

/// Encrypts what an earlier version stored in clear text, and drops that.
pub(crate) fn encrypt_all(tx: &Tx) -> Result<(), DbErr> {
    let mut after = Vec::new();
    loop {
        let page = tx.query_all_raw(sql(
            "SELECT id, name, email, password_hash, fingerprint, registered_at, position
             FROM user_clear WHERE id > ? ORDER BY id LIMIT ?",
            [after.into(), PAGE.into()],
        ))?;
        for row in &page {
            encrypt(tx, row)?;
        }
        let Some(last) = page.last() else { break };
        after = last.try_get_by("id")?;
    }
    tx.execute_unprepared("DROP TABLE user_clear").map(drop)
}

fn encrypt(tx: &Tx, row: &QueryResult) -> Result<(), DbErr> {
    let row = Registration {
        id: row.try_get_by("id")?,
        person: Person {
            name: row.try_get_by("name")?,
            email: row.try_get_by("email")?,
            password_hash: row.try_get_by("password_hash")?,
        },
        fingerprint: row.try_get_by("fingerprint")?,
        registered_at: row.try_get_by("registered_at")?,
        position: row.try_get_by("position")?,
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

fn sql<const N: usize>(sql: &str, values: [Value; N]) -> Statement {
    Statement::from_sql_and_values(DbBackend::Sqlite, sql, values)
}
