//! The tables of `products.db`.

use headwater::database::Tx;
use headwater::outbox;
use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, raw_sql};
use uuid::Uuid;

use crate::image::ImageId;
use crate::product::Product;

/// A row of `product`.
#[derive(Debug, FromQueryResult)]
pub(crate) struct Row {
    pub(crate) id: Uuid,
    pub(crate) title: String,
    pub(crate) image: String,
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) position: i64,
}

/// A row of `image`.
#[derive(Debug, FromQueryResult)]
pub(crate) struct ImageRow {
    pub(crate) content_type: String,
    pub(crate) bytes: Vec<u8>,
}

impl From<Row> for Product {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            title: row.title,
            image: row.image,
        }
    }
}

pub(crate) fn find(db: &impl ConnectionTrait, id: Uuid) -> Result<Option<Row>, DbErr> {
    Row::find_by_statement(raw_sql!(Sqlite, "SELECT * FROM product WHERE id = {id}")).one(db)
}

pub(crate) fn find_all(db: &impl ConnectionTrait, ids: &[Uuid]) -> Result<Vec<Row>, DbErr> {
    Row::find_by_statement(raw_sql!(
        Sqlite,
        "SELECT * FROM product WHERE id IN ({..ids}) ORDER BY id"
    ))
    .all(db)
}

pub(crate) fn page(
    db: &impl ConnectionTrait,
    start_after: Option<Uuid>,
    limit: usize,
) -> Result<Vec<Row>, DbErr> {
    // The empty id sorts before all ids.
    let start_after = start_after.map_or(Vec::new(), |id| id.into_bytes().to_vec());
    let limit = limit as u64;
    Row::find_by_statement(raw_sql!(
        Sqlite,
        "SELECT * FROM product WHERE id > {start_after} ORDER BY id LIMIT {limit}"
    ))
    .all(db)
}

pub(crate) fn insert(
    tx: &Tx,
    product: &Product,
    fingerprint: &[u8],
    position: u64,
) -> Result<(), DbErr> {
    let position = outbox::signed(position);
    tx.run_raw(raw_sql!(
        Sqlite,
        "INSERT INTO product (id, title, image, fingerprint, position)
         VALUES ({product.id}, {product.title}, {product.image}, {fingerprint}, {position})"
    ))
}

pub(crate) fn update(tx: &Tx, product: &Product, position: u64) -> Result<(), DbErr> {
    let position = outbox::signed(position);
    tx.run_raw(raw_sql!(
        Sqlite,
        "UPDATE product SET title = {product.title}, image = {product.image}, position = {position}
         WHERE id = {product.id}"
    ))
}

pub(crate) fn find_image(
    db: &impl ConnectionTrait,
    id: &ImageId,
) -> Result<Option<ImageRow>, DbErr> {
    let id = id.as_str();
    ImageRow::find_by_statement(raw_sql!(
        Sqlite,
        "SELECT content_type, bytes FROM image WHERE id = {id}"
    ))
    .one(db)
}

pub(crate) fn has_image(db: &impl ConnectionTrait, id: &ImageId) -> Result<bool, DbErr> {
    let id = id.as_str();
    let row = db.query_one_raw(raw_sql!(Sqlite, "SELECT 1 FROM image WHERE id = {id}"))?;
    Ok(row.is_some())
}

pub(crate) fn save_image(
    tx: &Tx,
    id: &ImageId,
    content_type: &str,
    bytes: &[u8],
) -> Result<(), DbErr> {
    let id = id.as_str();
    tx.run_raw(raw_sql!(
        Sqlite,
        "INSERT OR IGNORE INTO image (id, content_type, bytes)
         VALUES ({id}, {content_type}, {bytes})"
    ))
}
