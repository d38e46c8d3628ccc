//! The common part of composition and request-reply: for each answer, ask the sources and combine
//! their answers.
//!
//! The first two questions run concurrently: does the user exist, and what did the user order (page
//! by page)? Then the products follow, in chunks, several chunks concurrently. One deadline covers
//! all questions. If a question fails, the answer fails.

mod composition;
mod failure;
mod gathered;
mod request_reply;
mod transport;

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream, try_join};
use headwater::health::State;
use headwater::http::Problem;
use headwater::projection::Behind;
use headwater::{Health, Positions};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

pub(crate) use composition::Composition;
pub use composition::Urls;
pub(crate) use request_reply::RequestReply;
pub(crate) use transport::Transport;

use crate::list;
use crate::purchase::{Found, Part};
use failure::{Answer, Failure, Why, not_yet};
use gathered::{Orders, Product, add_positions, with_looks};

const USERS: &str = "users";
const PRODUCTS: &str = "products";
const ORDERS: &str = "orders";
const SOURCES: [&str; 3] = [USERS, PRODUCTS, ORDERS];

/// The most concurrent questions about products per answer.
const CHUNKS_AT_ONCE: usize = 8;

/// The pause before the sources are asked again because they have not reached the positions of
/// `?after`.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// How the sources are asked.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Asking (styles composition and request-reply)")]
pub struct Config {
    /// Time an answer may take, all its questions together
    #[arg(
        long,
        env = "HEADWATER_ANSWER_TIMEOUT",
        value_name = "DURATION",
        value_parser = headwater::telemetry::duration,
        default_value = "2s"
    )]
    pub answer_timeout: Duration,
    /// Questions under way at the same time; further ones are refused
    #[arg(long, env = "HEADWATER_QUESTIONS_MAX", default_value_t = 1024)]
    pub questions_max: usize,
    /// Different products put together for all answers under way, some 60 bytes each. Which of
    /// them come first in the list shows only when all orders have been read
    #[arg(long, env = "HEADWATER_GATHERED_MAX", default_value_t = 1_000_000)]
    pub gathered_max: usize,
    /// Where composition finds them.
    #[command(flatten)]
    pub urls: Urls,
}

/// Asks the sources for every answer. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Asking {
    transport: Transport,
    within: Duration,
    health: Health,
    /// One permit per product in memory.
    room: Arc<Semaphore>,
    gathered_max: usize,
}

/// What a user ordered, and the permits for it.
#[derive(Debug)]
struct Ordered {
    products: gathered::Ordered,
    _room: OwnedSemaphorePermit,
}

impl Asking {
    pub(crate) fn new(transport: Transport, config: &Config, health: Health) -> Self {
        metrics::describe_counter!(
            "purchases_requests_total",
            metrics::Unit::Count,
            "Questions to a source, by HTTP or over the bus, for an answer of ours"
        );
        for source in SOURCES {
            // Both exist from the start, before the first question.
            metrics::counter!("purchases_requests_total", "source" => source).increment(0);
            health.set(source, State::Ok("not asked yet".to_owned()));
        }
        Self {
            transport,
            within: config.answer_timeout,
            health,
            room: Arc::new(Semaphore::new(config.gathered_max)),
            gathered_max: config.gathered_max,
        }
    }

    /// A part of what `user` ordered, at least as of `after`. `None` if there is no such user.
    pub(crate) async fn purchases(
        &self,
        user: Uuid,
        part: Part,
        after: &Positions,
    ) -> Result<Option<Found>, Problem> {
        let mut asked = after.0.keys();
        if let Some(unknown) = asked.find(|source| !SOURCES.contains(&source.as_str())) {
            return Err(Behind::UnknownSource(unknown.clone()).into());
        }
        let deadline = Instant::now() + self.within;
        let mut seen = None;
        loop {
            match self.round(user, part, after, deadline).await {
                Ok((found, as_of)) => {
                    // If there is no such user, only the position of `users` counts.
                    let counts = |source: &str| found.is_some() || source == USERS;
                    let mut wanted = after.0.iter().filter(|(source, _)| counts(source));
                    if wanted.all(|(source, position)| as_of.get(source) >= *position) {
                        return Ok(found);
                    }
                    seen = Some(as_of);
                }
                Err(failure) => {
                    return Err(match seen {
                        Some(at) if failure.why == Why::Late => not_yet(&at, after),
                        _ => failure.into(),
                    });
                }
            }
            sleep(AGAIN_AFTER).await;
        }
    }

    /// A product, and the position of the answer; `None` if there is no such product.
    pub(crate) async fn product(
        &self,
        product: Uuid,
    ) -> Result<Option<(list::Product, Positions)>, Problem> {
        let deadline = Instant::now() + self.within;
        let question = self.transport.products(vec![product], deadline);
        let (products, as_of) = self.ask(PRODUCTS, question).await?;
        let found = products.into_iter().find(|it| it.id == product);
        let found = found.map(|it| list::Product {
            id: it.id,
            look: Some((it.title, it.image)),
        });
        Ok(found.map(|product| (product, as_of)))
    }

    /// The result of one round of questions, and the positions of all its answers.
    async fn round(
        &self,
        user: Uuid,
        part: Part,
        after: &Positions,
        deadline: Instant,
    ) -> Result<(Option<Found>, Positions), Failure> {
        let is_known = self.ask(USERS, self.transport.is_known(user, deadline));
        // If the user is unknown, the answer of `orders` does not matter, not even its failure.
        let ordered = async { Ok(self.ordered(user, deadline).await) };
        let ((is_known, mut as_of), ordered) = try_join!(is_known, ordered)?;
        if !is_known {
            return Ok((None, as_of));
        }
        let (ordered, orders_at) = ordered?;
        add_positions(&mut as_of, orders_at);
        let (places, more) = ordered.products.part(part);
        drop(ordered);
        let ids: Vec<Uuid> = places.iter().map(|(place, _)| place.product_id).collect();
        let chunks = ids.chunks(self.transport.products_max());
        let mut chunks: Vec<Vec<Uuid>> = chunks.map(<[Uuid]>::to_vec).collect();
        if chunks.is_empty() && after.0.contains_key(PRODUCTS) {
            // There are no products to ask for, but the position of `products` is needed.
            chunks.push(Vec::new());
        }
        let mut products = Vec::new();
        for (some, at) in self.products(chunks, deadline).await? {
            products.extend(some);
            add_positions(&mut as_of, at);
        }
        let found = Found {
            purchases: with_looks(places, products),
            more,
            newest: None,
            as_of: as_of.clone(),
            parked: Positions::default(),
        };
        Ok((Some(found), as_of))
    }

    /// All orders, page by page.
    async fn ordered(
        &self,
        user: Uuid,
        deadline: Instant,
    ) -> Result<(Ordered, Positions), Failure> {
        let (mut products, mut as_of) = (gathered::Ordered::default(), Positions::default());
        let mut room = self.take_room(0, 0)?;
        let mut start_after = None;
        loop {
            let question = self.transport.orders(user, start_after, deadline);
            let (Orders { orders, next }, at) = self.ask(ORDERS, question).await?;
            let before = products.len();
            products.add(orders);
            let all = products.len();
            room.merge(self.take_room(all - before, all)?);
            add_positions(&mut as_of, at);
            if next.is_none() {
                return Ok((
                    Ordered {
                        products,
                        _room: room,
                    },
                    as_of,
                ));
            }
            start_after = next;
        }
    }

    /// Permits for `added` more products of an answer that has `all` so far.
    fn take_room(&self, added: usize, all: usize) -> Result<OwnedSemaphorePermit, Failure> {
        let permits = u32::try_from(added).unwrap_or(u32::MAX);
        let taken = Arc::clone(&self.room).try_acquire_many_owned(permits);
        taken.map_err(|_| Failure {
            of: ORDERS,
            why: if all > self.gathered_max {
                Why::TooMuch(self.gathered_max)
            } else {
                Why::NoRoom(self.gathered_max)
            },
        })
    }

    /// The titles and images of the products in `chunks`.
    async fn products(
        &self,
        chunks: Vec<Vec<Uuid>>,
        deadline: Instant,
    ) -> Result<Vec<(Vec<Product>, Positions)>, Failure> {
        let ask = |ids| self.ask(PRODUCTS, self.transport.products(ids, deadline));
        let answers = stream::iter(chunks).map(ask);
        answers.buffer_unordered(CHUNKS_AT_ONCE).try_collect().await
    }

    /// Asks `source` one question, counts it, and records the health of the source.
    async fn ask<T>(
        &self,
        source: &'static str,
        question: impl Future<Output = Answer<T>>,
    ) -> Result<(T, Positions), Failure> {
        metrics::counter!("purchases_requests_total", "source" => source).increment(1);
        match question.await {
            Ok((answer, as_of)) if as_of.0.contains_key(source) => {
                self.health.set(source, State::Ok("answers".to_owned()));
                Ok((answer, as_of))
            }
            Ok((_, as_of)) => {
                let why = format!("it is as of {as_of}, which is not a position of {source}");
                Err(self.note(source, Why::InvalidAnswer(why)))
            }
            Err(why) => Err(self.note(source, why)),
        }
    }

    fn note(&self, source: &'static str, why: Why) -> Failure {
        tracing::warn!(source, %why, "a source did not answer a question");
        self.health.set(source, State::Degraded(why.to_string()));
        Failure { of: source, why }
    }
}
