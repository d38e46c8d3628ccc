//! The ids of users and products that `orders` knows.

use headwater::database::Tx;
use headwater::{ApplyError, Envelope, Projection};
use shop_events::{ProductsEvent, UsersEvent};

use crate::store;

/// Keeps the ids of users and products in this service's own tables.
#[derive(Debug)]
pub struct KnownIds;

impl Projection for KnownIds {
    const NAME: &'static str = "orders-catalogue";
    const VERSION: u32 = 1;
    const SOURCES: &'static [&'static str] = &["users", "products"];
    const EVENTS: &'static [&'static [&'static str]] =
        &[UsersEvent::SUBJECTS, ProductsEvent::SUBJECTS];
    const TABLES: &'static [&'static str] = &["known_user", "known_product"];

    fn apply(&self, tx: &Tx, events: &[Envelope]) -> Result<(), ApplyError> {
        for event in events {
            if &*event.source == UsersEvent::SOURCE {
                match event.try_into()? {
                    UsersEvent::Registered(user) => {
                        store::learn_user(tx, shop_events::id(&user.user_id)?)?;
                    }
                    UsersEvent::Erased(user) => {
                        store::forget_user(tx, shop_events::id(&user.user_id)?)?;
                    }
                }
            } else {
                // Only the product's existence matters here.
                let product = ProductsEvent::try_from(event)?;
                store::learn_product(tx, shop_events::id(product.key())?)?;
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
    use shop_events::{ProductCreated, ProductUpdated, UserErased, UserRegistered};
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
