//! Bringing the catalogue in, through the services' public APIs.
//!
//! Ids are given by us, so that all of it can be sent at every start: what is there already is
//! answered as before and changes nothing. What a person has made of it since is left alone.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context as _, bail};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Response, StatusCode};
use serde::{Deserialize, Serialize};

use crate::catalogue::{Catalogue, IMAGES, Product, User};
use crate::http::{self, refusal, send};
use crate::ports::Ports;
use crate::screen::Screen;
use crate::service::Service;

/// Whom the summary is about.
#[derive(Debug)]
pub(crate) struct Demo {
    pub(crate) user: User,
    /// Something that they have not ordered yet.
    pub(crate) product: Product,
}

/// Seeds everything, and waits until purchases shows it.
///
/// Nobody to show is left when all users of the catalogue have been erased.
pub(crate) async fn all(ports: Ports, screen: Screen) -> anyhow::Result<Option<Demo>> {
    let catalogue = Catalogue::new();
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
    /// The highest position of each source's answers.
    positions: BTreeMap<String, u64>,
}

/// The answer to `POST /images`.
#[derive(Deserialize)]
struct Uploaded {
    image: String,
}

impl Seed {
    async fn all(&mut self, catalogue: &Catalogue) -> anyhow::Result<Option<Demo>> {
        let images = self.images().await?;
        for product in &catalogue.products {
            let image = images[product.image.as_str()].clone();
            let product = Product {
                image,
                ..product.clone()
            };
            self.create(Service::Products, "", &product.id, &product)
                .await?;
        }
        let mut users = Vec::new();
        for user in &catalogue.users {
            if self.create(Service::Users, "", &user.id, user).await? {
                users.push(user);
            }
        }
        let after = format!("?after={}", self.after());
        let is_there = |id: &str| users.iter().any(|user| user.id == id);
        for order in catalogue
            .orders
            .iter()
            .filter(|order| is_there(&order.user_id))
        {
            self.create(Service::Orders, &after, &order.id, order)
                .await?;
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

    /// Uploads the pictures, and says where each of them is now.
    async fn images(&self) -> anyhow::Result<HashMap<&'static str, String>> {
        let url = format!("{}/images", self.ports.url(Service::Products));
        let mut images = HashMap::new();
        for (name, svg) in IMAGES {
            let upload = self
                .client
                .post(&url)
                .header(CONTENT_TYPE, "image/svg+xml")
                .body(*svg);
            let failed = || format!("upload {name}");
            let answer = send(&upload).await.with_context(failed)?;
            if answer.status() != StatusCode::CREATED {
                bail!("upload {name}: {}", refusal(answer).await);
            }
            let uploaded: Uploaded = answer.json().await.with_context(failed)?;
            images.insert(*name, uploaded.image);
        }
        Ok(images)
    }

    /// Creates a record, or finds it there; `false` if its id was given to something else or is
    /// of somebody who was erased.
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

    /// Waits until purchases shows all of it.
    async fn seen(&self, user: &User) -> anyhow::Result<()> {
        let purchases = self.ports.url(Service::Purchases);
        let url = format!(
            "{purchases}/users/{}/purchases?after={}",
            user.id,
            self.after()
        );
        let answer = send(&self.client.get(url))
            .await
            .context("wait for purchases")?;
        if answer.status() != StatusCode::OK {
            bail!(
                "read the purchases of {}: {}",
                user.name,
                refusal(answer).await
            );
        }
        Ok(())
    }

    /// Notes `Headwater-Position: <source>:<position>`.
    fn note_position(&mut self, answer: &Response) {
        let position = answer
            .headers()
            .get("headwater-position")
            .and_then(|value| value.to_str().ok()?.split_once(':'))
            .and_then(|(source, position)| Some((source, position.parse::<u64>().ok()?)));
        if let Some((source, position)) = position {
            let highest = self.positions.entry(source.to_owned()).or_default();
            *highest = position.max(*highest);
        }
    }

    /// All positions so far, as `?after` takes it: `products:24,users:6`.
    fn after(&self) -> String {
        let positions = self.positions.iter();
        positions
            .map(|(source, position)| format!("{source}:{position}"))
            .collect::<Vec<_>>()
            .join(",")
    }
}
