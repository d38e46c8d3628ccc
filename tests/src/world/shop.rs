//! Requests to the shop.

use headwater::Positions;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Service, World};
use crate::client::{Reply, send};
use crate::eventually;

impl World {
    /// Registers a user.
    pub async fn user(&self, name: &str) -> Reply {
        let email = format!("{name}@example.com");
        let body = json!({ "name": name, "email": email });
        self.client(Service::Users).create("/users", &body).await
    }

    /// Creates a product.
    pub async fn product(&self, title: &str) -> Reply {
        let image = format!("https://example.com/{title}.png");
        let body = json!({ "title": title, "image": image });
        self.client(Service::Products)
            .create("/products", &body)
            .await
    }

    /// Changes the title of a product.
    pub async fn rename(&self, product: &Reply, title: &str) {
        let path = format!("/products/{}", product.id());
        let request = self.client(Service::Products);
        let request = request.request(Method::PATCH, &path);
        let renamed = send(request.json(&json!({ "title": title }))).await;
        assert!(renamed.status.is_success(), "{}", renamed.text);
    }

    /// Places an order, possibly for a user or products made just before: `?after` has their
    /// positions.
    pub async fn order(&self, user: &Reply, products: &[&Reply]) -> Reply {
        let ids: Vec<String> = products.iter().map(|product| product.id()).collect();
        let replies: Vec<&Reply> = products.iter().copied().chain([user]).collect();
        let path = format!("/orders?after={}", after(&replies));
        let body = json!({ "user_id": user.id(), "product_ids": ids });
        self.client(Service::Orders).create(&path, &body).await
    }

    /// The purchases of a user, as of `after`, from the query service in the style replica.
    pub async fn purchases(&self, user: &str, after: &str) -> Reply {
        self.purchases_by(Service::Purchases, user, after).await
    }

    /// The sorted titles of a user's purchases, once `purchases` has caught up.
    pub async fn titles(&self, user: &str) -> Vec<String> {
        self.caught_up().await;
        let reply = self.purchases(user, "").await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        titles(&reply.json)
    }

    /// The last positions of the running sources' outboxes, from their admin endpoints.
    pub async fn heads(&self) -> Positions {
        let mut heads = Positions::default();
        for source in Service::SOURCES.into_iter().filter(|one| self.runs(*one)) {
            let head = eventually("a status", || async {
                let status = self.ask(source, "status", &json!({})).await?;
                status["head"].as_u64().ok_or_else(|| status.to_string())
            });
            heads.0.insert(source.name().to_owned(), head.await);
        }
        heads
    }

    /// Waits until `purchases` has applied all events.
    pub async fn caught_up(&self) {
        let heads = self.heads().await.to_string();
        let nobody = uuid::Uuid::nil().to_string();
        eventually("purchases to catch up", || async {
            let reply = self.purchases(&nobody, &heads).await;
            if reply.status == 404 {
                Ok(())
            } else {
                Err(reply.text)
            }
        })
        .await;
    }
}

/// The positions of these writes, for `?after=`.
pub fn after(replies: &[&Reply]) -> String {
    let positions: Vec<&str> = replies.iter().map(|reply| reply.position()).collect();
    positions.join(",")
}

/// The sorted titles in an answer of `purchases`.
pub fn titles(answer: &Value) -> Vec<String> {
    let purchases = answer["purchases"].as_array().into_iter().flatten();
    let mut titles: Vec<String> = purchases
        .map(|purchase| purchase["title"].as_str().unwrap_or("?").to_owned())
        .collect();
    titles.sort();
    titles
}
