//! The tables of `users.db`.

use headwater::database::Tx;
use headwater::outbox;
use sea_orm::Set;
use sea_orm::entity::prelude::*;

use crate::user::{self, Registration, User};

#[expect(unreachable_pub, reason = "the derives make public types")]
pub(crate) mod row {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "user")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub name: String,
        pub email: String,
        pub email_key: String,
        pub password_hash: Option<String>,
        pub registered_at: i64,
        pub fingerprint: Vec<u8>,
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

impl From<row::Model> for User {
    fn from(row: row::Model) -> Self {
        Self {
            id: row.id,
            name: row.name,
            email: row.email,
            registered_at: events::timestamp(row.registered_at).to_string(),
        }
    }
}

pub(crate) fn find(db: &impl ConnectionTrait, id: Uuid) -> Result<Option<row::Model>, DbErr> {
    row::Entity::find_by_id(id).one(db)
}

pub(crate) fn find_erased(
    db: &impl ConnectionTrait,
    id: Uuid,
) -> Result<Option<erased::Model>, DbErr> {
    erased::Entity::find_by_id(id).one(db)
}

/// The user who logs in with an e-mail address.
pub(crate) fn find_login(
    db: &impl ConnectionTrait,
    email: &str,
) -> Result<Option<row::Model>, DbErr> {
    row::Entity::find()
        .filter(row::Column::EmailKey.eq(user::email_key(email)))
        .filter(row::Column::PasswordHash.is_not_null())
        .one(db)
}

pub(crate) fn insert(
    tx: &Tx,
    id: Uuid,
    registration: Registration,
    registered_at: i64,
    fingerprint: &[u8],
    position: u64,
) -> Result<row::Model, DbErr> {
    let row = row::Model {
        id,
        email_key: user::email_key(&registration.email),
        name: registration.name,
        email: registration.email,
        password_hash: registration.password_hash,
        registered_at,
        fingerprint: fingerprint.to_vec(),
        position: outbox::signed(position),
    };
    tx.run(&row::Entity::insert(row::ActiveModel {
        id: Set(row.id),
        name: Set(row.name.clone()),
        email: Set(row.email.clone()),
        email_key: Set(row.email_key.clone()),
        password_hash: Set(row.password_hash.clone()),
        registered_at: Set(row.registered_at),
        fingerprint: Set(row.fingerprint.clone()),
        position: Set(row.position),
    }))?;
    Ok(row)
}

/// Takes the user out and leaves that there was one.
pub(crate) fn erase(tx: &Tx, id: Uuid, position: u64) -> Result<(), DbErr> {
    row::Entity::delete_by_id(id).exec(tx)?;
    tx.run(&erased::Entity::insert(erased::ActiveModel {
        id: Set(id),
        position: Set(outbox::signed(position)),
    }))
}
