//! Applies the events of users, products and orders to the store.
//!
//! The events of the three sources may interleave in any order, so each event must apply to any
//! state. An order inserts rows for an unknown user and unknown products, with their ids only; the
//! events of users and products complete these rows later. An erased user stays erased, whatever
//! follows.
//!
//! A batch is gathered first and then saved at once, because a row in a large statement costs a
//! fraction of a separate statement. The result is the same as for one event after another: a
//! product has its last title, a purchase its earliest and its latest time and the number of its
//! orders, a user the last state, and an erased user has no purchases, even if the order comes after
//! the erasure.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use headwater::database::Tx;
use headwater::{ApplyError, Envelope, Projection};
use sea_orm::DbErr;
use shop_events::{OrderPlaced, OrdersEvent, ProductsEvent, UsersEvent, id};
use uuid::Uuid;

use super::store::{self, Line, UserState};

/// The projection of the read store.
#[derive(Debug)]
pub struct Purchases;

impl Projection for Purchases {
    const NAME: &'static str = "purchases";
    const VERSION: u32 = 2;
    const SOURCES: &'static [&'static str] = &["users", "products", "orders"];
    const EVENTS: &'static [&'static [&'static str]] = &[
        UsersEvent::SUBJECTS,
        ProductsEvent::SUBJECTS,
        OrdersEvent::SUBJECTS,
    ];
    const CONTENT: &'static [(&'static str, &'static str)] = store::CONTENT;

    fn apply(&self, tx: &Tx, events: &[Envelope]) -> Result<(), ApplyError> {
        let mut changes = Changes::default();
        for event in events {
            changes.gather(event)?;
        }
        Ok(changes.save(tx)?)
    }

    fn key(&self, event: &Envelope) -> Option<String> {
        shop_events::key(event)
    }
}

/// The end of the year 9999, in milliseconds since 1970: the latest time in RFC 3339.
const LATEST: i64 = 253_402_300_799_999;

/// The combined changes of a batch of events.
#[derive(Debug, Default)]
struct Changes {
    users: Vec<(Uuid, UserState)>,
    /// The last title and image of each product.
    products: BTreeMap<Uuid, (String, String)>,
    /// The users of the orders, also of orders without lines.
    shoppers: Vec<Uuid>,
    lines: Vec<Line>,
}

impl Changes {
    fn gather(&mut self, event: &Envelope) -> Result<(), ApplyError> {
        match &*event.source {
            UsersEvent::SOURCE => self.users.push(match event.try_into()? {
                UsersEvent::Registered(user) => (id(&user.user_id)?, UserState::Registered),
                UsersEvent::Erased(user) => (id(&user.user_id)?, UserState::Erased),
            }),
            ProductsEvent::SOURCE => {
                let (product, content) = match event.try_into()? {
                    ProductsEvent::Created(it) => (it.product_id, (it.title, it.image)),
                    ProductsEvent::Updated(it) => (it.product_id, (it.title, it.image)),
                };
                self.products.insert(id(&product)?, content);
            }
            OrdersEvent::SOURCE => {
                let OrdersEvent::Placed(order) = event.try_into()?;
                self.gather_order(&order)?;
            }
            _ => return Err(ApplyError::unknown(event)),
        }
        Ok(())
    }

    fn gather_order(&mut self, order: &OrderPlaced) -> Result<(), ApplyError> {
        let user = id(&order.user_id)?;
        // An event that was published by hand may lack the time, or have an absurd one: it counts
        // as the earliest, or as the nearest that can be shown.
        let ordered_at = order.placed_at.as_ref().map_or(0, shop_events::millis);
        let ordered_at = ordered_at.clamp(0, LATEST);
        for product in &order.product_ids {
            let product = id(product)?;
            self.lines.push(Line {
                shopper: self.shoppers.len(),
                product,
                ordered_at,
            });
        }
        self.shoppers.push(user);
        Ok(())
    }

    fn save(mut self, tx: &Tx) -> Result<(), DbErr> {
        self.users
            .sort_unstable_by_key(|(id, state)| (*id, Reverse(*state)));
        self.users.dedup_by_key(|(id, _)| *id);
        store::save_users(tx, &self.users)?;
        store::save_products(tx, self.products)?;
        store::save_purchases(tx, &self.shoppers, &self.lines)
    }
}
