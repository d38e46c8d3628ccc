//! Sends each placed order to a configured address.

use headwater::effect::Outcome;
use headwater::effect::webhook::Webhook;
use headwater::{Effect, Envelope, Event as _, Undecodable};
use serde_json::json;
use shop_events::OrderPlaced;

/// Sends `order.placed` for each order.
#[derive(Debug)]
pub(crate) struct OrderWebhook(pub(crate) Webhook);

impl Effect for OrderWebhook {
    // Never rename.
    const NAME: &'static str = "orders-webhook";
    const SOURCES: &'static [&'static str] = &[crate::NAME];
    const EVENTS: &'static [&'static str] = &[OrderPlaced::SUBJECT];

    async fn perform(&self, event: &Envelope, key: &str) -> Outcome {
        match body(event) {
            Ok(body) => self.0.post(key, body).await,
            Err(error) => Outcome::GiveUp(error.to_string()),
        }
    }
}

fn body(event: &Envelope) -> Result<String, Undecodable> {
    let OrderPlaced {
        order_id,
        user_id,
        product_ids,
        placed_at,
    } = event.decode()?;
    let body = json!({
        "type": "order.placed",
        "timestamp": placed_at.map(|at| at.to_string()),
        "data": { "order_id": order_id, "user_id": user_id, "product_ids": product_ids },
    });
    Ok(body.to_string())
}
