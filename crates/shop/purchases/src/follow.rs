//! What has changed on the first page of what a user ordered, as a stream of events.
//!
//! A stream is woken by events about its user or one of the products that it shows, not by every
//! commit. It then reads the page as it is now and sends what differs from what it sent before, so
//! any number of changes in between cost one read, and a client that reconnects misses nothing.

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::Response;
use axum::response::sse::Event;
use futures_util::{FutureExt as _, stream};
use headwater::Positions;
use headwater::http::{EventStream, Problem};
use headwater::projection::Follower;
use serde::Serialize;
use tokio::time::Instant;
use url::Url;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::page::{self, Shared};
use crate::purchase::{Found, Order, Part, Purchase};
use crate::replica::Replica;

/// The shortest time between two reads of a stream.
const PAUSE: Duration = Duration::from_millis(200);

/// The data of an event `purchases`: what has changed on the first page of the list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Changed {
    /// All products on the page, the newest first.
    order: Vec<Uuid>,
    /// Those that are new or have changed.
    purchases: Vec<Purchase>,
    /// For the web page: the HTML of the cards (by product id) and other elements that have
    /// changed.
    html: BTreeMap<String, String>,
}

/// The answer that follows the newest `limit` products of `user`. `None` if there is no such user.
pub(crate) async fn follow(
    shared: &Shared,
    stream: EventStream,
    user: Uuid,
    limit: usize,
    after: &Positions,
) -> Result<Option<Response>, Problem> {
    let Some(replica) = shared.answers.replica().cloned() else {
        return Err(Problem::new(
            StatusCode::NOT_ACCEPTABLE,
            "not-acceptable",
            "only a service with a copy of its own (style replica) has a stream: ask without \
             Accept: text/event-stream",
        ));
    };
    let mut follower = replica.follow();
    follower.set([user.to_string()]);
    let part = Part {
        limit,
        from: None,
        order: Order::NewestFirst,
        with_newest: false,
    };
    let Some(found) = replica.purchases(user, part, after).await? else {
        return Ok(None);
    };
    let following = Following {
        replica,
        follower,
        user,
        part,
        images_url: shared.images_url.clone(),
        seen: stream.seen.clone(),
        sent: HashSet::new(),
        hasher: RandomState::new(),
        read_at: Instant::now(),
        next: Next::Found(found),
    };
    let events = stream::unfold(following, |mut following| async move {
        let event = following.event().await?;
        Some((event, following))
    });
    Ok(Some(stream.respond(events)))
}

/// A stream, between two events.
struct Following {
    replica: Replica,
    follower: Follower,
    user: Uuid,
    part: Part,
    images_url: Url,
    /// The positions that the client has seen, before the first event.
    seen: Option<Positions>,
    /// The hashes of what the client has.
    sent: HashSet<u64>,
    hasher: RandomState,
    read_at: Instant,
    next: Next,
}

/// What a stream does next.
enum Next {
    /// Look at what was just read.
    Found(Found),
    /// Read again: something may have changed before it was followed.
    Read,
    /// Read when something has changed.
    Wait,
    End,
}

impl Following {
    /// The next event; `None` at the end.
    async fn event(&mut self) -> Option<Event> {
        loop {
            let found = match std::mem::replace(&mut self.next, Next::Wait) {
                Next::Found(found) => Some(found),
                Next::Read => self.read().await?,
                Next::Wait => {
                    self.follower.changed().await;
                    self.read().await?
                }
                Next::End => return None,
            };
            let Some(found) = found else {
                self.next = Next::End;
                return Some(Event::default().event("erased").data("{}"));
            };
            if let Some(event) = self.compare(found) {
                return Some(event);
            }
        }
    }

    /// The page as it is now, but not too soon after the last read. The outer `None` if it cannot be
    /// read: the client comes again.
    async fn read(&mut self) -> Option<Option<Found>> {
        tokio::time::sleep_until(self.read_at + PAUSE).await;
        self.read_at = Instant::now();
        // The read sees what woke it meanwhile.
        let _ = self.follower.changed().now_or_never();
        let nothing = Positions::default();
        let read = self.replica.purchases(self.user, self.part, &nothing);
        read.await.ok()
    }

    /// The event with what the client does not have, if there is something.
    fn compare(&mut self, found: Found) -> Option<Event> {
        let products = found.purchases.iter();
        let keys = products.map(|(_, purchase)| purchase.product_id.to_string());
        let are_some_new = self.follower.set(keys.chain([self.user.to_string()]));
        if are_some_new && !self.replica.is_now(&found) {
            self.next = Next::Read;
        }
        // While an event is parked, later ones change the page and not its positions.
        let seen = self.seen.take();
        let is_seen = found.parked.is_empty() && seen.as_ref() == Some(&found.as_of);
        let as_of = found.as_of.to_string();
        let changed = self.changed(found)?;
        let event = Event::default().event("purchases").id(as_of);
        let event = event.json_data(changed).ok()?;
        (!is_seen).then_some(event)
    }

    fn changed(&mut self, found: Found) -> Option<Changed> {
        let purchases = found.purchases.clone();
        let purchases = purchases.into_iter().map(|(_, purchase)| purchase);
        let parts = page::parts(self.user, self.part, found, &self.images_url).ok()?;
        let before = std::mem::take(&mut self.sent);
        let mut is_new = |hash: u64| {
            self.sent.insert(hash);
            !before.contains(&hash)
        };
        let hasher = &self.hasher;
        let mut changed = Changed {
            order: purchases
                .clone()
                .map(|purchase| purchase.product_id)
                .collect(),
            purchases: Vec::new(),
            html: BTreeMap::new(),
        };
        let mut are_any = is_new(hasher.hash_one(&changed.order));
        for (id, html) in parts.others {
            if is_new(hasher.hash_one((id, &html))) {
                changed.html.insert(id.to_owned(), html);
            }
        }
        for (purchase, html) in purchases.zip(parts.cards) {
            if is_new(hasher.hash_one((&purchase, &html))) {
                changed.html.insert(purchase.product_id.to_string(), html);
                changed.purchases.push(purchase);
            }
        }
        are_any |= !changed.html.is_empty();
        are_any.then_some(changed)
    }
}
