//! Folds users, products and orders into the store.
//!
//! The three sources come in any order, so each event must find its place whatever is there
//! already: an order makes rows for a user and products that it only has the ids of, which their
//! own events fill in later; an erased user stays erased, whatever comes after.

use events::{OrderPlaced, ProductCreated, ProductUpdated, UserErased, UserRegistered};
use headwater::database::Tx;
use headwater::{ApplyError, Envelope, Event as _, Projection};

use super::store;

/// The projection of the read store.
#[derive(Debug)]
pub struct Purchases;

impl Projection for Purchases {
    const NAME: &'static str = "purchases";
    const VERSION: u32 = 1;
    const SOURCES: &'static [&'static str] = &["users", "products", "orders"];

    const CONTENT: &'static [(&'static str, &'static str)] = store::CONTENT;

    fn apply(&self, tx: &Tx, events: &[Envelope]) -> Result<(), ApplyError> {
        events.iter().try_for_each(|event| apply_one(tx, event))
    }

    fn key(&self, event: &Envelope) -> Option<String> {
        events::key(event)
    }
}

fn apply_one(tx: &Tx, event: &Envelope) -> Result<(), ApplyError> {
    match event.kind() {
        UserRegistered::SUBJECT => {
            let registered: UserRegistered = event.decode()?;
            store::register_user(tx, events::id(&registered.user_id)?)?;
        }
        UserErased::SUBJECT => {
            let erased: UserErased = event.decode()?;
            store::erase_user(tx, events::id(&erased.user_id)?)?;
        }
        ProductCreated::SUBJECT => {
            let product: ProductCreated = event.decode()?;
            let id = events::id(&product.product_id)?;
            store::save_product(tx, id, product.title, product.image)?;
        }
        ProductUpdated::SUBJECT => {
            let product: ProductUpdated = event.decode()?;
            let id = events::id(&product.product_id)?;
            store::save_product(tx, id, product.title, product.image)?;
        }
        OrderPlaced::SUBJECT => apply_order(tx, &event.decode()?)?,
        _ => return Err(ApplyError::unknown(event)),
    }
    Ok(())
}

fn apply_order(tx: &Tx, order: &OrderPlaced) -> Result<(), ApplyError> {
    let user = events::id(&order.user_id)?;
    // Ours always say when. A hand-made event may not: then it was before all others.
    let placed_at = order.placed_at.as_ref().map_or(0, events::millis);
    let products = order
        .product_ids
        .iter()
        .map(|id| events::id(id))
        .collect::<Result<Vec<_>, _>>()?;
    let Some(user) = store::shopper_number(tx, user)? else {
        return Ok(());
    };
    for product in products {
        let product = store::product_number(tx, product)?;
        store::save_purchase(tx, user, product, placed_at)?;
    }
    Ok(())
}
