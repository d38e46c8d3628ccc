//! Places orders of random users and products of the catalogue, through the public API.

use std::time::Instant;

use reqwest::{Client, StatusCode};
use serde_json::json;
use tokio::task::JoinSet;

use super::board::Board;
use crate::catalogue::Catalogue;
use crate::http::{cause, refusal};

/// Orders placed at once, at most.
pub(super) const ORDERS_MAX: u32 = 1000;

/// Requests at the same time.
const AT_ONCE: u32 = 8;

/// Places `count` orders and reports it.
pub(super) async fn orders(count: u32, client: Client, orders_url: String, board: Board) {
    if std::mem::replace(&mut board.known().is_pouring, true) {
        return board.say("Orders are still being placed: wait until they are done.");
    }
    let start = Instant::now();
    let placed = all(count, client, orders_url, &board).await;
    board.known().is_pouring = false;
    let took = start.elapsed().as_secs_f64();
    match placed {
        Ok((placed, None)) => board.say(&format!("Placed {placed} orders in {took:.1} s.")),
        Ok((placed, Some(why))) => {
            board.say(&format!("Placed {placed} of {count} orders: {why}"));
        }
        Err(error) => board.say(&format!("Placed no order: {error:#}.")),
    }
}

/// The number of orders that were placed, and why there are not more.
async fn all(
    count: u32,
    client: Client,
    orders_url: String,
    board: &Board,
) -> anyhow::Result<(u32, Option<String>)> {
    let catalogue = Catalogue::read()?;
    let mut workers = JoinSet::new();
    for worker in 0..AT_ONCE {
        let own = count / AT_ONCE + u32::from(worker < count % AT_ONCE);
        let orders: Vec<_> = (0..own).map(|_| random(&catalogue)).collect();
        let (client, url, board) = (client.clone(), orders_url.clone(), board.clone());
        workers.spawn(async move {
            let (mut placed, mut why) = (0, None);
            for order in orders {
                match place(&client, &url, &order, &board).await {
                    Ok(None) => placed += 1,
                    Ok(refused) => why = refused,
                    // The next would wait as long.
                    Err(error) => {
                        why = Some(format!("orders does not answer ({}).", cause(&error)));
                        break;
                    }
                }
            }
            (placed, why)
        });
    }
    let (mut placed, mut why) = (0, None);
    while let Some(done) = workers.join_next().await {
        let (own, ended) = done?;
        placed += own;
        why = why.or(ended);
    }
    Ok((placed, why))
}

fn random(catalogue: &Catalogue) -> serde_json::Value {
    let user = fastrand::choice(&catalogue.users).map(|user| &user.id);
    let products = fastrand::choose_multiple(&catalogue.products, fastrand::usize(1..=3));
    let products: Vec<_> = products.into_iter().map(|product| &product.id).collect();
    json!({"user_id": user, "product_ids": products})
}

/// Places an order; says why it was refused, such as that its user was erased.
async fn place(
    client: &Client,
    orders_url: &str,
    order: &serde_json::Value,
    board: &Board,
) -> Result<Option<String>, reqwest::Error> {
    let request = client.post(format!("{orders_url}/orders")).json(order);
    let answer = request.send().await?;
    if answer.status() != StatusCode::CREATED {
        return Ok(Some(format!("{}.", refusal(answer).await)));
    }
    let position = answer.headers().get("headwater-position");
    let position = position.and_then(|it| it.to_str().ok()?.split_once(':'));
    if let Some((source, Ok(position))) = position.map(|(source, it)| (source, it.parse())) {
        let now = tokio::time::Instant::now();
        board.known().heads.note(source, position, now);
    }
    Ok(None)
}
