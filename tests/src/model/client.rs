//! A client: sends its commands one after another, each until its answer is definite, and writes
//! down what was answered.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use uuid::Uuid;

use super::command::{Command, Creation, Ref, Wrong};
use super::fold::{Look, Shown};
use super::shop::{Book, Made, Seen, Settled, Shop};
use crate::client::{Reply, try_send};
use crate::world::Service;

/// How often those who order are looked at, and how long an answer may take.
const WATCH_EVERY: Duration = Duration::from_millis(5);
const WATCH_WITHIN: Duration = Duration::from_secs(1);

/// Sends `commands`.
///
/// # Errors
/// An answer is not the one that it must be.
pub(super) async fn run(shop: Arc<Shop>, commands: Vec<Command>) -> anyhow::Result<()> {
    let client = Client { shop: &shop };
    for command in commands {
        client
            .perform(&command)
            .await
            .with_context(|| format!("{command:?}"))?;
        shop.count_answer(command.kind());
    }
    Ok(())
}

/// Looks at what those are shown who order just now, again and again, while the others work.
/// What it sees may be old, and it must be of one moment.
pub(super) async fn watch(shop: Arc<Shop>) -> anyhow::Result<()> {
    for turn in 0.. {
        tokio::time::sleep(WATCH_EVERY).await;
        let user = {
            let book = shop.book();
            let turn = turn % book.shopping.len().max(1);
            book.shopping.get(turn).cloned()
        };
        let Some(user) = user else { continue };
        let path = format!("/users/{user}/purchases");
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

struct Client<'a> {
    shop: &'a Shop,
}

/// A request that is sent as often as needed.
struct Asked {
    service: Service,
    method: Method,
    path: String,
    body: Value,
    key: Option<String>,
}

impl Client<'_> {
    async fn perform(&self, command: &Command) -> anyhow::Result<()> {
        match command {
            Command::Create(creation) => self.create(creation).await,
            Command::Rename {
                product,
                version,
                image,
            } => self.rename(*product, *version, *image).await,
            Command::Erase { user } => self.erase(*user).await,
            Command::Read { user, after_all } => self.read(*user, *after_all).await,
            Command::Repeat(creation) => self.repeat(creation).await,
            Command::Wrong(wrong) => self.refused(wrong).await,
        }
    }

    async fn create(&self, creation: &Creation) -> anyhow::Result<()> {
        let settled = self.ask(self.asked(creation)).await?;
        let reply = &settled.reply;
        expect(reply, 201)?;
        let id = reply.json["id"].as_str().context("an id")?.to_owned();
        let position = reply.position.clone().context("a position")?;
        let mut book = self.shop.book();
        let number = book.note(creation.client(), &position, &creation.key())?;
        if happened_before(&settled, creation, &id) {
            book.unknown_commits += 1;
        }
        let answer = (reply.text.clone(), reply.position.clone());
        book.answers.insert(creation.key(), answer);
        let made = Made {
            id: id.clone(),
            position,
        };
        match creation {
            Creation::User { user, .. } => {
                book.fold.registered(&id, number);
                book.users.insert(*user, made);
            }
            Creation::Product { product, .. } => {
                book.fold.looks(&id, look(*product, 0, 0), number);
                book.products.insert(*product, made);
            }
            Creation::Order { user, products, .. } => {
                let user = book.users[user].id.clone();
                let ids = ids(&book, products);
                book.fold.placed(&user, &id, ids, number);
                book.note_shopping(&user);
            }
        }
        Ok(())
    }

    async fn rename(&self, product: Ref, version: u64, image: bool) -> anyhow::Result<()> {
        let (id, look) = {
            let book = self.shop.book();
            let id = book.products[&product].id.clone();
            let mut look = look(product, version, version);
            if !image {
                look.image = book.fold.image(&id).context("an image")?;
            }
            (id, look)
        };
        let mut body = json!({ "title": look.title });
        if image {
            body["image"] = json!(look.image);
        }
        let path = format!("/products/{id}");
        let reply = self
            .ask(Asked::of(Service::Products, Method::PATCH, path, body))
            .await?
            .reply;
        expect(&reply, 200)?;
        let position = reply.position.clone().context("a position")?;
        let mut book = self.shop.book();
        let what = format!("{product} renamed to {}", look.title);
        let number = book.note(product.client, &position, &what)?;
        book.fold.looks(&id, look, number);
        if let Some(made) = book.products.get_mut(&product) {
            made.position = position;
        }
        Ok(())
    }

    async fn erase(&self, user: Ref) -> anyhow::Result<()> {
        let id = self.shop.book().users[&user].id.clone();
        let path = format!("/users/{id}");
        let reply = self
            .ask(Asked::of(Service::Users, Method::DELETE, path, Value::Null))
            .await?
            .reply;
        expect(&reply, 204)?;
        let position = reply.position.context("a position")?;
        let mut book = self.shop.book();
        let number = book.note(user.client, &position, &format!("{user} erased"))?;
        book.fold.erased(&id, number);
        if let Some(made) = book.users.get_mut(&user) {
            made.position = position;
        }
        Ok(())
    }

    /// What was answered must be in the answer.
    async fn read(&self, user: Ref, after_all: bool) -> anyhow::Result<()> {
        let (id, after, is_erased) = {
            let book = self.shop.book();
            let id = book.users[&user].id.clone();
            let after = if after_all {
                book.reached.clone()
            } else {
                book.own[&user.client].clone()
            };
            let is_erased = book.fold.is_erased(&id);
            (id, after, is_erased)
        };
        let path = format!("/users/{id}/purchases?after={after}");
        let reply = self
            .ask(Asked::of(
                Service::Purchases,
                Method::GET,
                path,
                Value::Null,
            ))
            .await?
            .reply;
        if is_erased {
            return expect(&reply, 404);
        }
        let seen = seen(id, &reply)?;
        ensure!(
            seen.as_of.reach(&after),
            "after {after}: it is as of {}",
            seen.as_of
        );
        self.shop.book().seen.push(seen);
        Ok(())
    }

    async fn repeat(&self, creation: &Creation) -> anyhow::Result<()> {
        let reply = self.ask(self.asked(creation)).await?.reply;
        if self.is_erased(creation) {
            return expect(&reply, 410);
        }
        expect(&reply, 201)?;
        let before = self.shop.book().answers[&creation.key()].clone();
        ensure!(
            before == (reply.text.clone(), reply.position.clone()),
            "the first answer was {before:?}, this is {reply:?}"
        );
        Ok(())
    }

    async fn refused(&self, wrong: &Wrong) -> anyhow::Result<()> {
        let nobody = || Uuid::now_v7().to_string();
        let image = "https://example.com/x.png";
        let post = |service, path: &str, body| Asked::of(service, Method::POST, path.into(), body);
        let user = |user: &Ref| self.shop.book().users[user].id.clone();
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
                let book = self.shop.book();
                let (user, product) = (&book.users[user], &book.products[product]);
                let path = format!("/orders?after={},{}", user.position, product.position);
                let body = json!({ "user_id": user.id, "product_ids": [product.id] });
                (422, post(Service::Orders, &path, body))
            }
            Wrong::OtherBody(creation) => {
                let mut asked = self.asked(creation);
                match creation {
                    Creation::User { .. } => asked.body["name"] = json!("Another"),
                    Creation::Product { .. } => asked.body["title"] = json!("Another"),
                    Creation::Order { .. } => {
                        let lines = asked.body["product_ids"].as_array_mut();
                        let lines = lines.context("an order has lines")?;
                        lines.extend(lines.first().cloned());
                    }
                }
                let status = if self.is_erased(creation) { 410 } else { 422 };
                (status, asked)
            }
        };
        expect(&self.ask(asked).await?.reply, status)
    }

    /// Whether what the request made was erased since: with a user go their orders.
    fn is_erased(&self, creation: &Creation) -> bool {
        let book = self.shop.book();
        match creation {
            Creation::User { user, .. } | Creation::Order { user, .. } => {
                let id = &book.users[user].id;
                book.fold.is_erased(id)
            }
            Creation::Product { .. } => false,
        }
    }

    /// The request for something new: the same whenever it is asked for.
    fn asked(&self, creation: &Creation) -> Asked {
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
                let book = self.shop.book();
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
        Asked {
            key: Some(creation.key()),
            ..Asked::of(service, Method::POST, path, body)
        }
    }

    async fn ask(&self, asked: Asked) -> anyhow::Result<Settled> {
        let what = format!("{} {}", asked.method, asked.path);
        let request = || asked.request(self.shop);
        self.shop.settle(&what, request).await
    }
}

impl Asked {
    fn of(service: Service, method: Method, path: String, body: Value) -> Self {
        Self {
            service,
            method,
            path,
            body,
            key: None,
        }
    }

    fn request(&self, shop: &Shop) -> RequestBuilder {
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
}

/// How a product looks when it has been named `title` times and pictured `image` times.
fn look(product: Ref, title: u64, image: u64) -> Look {
    Look {
        title: format!("Product {product} version {title}"),
        image: format!("https://example.com/{product}/{image}.png"),
    }
}

/// The ids of `products`.
fn ids(book: &Book, products: &[Ref]) -> Vec<String> {
    let id = |product| book.products[product].id.clone();
    products.iter().map(id).collect()
}

/// What an answer of `purchases` says: each product once.
pub(super) fn seen(user: String, reply: &Reply) -> anyhow::Result<Seen> {
    expect(reply, 200)?;
    let mut shown = Shown::new();
    let purchases = reply.json["purchases"].as_array().context("purchases")?;
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

pub(super) fn expect(reply: &Reply, status: u16) -> anyhow::Result<()> {
    ensure!(
        reply.status == status,
        "expected {status}, the answer is {}: {}",
        reply.status,
        reply.text
    );
    Ok(())
}

/// Whether the answer is of an attempt before the last one: ids that the service chose tell when
/// it began.
fn happened_before(settled: &Settled, creation: &Creation, id: &str) -> bool {
    let (Creation::User { id: own, .. }
    | Creation::Product { id: own, .. }
    | Creation::Order { id: own, .. }) = creation;
    let made = id.parse::<Uuid>().ok().and_then(|id| id.get_timestamp());
    let made_ms = made.map(|made| {
        let (seconds, nanos) = made.to_unix();
        i64::try_from(seconds * 1000 + u64::from(nanos / 1_000_000)).unwrap_or(i64::MAX)
    });
    own.is_none() && settled.retried_at_ms > made_ms && made_ms.is_some()
}
