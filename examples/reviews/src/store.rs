//! The tables of `reviews.db`.

use headwater::prelude::*;

use crate::review::Review;

/// A row of `review`.
#[derive(Debug, FromQueryResult)]
pub(crate) struct Row {
    pub(crate) id: Uuid,
    pub(crate) product_id: Uuid,
    pub(crate) stars: u32,
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) position: i64,
}

pub(crate) fn find(db: &impl ConnectionTrait, id: Uuid) -> Result<Option<Row>, DbErr> {
    Row::find_by_statement(raw_sql!(Sqlite, "SELECT * FROM review WHERE id = {id}")).one(db)
}

pub(crate) fn insert(
    tx: &Tx,
    review: &Review,
    fingerprint: &[u8],
    position: u64,
) -> Result<(), DbErr> {
    let position = outbox::signed(position);
    tx.run_raw(raw_sql!(
        Sqlite,
        "INSERT INTO review (id, product_id, stars, fingerprint, position)
         VALUES ({review.id}, {review.product_id}, {review.stars}, {fingerprint}, {position})"
    ))
}

impl From<Row> for Review {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            product_id: row.product_id,
            stars: row.stars,
        }
    }
}
