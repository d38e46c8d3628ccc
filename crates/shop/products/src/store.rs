//! The tables of `products.db`.

use headwater::database::Tx;
use headwater::outbox;
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::OnConflict;
use sea_orm::{QueryOrder, QuerySelect, QueryTrait as _, Set};

use crate::image::ImageId;
use crate::product::Product;

#[expect(unreachable_pub, reason = "the derives make public types")]
pub(crate) mod product {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "product")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub title: String,
        pub image: String,
        pub fingerprint: Vec<u8>,
        pub position: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

#[expect(unreachable_pub, reason = "the derives make public types")]
pub(crate) mod image {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "image")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: String,
        pub content_type: String,
        pub bytes: Vec<u8>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

impl From<product::Model> for Product {
    fn from(row: product::Model) -> Self {
        Self {
            id: row.id,
            title: row.title,
            image: row.image,
        }
    }
}

pub(crate) fn find(db: &impl ConnectionTrait, id: Uuid) -> Result<Option<product::Model>, DbErr> {
    product::Entity::find_by_id(id).one(db)
}

pub(crate) fn find_all(
    db: &impl ConnectionTrait,
    ids: &[Uuid],
) -> Result<Vec<product::Model>, DbErr> {
    product::Entity::find()
        .filter(product::Column::Id.is_in(ids.iter().copied()))
        .order_by_asc(product::Column::Id)
        .all(db)
}

pub(crate) fn page(
    db: &impl ConnectionTrait,
    start_after: Option<Uuid>,
    limit: usize,
) -> Result<Vec<product::Model>, DbErr> {
    product::Entity::find()
        .apply_if(start_after, |rows, id| {
            rows.filter(product::Column::Id.gt(id))
        })
        .order_by_asc(product::Column::Id)
        .limit(limit as u64)
        .all(db)
}

pub(crate) fn insert(
    tx: &Tx,
    product: &Product,
    fingerprint: &[u8],
    position: u64,
) -> Result<(), DbErr> {
    tx.run(&product::Entity::insert(product::ActiveModel {
        id: Set(product.id),
        title: Set(product.title.clone()),
        image: Set(product.image.clone()),
        fingerprint: Set(fingerprint.to_vec()),
        position: Set(outbox::signed(position)),
    }))
}

pub(crate) fn update(tx: &Tx, product: &Product, position: u64) -> Result<(), DbErr> {
    product::Entity::update_many()
        .filter(product::Column::Id.eq(product.id))
        .set(product::ActiveModel {
            title: Set(product.title.clone()),
            image: Set(product.image.clone()),
            position: Set(outbox::signed(position)),
            ..Default::default()
        })
        .exec(tx)?;
    Ok(())
}

pub(crate) fn find_image(
    db: &impl ConnectionTrait,
    id: &ImageId,
) -> Result<Option<image::Model>, DbErr> {
    image::Entity::find_by_id(id.as_str()).one(db)
}

pub(crate) fn has_image(db: &impl ConnectionTrait, id: &ImageId) -> Result<bool, DbErr> {
    let count = image::Entity::find_by_id(id.as_str()).count(db)?;
    Ok(count > 0)
}

pub(crate) fn save_image(
    tx: &Tx,
    id: &ImageId,
    content_type: &str,
    bytes: Vec<u8>,
) -> Result<(), DbErr> {
    image::Entity::insert(image::ActiveModel {
        id: Set(id.as_str().to_owned()),
        content_type: Set(content_type.to_owned()),
        bytes: Set(bytes),
    })
    .on_conflict(
        OnConflict::column(image::Column::Id)
            .do_nothing()
            .to_owned(),
    )
    .exec_without_returning(tx)?;
    Ok(())
}
