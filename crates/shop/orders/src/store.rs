//! The tables of `orders.db`.

use headwater::database::{Bulk, Snapshot, Tx};
use headwater::{idempotency, outbox};
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::OnConflict;
use sea_orm::{DbBackend, QueryOrder, QuerySelect, QueryTrait as _, Set, Statement};

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

/// An order that is stored, whether it is still shown or not.
pub(crate) fn find(db: &impl ConnectionTrait, id: Uuid) -> Result<Option<order::Model>, DbErr> {
    order::Entity::find_by_id(id).one(db)
}

/// `order` unless its user was erased.
pub(crate) fn shown(
    db: &impl ConnectionTrait,
    order: Option<order::Model>,
) -> Result<Option<order::Model>, DbErr> {
    match order {
        Some(order) if !is_erased(db, order.user_id)? => Ok(Some(order)),
        _ => Ok(None),
    }
}

pub(crate) fn page_of_user(
    db: &impl ConnectionTrait,
    user: Uuid,
    start_after: Option<Uuid>,
    limit: usize,
) -> Result<Vec<Order>, DbErr> {
    if is_erased(db, user)? {
        return Ok(Vec::new());
    }
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

/// Whether the user was erased.
pub(crate) fn is_erased(db: &impl ConnectionTrait, id: Uuid) -> Result<bool, DbErr> {
    let user = known_user::Entity::find_by_id(id).one(db)?;
    Ok(user.is_some_and(|user| user.erased))
}

/// Leaves that there was a user, whose orders are not shown from now on; [`erase_part`] removes
/// them.
pub(crate) fn forget_user(tx: &Tx, id: Uuid) -> Result<(), DbErr> {
    let user = known_user::Entity::insert(known_user::ActiveModel {
        id: Set(id),
        erased: Set(true),
    });
    let known = OnConflict::column(known_user::Column::Id)
        .update_column(known_user::Column::Erased)
        .to_owned();
    tx.run(&user.on_conflict(known))?;
    tx.run_raw(sql(
        "INSERT OR IGNORE INTO erasing (user_id) VALUES (?)",
        [id.into()],
    ))
}

/// How many orders, and lines of them, of an erased user one transaction removes at most, so that
/// no write waits long for it: some 10 ms. One order always fits.
const ERASED_AT_ONCE: u32 = 100;
const LINES_ERASED_AT_ONCE: i64 = 1_000;

/// Whether orders of erased users are left.
pub(crate) fn is_erasing(db: &Snapshot) -> Result<bool, DbErr> {
    Ok(erasing(db)?.is_some())
}

/// Removes a part of what is left of one erased user: orders, their lines, and the answers that
/// are kept for their repetition.
pub(crate) fn erase_part(tx: &Tx) -> Result<(), DbErr> {
    let Some(user) = erasing(tx)? else {
        return Ok(());
    };
    let rows = tx.query_all_raw(sql(
        "SELECT id, (SELECT count(*) FROM order_line WHERE order_id = id) AS lines
         FROM placed_order WHERE user_id = ? ORDER BY id LIMIT ?",
        [user.into(), ERASED_AT_ONCE.into()],
    ))?;
    let (mut orders, mut lines): (Vec<Uuid>, i64) = (Vec::new(), 0);
    for row in &rows {
        lines += row.try_get_by::<i64, _>("lines")?;
        if lines > LINES_ERASED_AT_ONCE && !orders.is_empty() {
            break;
        }
        orders.push(row.try_get_by("id")?);
    }
    if orders.is_empty() {
        return tx.run_raw(sql("DELETE FROM erasing WHERE user_id = ?", [user.into()]));
    }
    ERASE.run(tx, orders.iter().map(|id| [(*id).into()]))?;
    idempotency::forget(tx, orders.iter().map(Uuid::to_string))
}

const ERASE: Bulk = Bulk {
    before: "DELETE FROM placed_order WHERE id IN (",
    row: "?",
    after: ")",
};

/// One of the users who are being erased.
fn erasing(db: &impl ConnectionTrait) -> Result<Option<Uuid>, DbErr> {
    let row = db.query_one_raw(sql("SELECT user_id FROM erasing LIMIT 1", []))?;
    row.map(|row| row.try_get_by("user_id")).transpose()
}

fn sql<const N: usize>(sql: &str, values: [Value; N]) -> Statement {
    Statement::from_sql_and_values(DbBackend::Sqlite, sql, values)
}

pub(crate) fn learn_product(tx: &Tx, id: Uuid) -> Result<(), DbErr> {
    let product = known_product::Entity::insert(known_product::ActiveModel { id: Set(id) });
    let known = OnConflict::column(known_product::Column::Id)
        .do_nothing()
        .to_owned();
    tx.run(&product.on_conflict(known))
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use axum::response::IntoResponse as _;
    use headwater::database::{Config, WriteError};
    use headwater::http::{Answer, Problem};
    use headwater::idempotency::Key;
    use headwater::{Clock, Database};

    use super::*;
    use crate::{MIGRATIONS, NAME, save};

    struct Shop {
        db: Database,
        config: Config,
        _folder: tempfile::TempDir,
    }

    impl Shop {
        async fn open() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let config = Config::at(folder.path().join("orders.db"));
            let opened = Database::open(NAME, &config, MIGRATIONS, Clock::system());
            Self {
                db: opened.await.unwrap(),
                config,
                _folder: folder,
            }
        }

        async fn restart(&mut self) {
            self.db.clone().close().await;
            let opened = Database::open(NAME, &self.config, MIGRATIONS, Clock::system());
            self.db = opened.await.unwrap();
        }

        /// The order `number` of a user, under a key of its own.
        async fn order(&self, user: Uuid, number: u128) -> Result<Answer, Problem> {
            let request = PlaceOrder {
                id: Some(Uuid::from_u128(number)),
                user_id: user,
                product_ids: vec![PRODUCT; 20],
            };
            let key = Key {
                scope: "POST /orders",
                text: Some(format!("order {number}")),
            };
            let written = self
                .db
                .write(move |tx| save(tx, &key, Uuid::from_u128(number), &request));
            match written.await {
                Ok(written) => Ok(written.value),
                Err(WriteError::Refused(problem)) => Err(problem),
                Err(error) => panic!("{error}"),
            }
        }

        async fn page(&self, user: Uuid) -> usize {
            let read = move |snapshot: &_| page_of_user(snapshot, user, None, 500);
            self.db.read(read).await.unwrap().len()
        }

        async fn is_shown(&self, number: u128) -> bool {
            let read = move |snapshot: &_| {
                let found = find(snapshot, Uuid::from_u128(number))?;
                Ok::<_, DbErr>(shown(snapshot, found)?.is_some())
            };
            self.db.read(read).await.unwrap()
        }

        /// Of orders, their lines, and the answers that are kept.
        async fn stored(&self) -> [i64; 3] {
            let count = |table: &'static str| {
                self.db.read(move |snapshot: &Snapshot| {
                    let row = snapshot.query_one_raw(sql(table, []))?.expect("a count");
                    row.try_get_by::<i64, _>("n")
                })
            };
            [
                count("SELECT count(*) AS n FROM placed_order")
                    .await
                    .unwrap(),
                count("SELECT count(*) AS n FROM order_line").await.unwrap(),
                count("SELECT count(answer) AS n FROM headwater_idempotency")
                    .await
                    .unwrap(),
            ]
        }
    }

    const PRODUCT: Uuid = Uuid::from_u128(1);

    #[tokio::test]
    async fn an_erased_users_orders_are_hidden_at_once_and_removed_in_parts() {
        let mut shop = Shop::open().await;
        let (ada, bob) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let learned = shop.db.write(move |tx| {
            learn_product(tx, PRODUCT)?;
            learn_user(tx, ada)?;
            learn_user(tx, bob)
        });
        learned.await.unwrap();
        for number in 1..=250 {
            shop.order(ada, number).await.unwrap();
        }
        shop.order(bob, 1_000).await.unwrap();
        shop.db.write(move |tx| forget_user(tx, ada)).await.unwrap();

        assert_eq!(
            shop.stored().await,
            [251, 251 * 20, 251],
            "it took a moment"
        );
        assert_eq!((shop.page(ada).await, shop.page(bob).await), (0, 1));
        assert!(!shop.is_shown(1).await && shop.is_shown(1_000).await);
        let repeated = shop.order(ada, 1).await.unwrap_err();
        assert_eq!(repeated.into_response().status(), StatusCode::GONE);

        let mut parts = 0;
        while shop.db.read(is_erasing).await.unwrap() {
            let [before, ..] = shop.stored().await;
            shop.db.write(erase_part).await.unwrap();
            let [after, ..] = shop.stored().await;
            assert!(
                before - after <= LINES_ERASED_AT_ONCE / 20,
                "{before} {after}"
            );
            parts += 1;
            shop.restart().await;
        }
        assert_eq!(parts, 6, "five of orders, and one that finds none");
        assert_eq!(shop.stored().await, [1, 20, 1]);
        let repeated = shop.order(ada, 1).await.unwrap_err();
        assert_eq!(repeated.into_response().status(), StatusCode::GONE);
    }
}
