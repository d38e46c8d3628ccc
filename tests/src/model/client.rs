//! A client: sends its commands in order, each until its answer is definite, and records the
//! answers.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::command::{Command, Creation, Ref, Wrong};
use super::request::{Asked, ids, is_erased, look};
use super::shop::{Made, Settled, Shop};
use super::watch::seen;
use crate::client::Reply;
use crate::world::Service;

/// Sends `commands`.
///
/// # Errors
/// An answer is wrong.
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

struct Client<'a> {
    shop: &'a Shop,
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
        let settled = self.ask(Asked::creation(self.shop, creation)).await?;
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
                book.expected.registered(&id, number);
                book.users.insert(*user, made);
            }
            Creation::Product { product, .. } => {
                book.expected.looks(&id, look(*product, 0, 0), number);
                book.products.insert(*product, made);
            }
            Creation::Order { user, products, .. } => {
                let user = book.users[user].id.clone();
                let ids = ids(&book, products);
                book.expected.placed(&user, &id, ids, number);
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
                look.image = book.expected.image(&id).context("an image")?;
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
        book.expected.looks(&id, look, number);
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
        book.expected.erased(&id, number);
        if let Some(made) = book.users.get_mut(&user) {
            made.position = position;
        }
        Ok(())
    }

    /// The answer must include every event up to `?after`.
    async fn read(&self, user: Ref, after_all: bool) -> anyhow::Result<()> {
        let (id, after, is_erased) = {
            let book = self.shop.book();
            let id = book.users[&user].id.clone();
            let after = if after_all {
                book.reached.clone()
            } else {
                book.own[&user.client].clone()
            };
            let is_erased = book.expected.is_erased(&id);
            (id, after, is_erased)
        };
        let path = format!("/users/{id}/purchases?limit=1000&after={after}");
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
        let reply = self.ask(Asked::creation(self.shop, creation)).await?.reply;
        if is_erased(&self.shop.book(), creation) {
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
        let (asked, status) = Asked::wrong(self.shop, wrong);
        let reply = self.ask(asked).await?.reply;
        // With many orders, forgetting those of an erased user and their keys takes a moment:
        // either answer is right.
        if let (Wrong::OtherBody(Creation::Order { .. }), 410, 422) =
            (wrong, status, reply.status.as_u16())
        {
            return Ok(());
        }
        expect(&reply, status)
    }

    async fn ask(&self, asked: Asked) -> anyhow::Result<Settled> {
        let what = format!("{} {}", asked.method, asked.path);
        let request = || asked.request(self.shop);
        self.shop.settle(&what, request).await
    }
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

/// Whether an attempt before the answered one had taken effect: an id that the service chose has
/// the time of its creation.
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
