//! Style composition: HTTP requests to the three sources. The pattern is called API composition.

use std::sync::Arc;
use std::time::Duration;

use headwater::Positions;
use headwater::http::POSITION;
use headwater::telemetry::trace::{self, SpanKind};
use reqwest::{Client, RequestBuilder, StatusCode, redirect};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use url::Url;
use uuid::Uuid;

use super::failure::{Answer, Why};
use super::gathered::{Order, Orders, Product};

/// The most orders per page: with a thousand lines each, 4 MB of JSON.
const ORDERS_MAX: usize = 100;

/// The most products per request: their ids take 4 KB of the request's head.
pub(super) const PRODUCTS_MAX: usize = 100;

/// The largest accepted answer, in bytes: twice a page of large orders.
const ANSWER_MAX: usize = 8 * 1024 * 1024;

/// The timeout of a connection to a source. A running source accepts at once.
const CONNECT_WITHIN: Duration = Duration::from_millis(500);

/// The most idle connections to each source, and how long they are kept: shorter than the source
/// keeps them.
const IDLE_MAX: usize = 64;
const IDLE: Duration = Duration::from_secs(5);

/// The URLs of the sources.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Composition (style composition)")]
pub struct Urls {
    /// The service `users`
    #[arg(
        long = "users-url",
        env = "HEADWATER_USERS_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:8081"
    )]
    pub users: Url,
    /// The service `products`
    #[arg(
        long = "products-url",
        env = "HEADWATER_PRODUCTS_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:8082"
    )]
    pub products: Url,
    /// The service `orders`; in every style, the order form sends orders to it
    #[arg(
        long = "orders-url",
        env = "HEADWATER_ORDERS_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:8083"
    )]
    pub orders: Url,
}

/// Asks over HTTP. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Composition {
    client: Client,
    urls: Arc<Urls>,
    /// One permit per request.
    under_way: Arc<Semaphore>,
}

#[derive(Deserialize)]
struct User {
    id: Uuid,
    name: String,
}

#[derive(Deserialize)]
struct Page<T> {
    items: Vec<T>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct OrderRow {
    id: Uuid,
    product_ids: Vec<Uuid>,
    placed_at: String,
}

impl Composition {
    /// `questions_max`: the most concurrent requests.
    pub(crate) fn new(urls: Urls, questions_max: usize) -> reqwest::Result<Self> {
        let client = Client::builder()
            // The sources are on the same network: ignore proxy variables.
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_WITHIN)
            .pool_max_idle_per_host(IDLE_MAX)
            .pool_idle_timeout(IDLE)
            .build()?;
        Ok(Self {
            client,
            urls: Arc::new(urls),
            under_way: Arc::new(Semaphore::new(questions_max)),
        })
    }

    /// `GET /users/{id}`.
    pub(super) async fn is_known(&self, user: Uuid, deadline: Instant) -> Answer<bool> {
        let url = at(&self.urls.users, &format!("/users/{user}"));
        let (found, as_of) = self.get::<User>(url, deadline).await?;
        match found {
            Some(found) if found.id != user => Err(Why::InvalidAnswer("another user".to_owned())),
            found => Ok((found.is_some(), as_of)),
        }
    }

    /// The name of a user, to show it; `None` if there is no such user.
    pub(crate) async fn name(&self, user: Uuid, deadline: Instant) -> Result<Option<String>, Why> {
        let url = at(&self.urls.users, &format!("/users/{user}"));
        let (found, _) = self.get::<User>(url, deadline).await?;
        Ok(found.map(|found| found.name))
    }

    /// `GET /orders?user_id=`, one page.
    pub(super) async fn orders(
        &self,
        user: Uuid,
        start_after: Option<Uuid>,
        deadline: Instant,
    ) -> Answer<Orders> {
        let mut path = format!("/orders?user_id={user}&limit={ORDERS_MAX}");
        if let Some(start_after) = start_after {
            path = format!("{path}&start_after={start_after}");
        }
        let url = at(&self.urls.orders, &path);
        let (page, as_of) = self.page::<OrderRow>(url, deadline).await?;
        // `next` need not be parsed: its cursor is the id of the last order.
        let last = page.items.last().filter(|_| page.next.is_some());
        let next = last.map(|order| order.id);
        let orders = page.items.into_iter().map(Order::try_from);
        let orders = orders.collect::<Result<_, _>>()?;
        Ok((Orders { orders, next }, as_of))
    }

    /// `GET /products?ids=`.
    pub(super) async fn products(&self, ids: &[Uuid], deadline: Instant) -> Answer<Vec<Product>> {
        let path = if ids.is_empty() {
            // Any answer has the position.
            "/products?limit=1".to_owned()
        } else {
            let ids: Vec<String> = ids.iter().map(Uuid::to_string).collect();
            format!("/products?ids={}", ids.join(","))
        };
        let url = at(&self.urls.products, &path);
        let (page, as_of) = self.page(url, deadline).await?;
        Ok((page.items, as_of))
    }

    async fn page<T: DeserializeOwned>(&self, url: String, deadline: Instant) -> Answer<Page<T>> {
        let (page, as_of) = self.get(url, deadline).await?;
        let page = page.ok_or(Why::Status(StatusCode::NOT_FOUND.as_u16()))?;
        Ok((page, as_of))
    }

    /// The resource at `url`; `None` for 404.
    async fn get<T: DeserializeOwned>(&self, url: String, deadline: Instant) -> Answer<Option<T>> {
        let _permit = self.under_way.try_acquire().map_err(|_| Why::Full)?;
        let span = trace::part(SpanKind::Client, || "GET");
        if span.is_recording() {
            span.set("http.request.method", "GET");
            // Without the query, which may have a hundred ids.
            let path = url.split('?').next().unwrap_or_default();
            span.set("url.full", path.to_owned());
        }
        let mut request = self.client.get(url);
        if let Some(traceparent) = span.traceparent() {
            request = request.header(trace::TRACEPARENT, traceparent);
        }
        let (status, as_of, body) = timeout_at(deadline, read(request))
            .await
            .map_err(|_| Why::Late)
            .flatten()
            .inspect_err(|why| span.fail(why))?;
        span.set("http.response.status_code", i64::from(status.as_u16()));
        let is_there = match status {
            StatusCode::OK => true,
            StatusCode::NOT_FOUND => false,
            status => return Err(Why::Status(status.as_u16())),
        };
        let as_of = as_of.ok_or_else(|| Why::InvalidAnswer(format!("it has no {POSITION}")))?;
        let found = is_there.then(|| serde_json::from_slice(&body)).transpose();
        let found = found.map_err(|error| Why::InvalidAnswer(error.to_string()))?;
        Ok((found, as_of))
    }
}

fn at(base: &Url, path: &str) -> String {
    format!("{}{path}", base.as_str().trim_end_matches('/'))
}

/// Sends a request; returns status, position and body of the answer.
async fn read(request: RequestBuilder) -> Result<(StatusCode, Option<Positions>, Vec<u8>), Why> {
    let mut response = request.send().await?;
    let position = response.headers().get(&POSITION);
    let position = position.and_then(|value| value.to_str().ok()?.parse().ok());
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > ANSWER_MAX {
            return Err(Why::InvalidAnswer(format!("more than {ANSWER_MAX} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok((response.status(), position, body))
}

impl From<reqwest::Error> for Why {
    fn from(error: reqwest::Error) -> Self {
        // The innermost cause is the most specific: `connection refused`.
        let mut cause: &dyn std::error::Error = &error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        Self::Unreachable(cause.to_string())
    }
}

impl TryFrom<OrderRow> for Order {
    type Error = Why;

    fn try_from(row: OrderRow) -> Result<Self, Why> {
        let placed_at: shop_events::Timestamp = row
            .placed_at
            .parse()
            .map_err(|error| Why::InvalidAnswer(format!("`{}`: {error}", row.placed_at)))?;
        Ok(Self {
            product_ids: row.product_ids,
            placed_at: shop_events::millis(&placed_at),
        })
    }
}
