//! Requests that are repeated until they are answered.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use uuid::Uuid;

use super::command::{Creation, Ref, Wrong};
use super::expected::Look;
use super::shop::{Book, Shop};
use crate::world::Service;

/// A request that can be sent repeatedly.
pub(super) struct Asked {
    pub(super) service: Service,
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) body: Value,
    pub(super) key: Option<String>,
}

impl Asked {
    pub(super) fn of(service: Service, method: Method, path: String, body: Value) -> Self {
        Self {
            service,
            method,
            path,
            body,
            key: None,
        }
    }

    pub(super) fn request(&self, shop: &Shop) -> RequestBuilder {
        let client = shop.service(self.service);
        let mut request = client.request(self.method.clone(), &self.path);
        if !self.body.is_null() {
            request = request.json(&self.body);
        }
        if let Some(key) = &self.key {
            request = request.header("Idempotency-Key", key);
        }
        request
    }

    /// The request for something new; always the same for the same `creation`.
    pub(super) fn creation(shop: &Shop, creation: &Creation) -> Self {
        let (service, path, mut body, id) = match creation {
            Creation::User { user, id } => {
                let email = format!("u{user}@example.com");
                let body = json!({ "name": format!("User {user}"), "email": email });
                (Service::Users, "/users".to_owned(), body, id)
            }
            Creation::Product { product, id } => {
                let Look { title, image } = look(*product, 0, 0);
                let body = json!({ "title": title, "image": image });
                (Service::Products, "/products".to_owned(), body, id)
            }
            Creation::Order {
                user, products, id, ..
            } => {
                let book = shop.book();
                let user = &book.users[user];
                let after = products.iter().map(|product| &book.products[product]);
                let after: Vec<_> = after.chain([user]).map(|made| &*made.position).collect();
                let path = format!("/orders?after={}", after.join(","));
                let body = json!({ "user_id": user.id, "product_ids": ids(&book, products) });
                (Service::Orders, path, body, id)
            }
        };
        if let Some(id) = id {
            body["id"] = json!(id);
        }
        Self {
            key: Some(creation.key()),
            ..Self::of(service, Method::POST, path, body)
        }
    }

    /// A request that must be refused, and the expected status.
    pub(super) fn wrong(shop: &Shop, wrong: &Wrong) -> (Self, u16) {
        let nobody = || Uuid::now_v7().to_string();
        let image = "https://example.com/x.png";
        let post = |service, path: &str, body| Asked::of(service, Method::POST, path.into(), body);
        let user = |user: &Ref| shop.book().users[user].id.clone();
        let (status, asked) = match wrong {
            Wrong::NoTitle => {
                let body = json!({ "title": " ", "image": image });
                (422, post(Service::Products, "/products", body))
            }
            Wrong::NoAddress => {
                let body = json!({ "name": "Nemo", "email": "nowhere" });
                (422, post(Service::Users, "/users", body))
            }
            Wrong::NoLines(of) => {
                let body = json!({ "user_id": user(of), "product_ids": [] });
                (422, post(Service::Orders, "/orders", body))
            }
            Wrong::UnknownProduct(of) => {
                let body = json!({ "user_id": user(of), "product_ids": [nobody()] });
                (422, post(Service::Orders, "/orders", body))
            }
            Wrong::RenameUnknown => {
                let (path, body) = (format!("/products/{}", nobody()), json!({ "title": "x" }));
                (404, Asked::of(Service::Products, Method::PATCH, path, body))
            }
            Wrong::EraseUnknown => {
                let path = format!("/users/{}", nobody());
                let asked = Asked::of(Service::Users, Method::DELETE, path, Value::Null);
                (404, asked)
            }
            Wrong::OrderForErased { user, product } => {
                let book = shop.book();
                let (user, product) = (&book.users[user], &book.products[product]);
                let path = format!("/orders?after={},{}", user.position, product.position);
                let body = json!({ "user_id": user.id, "product_ids": [product.id] });
                (422, post(Service::Orders, &path, body))
            }
            Wrong::OtherBody(creation) => {
                let mut asked = Self::creation(shop, creation);
                match creation {
                    Creation::User { .. } => asked.body["name"] = json!("Another"),
                    Creation::Product { .. } => asked.body["title"] = json!("Another"),
                    Creation::Order { .. } => {
                        let lines = asked.body["product_ids"].as_array_mut();
                        let lines = lines.expect("an order has lines");
                        lines.extend(lines.first().cloned());
                    }
                }
                let status = if is_erased(&shop.book(), creation) {
                    410
                } else {
                    422
                };
                (status, asked)
            }
        };
        (asked, status)
    }
}

/// Whether the created resource was erased since; a user's orders are erased with the user.
pub(super) fn is_erased(book: &Book, creation: &Creation) -> bool {
    match creation {
        Creation::User { user, .. } | Creation::Order { user, .. } => {
            let id = &book.users[user].id;
            book.expected.is_erased(id)
        }
        Creation::Product { .. } => false,
    }
}

/// The look of a product after `title` renames and `image` new images.
pub(super) fn look(product: Ref, title: u64, image: u64) -> Look {
    Look {
        title: format!("Product {product} version {title}"),
        image: format!("https://example.com/{product}/{image}.png"),
    }
}

pub(super) fn ids(book: &Book, products: &[Ref]) -> Vec<String> {
    let id = |product| book.products[product].id.clone();
    products.iter().map(id).collect()
}
