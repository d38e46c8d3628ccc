//! The ids of users and products that `orders` knows.

use headwater::database::Tx;
use headwater::{ApplyError, Envelope, Event as _, Projection};
use shop_events::{ProductCreated, ProductUpdated, UserErased, UserRegistered};

use crate::store;

/// Keeps the ids of users and products in this service's own tables.
#[derive(Debug)]
pub struct KnownIds;

impl Projection for KnownIds {
    const NAME: &'static str = "orders-catalogue";
    const VERSION: u32 = 1;
    const SOURCES: &'static [&'static str] = &["users", "products"];
    const TABLES: &'static [&'static str] = &["known_user", "known_product"];

    fn apply(&self, tx: &Tx, events: &[Envelope]) -> Result<(), ApplyError> {
        for event in events {
            match event.kind() {
                UserRegistered::SUBJECT => {
                    let id = shop_events::id(&event.decode::<UserRegistered>()?.user_id)?;
                    store::learn_user(tx, id)?;
                }
                UserErased::SUBJECT => {
                    let id = shop_events::id(&event.decode::<UserErased>()?.user_id)?;
                    store::forget_user(tx, id)?;
                }
                ProductCreated::SUBJECT => {
                    let id = shop_events::id(&event.decode::<ProductCreated>()?.product_id)?;
                    store::learn_product(tx, id)?;
                }
                // Only the product's existence matters here.
                ProductUpdated::SUBJECT => {
                    let id = shop_events::id(&event.decode::<ProductUpdated>()?.product_id)?;
                    store::learn_product(tx, id)?;
                }
                _ => return Err(ApplyError::unknown(event)),
            }
        }
        Ok(())
    }

    fn key(&self, event: &Envelope) -> Option<String> {
        shop_events::key(event)
    }
}
