//! Reads during the faults: records answers of `purchases`, to be checked when the model is
//! complete.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use reqwest::Method;

use super::client::expect;
use super::expected::{Look, Shown};
use super::shop::{Seen, Shop};
use crate::client::{Reply, try_send};
use crate::world::Service;

/// The pause between two reads, and the timeout of an answer.
const WATCH_EVERY: Duration = Duration::from_millis(5);
const WATCH_WITHIN: Duration = Duration::from_secs(1);

/// Reads the purchases of users who are ordering, in turns, while the clients work. An answer may
/// be old, but it must be of one moment.
pub(super) async fn watch(shop: Arc<Shop>) -> anyhow::Result<()> {
    for turn in 0.. {
        tokio::time::sleep(WATCH_EVERY).await;
        let user = {
            let book = shop.book();
            let turn = turn % book.shopping.len().max(1);
            book.shopping.get(turn).cloned()
        };
        let Some(user) = user else { continue };
        let path = format!("/users/{user}/purchases?limit=1000");
        let client = shop.service(Service::Purchases);
        let request = client.request(Method::GET, &path).timeout(WATCH_WITHIN);
        if let Ok(reply) = try_send(request).await
            && reply.status == 200
        {
            let seen = seen(user, &reply)?;
            shop.book().seen.push(seen);
        }
    }
    Ok(())
}

/// Parses an answer of `purchases`; each product must be in it once.
pub(super) fn seen(user: String, reply: &Reply) -> anyhow::Result<Seen> {
    expect(reply, 200)?;
    let mut shown = Shown::new();
    let purchases = reply.json["purchases"].as_array().context("purchases")?;
    ensure!(reply.json["next"].is_null(), "more than a page: {user}");
    for purchase in purchases {
        let text = |name: &str| purchase[name].as_str().map(str::to_owned);
        let id = text("product_id").context("a product's id")?;
        let look = match (text("title"), text("image")) {
            (Some(title), Some(image)) => Some(Look { title, image }),
            (None, None) => None,
            _ => bail!("half a product: {purchase}"),
        };
        let before = shown.insert(id, look);
        ensure!(before.is_none(), "a product twice: {}", reply.text);
    }
    let as_of = reply.position.as_deref().context("a position")?.parse()?;
    Ok(Seen { user, as_of, shown })
}
