//! Folds users, products and orders into the store.
//!
//! The three sources come in any order, so each event must find its place whatever is there
//! already: an order makes rows for a user and products that it only has the ids of, which their
//! own events fill in later; an erased user stays erased, whatever comes after.
//!
//! A batch is gathered first and saved at once, because a row of a large statement costs a
//! fraction of a statement of its own. That comes to the same as one event after the other: of a
//! product the last title counts, of a purchase the first time, of a user the last state, and
//! nothing is purchased by one who was erased, whichever of the two comes first.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use headwater::database::Tx;
use headwater::{ApplyError, Envelope, Event as _, Projection};
use sea_orm::DbErr;
use shop_events::{OrderPlaced, ProductCreated, ProductUpdated, UserErased, UserRegistered};
use uuid::Uuid;

use super::store::{self, Line, UserState};

/// The projection of the read store.
#[derive(Debug)]
pub struct Purchases;

impl Projection for Purchases {
    const NAME: &'static str = "purchases";
    const VERSION: u32 = 1;
    const SOURCES: &'static [&'static str] = &["users", "products", "orders"];

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

/// What a batch of events comes to.
#[derive(Debug, Default)]
struct Changes {
    users: Vec<(Uuid, UserState)>,
    /// The title and image that each product has last.
    products: BTreeMap<Uuid, (String, String)>,
    /// Those who ordered; also nothing, which tells of them all the same.
    shoppers: Vec<Uuid>,
    lines: Vec<Line>,
}

impl Changes {
    fn gather(&mut self, event: &Envelope) -> Result<(), ApplyError> {
        match event.kind() {
            UserRegistered::SUBJECT => {
                let registered: UserRegistered = event.decode()?;
                let id = shop_events::id(&registered.user_id)?;
                self.users.push((id, UserState::Registered));
            }
            UserErased::SUBJECT => {
                let erased: UserErased = event.decode()?;
                let id = shop_events::id(&erased.user_id)?;
                self.users.push((id, UserState::Erased));
            }
            ProductCreated::SUBJECT => {
                let product: ProductCreated = event.decode()?;
                let id = shop_events::id(&product.product_id)?;
                self.products.insert(id, (product.title, product.image));
            }
            ProductUpdated::SUBJECT => {
                let product: ProductUpdated = event.decode()?;
                let id = shop_events::id(&product.product_id)?;
                self.products.insert(id, (product.title, product.image));
            }
            OrderPlaced::SUBJECT => self.gather_order(&event.decode()?)?,
            _ => return Err(ApplyError::unknown(event)),
        }
        Ok(())
    }

    fn gather_order(&mut self, order: &OrderPlaced) -> Result<(), ApplyError> {
        let user = shop_events::id(&order.user_id)?;
        // Ours always say when. A hand-made event may not: then it was before all others.
        let ordered_at = order.placed_at.as_ref().map_or(0, shop_events::millis);
        for product in &order.product_ids {
            let product = shop_events::id(product)?;
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
