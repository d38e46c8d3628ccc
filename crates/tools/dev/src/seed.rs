//! Imports the catalogue through the services' public APIs.
//!
//! The catalogue has fixed ids, so everything is sent at every start. Existing records are answered
//! as before and not changed, even if a user has edited them since.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Response, StatusCode};
use serde::{Deserialize, Serialize};

use crate::catalogue::{self, Catalogue, Product, User};
use crate::http::{self, refusal, send};
use crate::ports::Ports;
use crate::screen::Screen;
use crate::service::Service;

/// The user that the summary shows.
#[derive(Debug)]
pub(crate) struct Demo {
    pub(crate) user: User,
    /// A product that the user has not ordered yet.
    pub(crate) product: Product,
}

/// Seeds everything, and waits until purchases shows it.
///
/// Returns `None` if all users of the catalogue have been erased.
pub(crate) async fn all(ports: Ports, screen: Screen) -> anyhow::Result<Option<Demo>> {
    let catalogue = Catalogue::read()?;
    screen.say(&format!(
        "seeding {} products, {} users and {} orders …",
        catalogue.products.len(),
        catalogue.users.len(),
        catalogue.orders.len()
    ));
    let mut seed = Seed {
        client: http::client()?,
        ports,
        positions: BTreeMap::new(),
    };
    seed.all(&catalogue).await.context("seed the catalogue")
}

struct Seed {
    client: Client,
    ports: Ports,
    /// The highest position of each source in its answers.
    positions: BTreeMap<String, u64>,
}

/// The answer to `POST /images`.
#[derive(Deserialize)]
struct Uploaded {
    image: String,
}

impl Seed {
    async fn all(&mut self, catalogue: &Catalogue) -> anyhow::Result<Option<Demo>> {
        for product in &catalogue.products {
            let product = Product {
                image: self.upload(&product.image).await?,
                ..product.clone()
            };
            self.create(Service::named("products"), "", &product.id, &product)
                .await?;
        }
        let mut users = Vec::new();
        for user in &catalogue.users {
            if self
                .create(Service::named("users"), "", &user.id, user)
                .await?
            {
                users.push(user);
            }
        }
        let after = format!("?after={}", self.after());
        for order in &catalogue.orders {
            if users.iter().any(|user| user.id == order.user_id) {
                self.create(Service::named("orders"), &after, &order.id, order)
                    .await?;
            }
        }
        let Some(user) = users.first().copied() else {
            return Ok(None);
        };
        self.seen(user).await?;
        let product = catalogue.new_to(user).cloned();
        Ok(product.map(|product| Demo {
            user: user.clone(),
            product,
        }))
    }

    /// Uploads a picture and returns its path.
    async fn upload(&self, name: &str) -> anyhow::Result<String> {
        let url = format!("{}/images", self.ports.url(Service::named("products")));
        let upload = self.client.post(url).header(CONTENT_TYPE, "image/svg+xml");
        let failed = || format!("upload {name}");
        let answer = send(&upload.body(catalogue::file(name)?)).await;
        let answer = answer.with_context(failed)?;
        if answer.status() != StatusCode::CREATED {
            bail!("upload {name}: {}", refusal(answer).await);
        }
        let uploaded: Uploaded = answer.json().await.with_context(failed)?;
        Ok(uploaded.image)
    }

    /// Creates a record, or finds it; `false` if its id belongs to another record or to an erased
    /// user.
    async fn create(
        &mut self,
        service: Service,
        query: &str,
        id: &str,
        record: &impl Serialize,
    ) -> anyhow::Result<bool> {
        let name = service.name();
        let url = format!("{}/{name}{query}", self.ports.url(service));
        let failed = || format!("create {id} in {name}");
        let answer = send(&self.client.post(url).json(record))
            .await
            .with_context(failed)?;
        match answer.status() {
            StatusCode::CREATED => {
                self.note_position(&answer);
                Ok(true)
            }
            StatusCode::CONFLICT => Ok(false),
            _ => bail!("create {id} in {name}: {}", refusal(answer).await),
        }
    }

    /// Waits until purchases has applied everything.
    async fn seen(&self, user: &User) -> anyhow::Result<()> {
        let (purchases, after) = (self.ports.url(Service::named("purchases")), self.after());
        let url = format!("{purchases}/users/{}/purchases?after={after}", user.id);
        let answer = send(&self.client.get(url)).await;
        let answer = answer.context("wait for purchases")?;
        if answer.status() != StatusCode::OK {
            let refusal = refusal(answer).await;
            bail!("read the purchases of {}: {refusal}", user.name);
        }
        Ok(())
    }

    /// Notes `Headwater-Position: <source>:<position>`.
    fn note_position(&mut self, answer: &Response) {
        let position = answer.headers().get("headwater-position");
        let position = position
            .and_then(|value| value.to_str().ok()?.split_once(':'))
            .and_then(|(source, position)| Some((source, position.parse::<u64>().ok()?)));
        if let Some((source, position)) = position {
            let highest = self.positions.entry(source.to_owned()).or_default();
            *highest = position.max(*highest);
        }
    }

    /// All positions so far, in the format of `?after`: `products:24,users:6`.
    fn after(&self) -> String {
        let positions = self.positions.iter();
        let positions: Vec<_> = positions.map(|(of, at)| format!("{of}:{at}")).collect();
        positions.join(",")
    }
}
