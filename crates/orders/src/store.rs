//! The tables of `orders.db`.

use headwater::database::Tx;
use headwater::{idempotency, outbox};
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::OnConflict;
use sea_orm::{QueryOrder, QuerySelect, QueryTrait as _, Set};

use crate::order::{Known, Order, PlaceOrder};

#[expect(unreachable_pub, reason = "the derives make public types")]
pub(crate) mod order {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "placed_order")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub user_id: Uuid,
        pub placed_at: i64,
        pub fingerprint: Vec<u8>,
        pub position: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

#[expect(unreachable_pub, reason = "the derives make public types")]
mod line {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "order_line")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub order_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub line: u32,
        pub product_id: Uuid,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

#[expect(unreachable_pub, reason = "the derives make public types")]
mod known_user {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "known_user")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub erased: bool,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

#[expect(unreachable_pub, reason = "the derives make public types")]
mod known_product {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "known_product")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// What of the request's ids is known.
pub(crate) fn known(db: &impl ConnectionTrait, request: &PlaceOrder) -> Result<Known, DbErr> {
    let user = known_user::Entity::find_by_id(request.user_id).one(db)?;
    let products = known_product::Entity::find()
        .filter(known_product::Column::Id.is_in(request.product_ids.iter().copied()))
        .order_by_asc(known_product::Column::Id)
        .all(db)?;
    Ok(Known {
        user: user.is_some_and(|user| !user.erased),
        products: products.into_iter().map(|product| product.id).collect(),
    })
}

pub(crate) fn find(db: &impl ConnectionTrait, id: Uuid) -> Result<Option<order::Model>, DbErr> {
    order::Entity::find_by_id(id).one(db)
}

pub(crate) fn page_of_user(
    db: &impl ConnectionTrait,
    user: Uuid,
    start_after: Option<Uuid>,
    limit: usize,
) -> Result<Vec<Order>, DbErr> {
    let rows = order::Entity::find()
        .filter(order::Column::UserId.eq(user))
        .apply_if(start_after, |rows, id| {
            rows.filter(order::Column::Id.gt(id))
        })
        .order_by_asc(order::Column::Id)
        .limit(limit as u64)
        .all(db)?;
    with_lines(db, rows)
}

/// The orders of `rows`, each with its lines, in the same order.
pub(crate) fn with_lines(
    db: &impl ConnectionTrait,
    rows: Vec<order::Model>,
) -> Result<Vec<Order>, DbErr> {
    let mut lines = line::Entity::find()
        .filter(line::Column::OrderId.is_in(rows.iter().map(|row| row.id)))
        .order_by_asc(line::Column::OrderId)
        .order_by_asc(line::Column::Line)
        .all(db)?
        .into_iter()
        .fold(
            std::collections::HashMap::<Uuid, Vec<Uuid>>::new(),
            |mut lines, line| {
                lines
                    .entry(line.order_id)
                    .or_default()
                    .push(line.product_id);
                lines
            },
        );
    Ok(rows
        .into_iter()
        .map(|row| Order {
            id: row.id,
            user_id: row.user_id,
            product_ids: lines.remove(&row.id).unwrap_or_default(),
            placed_at: row.placed_at,
        })
        .collect())
}

pub(crate) fn insert(
    tx: &Tx,
    order: &Order,
    fingerprint: &[u8],
    position: u64,
) -> Result<(), DbErr> {
    tx.run(&order::Entity::insert(order::ActiveModel {
        id: Set(order.id),
        user_id: Set(order.user_id),
        placed_at: Set(order.placed_at),
        fingerprint: Set(fingerprint.to_vec()),
        position: Set(outbox::signed(position)),
    }))?;
    let lines = (0..)
        .zip(&order.product_ids)
        .map(|(line, product)| line::ActiveModel {
            order_id: Set(order.id),
            line: Set(line),
            product_id: Set(*product),
        });
    tx.run(&line::Entity::insert_many(lines))
}

/// A user who was erased stays so: a registration that comes again does not bring them back.
pub(crate) fn learn_user(tx: &Tx, id: Uuid) -> Result<(), DbErr> {
    let user = known_user::Entity::insert(known_user::ActiveModel {
        id: Set(id),
        erased: Set(false),
    });
    let known = OnConflict::column(known_user::Column::Id)
        .do_nothing()
        .to_owned();
    tx.run(&user.on_conflict(known))
}

/// Takes out the user's orders and leaves that there was one.
pub(crate) fn forget_user(tx: &Tx, id: Uuid) -> Result<(), DbErr> {
    let user = known_user::Entity::insert(known_user::ActiveModel {
        id: Set(id),
        erased: Set(true),
    });
    let known = OnConflict::column(known_user::Column::Id)
        .update_column(known_user::Column::Erased)
        .to_owned();
    tx.run(&user.on_conflict(known))?;
    let orders = order::Entity::find()
        .filter(order::Column::UserId.eq(id))
        .all(tx)?;
    for order in orders {
        order::Entity::delete_by_id(order.id).exec(tx)?;
        idempotency::forget(tx, &order.id.to_string())?;
    }
    Ok(())
}

pub(crate) fn learn_product(tx: &Tx, id: Uuid) -> Result<(), DbErr> {
    let product = known_product::Entity::insert(known_product::ActiveModel { id: Set(id) });
    let known = OnConflict::column(known_product::Column::Id)
        .do_nothing()
        .to_owned();
    tx.run(&product.on_conflict(known))
}
