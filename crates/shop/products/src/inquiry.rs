//! The question that other services may ask over the bus: what do products look like?

use headwater::database::Snapshot;
use headwater::request_reply::Refusal;
use shop_events::inquiry::PRODUCTS_MAX;
use shop_events::{Product, ProductsAnswered, ProductsAsked};

use crate::store;

pub(crate) fn products(
    snapshot: &Snapshot,
    asked: &ProductsAsked,
    _room: usize,
) -> Result<ProductsAnswered, Refusal> {
    if asked.product_ids.len() > PRODUCTS_MAX {
        let text = format!("ask for at most {PRODUCTS_MAX} products at once");
        return Err(Refusal::Malformed(text));
    }
    let ids = asked.product_ids.iter().map(|id| shop_events::id(id));
    let rows = store::find_all(snapshot, &ids.collect::<Result<Vec<_>, _>>()?)?;
    let products = rows.into_iter().map(|row| Product {
        product_id: row.id.to_string(),
        title: row.title,
        image: row.image,
    });
    Ok(ProductsAnswered {
        products: products.collect(),
    })
}
