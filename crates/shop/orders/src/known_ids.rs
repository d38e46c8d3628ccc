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

#[cfg(test)]
mod tests {
    use headwater_testkit::{converges, events};
    use uuid::Uuid;

    use super::*;
    use crate::MIGRATIONS;

    #[tokio::test]
    async fn the_order_in_which_users_and_products_come_makes_no_difference() {
        let id = |number| Uuid::from_u128(number).to_string();
        let registered = |user| UserRegistered {
            user_id: id(user),
            ..UserRegistered::default()
        };
        let updated = |product| ProductUpdated {
            product_id: id(product),
            ..ProductUpdated::default()
        };
        let created = ProductCreated {
            product_id: id(3),
            ..ProductCreated::default()
        };
        let erased = UserErased { user_id: id(1) };
        let events = events![
            registered(1),
            erased,
            registered(1),
            registered(2),
            created,
            updated(3),
            updated(4),
        ];
        converges(|| KnownIds, MIGRATIONS, events).check().await;
    }
}
