//! Requests for events at a durable consumer.
//!
//! The client's own stream of pulls gives up, and asks for everything again, when a heartbeat is
//! late. On a slow link heartbeats are late because of what was asked for, and so it never gets
//! ahead. Here a request asks for as much as the [window](crate::window) has room for, what was
//! asked for is waited for however long it takes, and whether a silent consumer is still there is
//! for the reader to find out.

use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use async_nats::jetstream::consumer::pull::BatchConfig;
use async_nats::jetstream::consumer::{self, PullConsumer};
use async_nats::jetstream::message::Message;
use async_nats::{HeaderMap, StatusCode, Subject, Subscriber};
use futures_util::StreamExt as _;

use crate::bus::Bus;
use crate::window::Window;

/// How often a consumer with nothing to hand over says that it is there.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// How long a request stays open at the server: one that nobody reads any more hands events out
/// until then, where the server does not see that.
pub(super) const EXPIRES: Duration = Duration::from_secs(5);

/// How many events that do not fit into a request come in a row before they are asked for one
/// by one, whatever their size.
const MISFITS_MAX: u32 = 3;

/// Events that are under way while they are asked for one by one.
const ONE_BY_ONE: usize = 2;

const STATUS_HEARTBEAT: u16 = 100;
const STATUS_NO_MESSAGES: u16 = 404;
const STATUS_TIMEOUT: u16 = 408;
const STATUS_CONFLICT: u16 = 409;
const TOO_LARGE: &str = "Message Size Exceeds MaxBytes";
/// All events of a request have come, and they were smaller than it allowed.
const COMPLETED: &str = "Batch Completed";
const PENDING_MESSAGES: &str = "Nats-Pending-Messages";

/// What a consumer's configuration allows in one request; the server's own limits are in it, too.
#[derive(Debug, Clone, Copy)]
struct Limits {
    events: usize,
    bytes: usize,
    expires: Duration,
    /// Requests that may wait at the same time.
    requests: usize,
}

/// The most requests at the same time, where a consumer allows few events in each.
const REQUESTS_MAX: usize = 16;

impl Limits {
    fn of(config: &consumer::Config) -> Self {
        let limit = |value: i64| usize::try_from(value).ok().filter(|value| *value > 0);
        let expires = Some(config.max_expires).filter(|expires| !expires.is_zero());
        Self {
            events: limit(config.max_batch).unwrap_or(usize::MAX),
            bytes: limit(config.max_bytes).unwrap_or(usize::MAX),
            expires: expires.unwrap_or(EXPIRES).min(EXPIRES),
            requests: limit(config.max_waiting)
                .unwrap_or(usize::MAX)
                .min(REQUESTS_MAX),
        }
    }
}

/// The requests of one feed.
#[derive(Debug)]
pub struct Pull {
    bus: Bus,
    consumer: PullConsumer,
    limits: Limits,
    inbox: Subject,
    subscriber: Subscriber,
    window: Window,
    /// Events that were asked for, and are not here yet.
    under_way: usize,
    /// How many requests in a row the next event did not fit into.
    misfits: u32,
    /// When the last message of the server came.
    heard: Instant,
    /// Whether nothing more is asked for.
    has_ended: bool,
}

/// A place for the answers to requests.
async fn subscribe(bus: &Bus) -> anyhow::Result<(Subject, Subscriber)> {
    let inbox = Subject::from(bus.client.new_inbox());
    let subscriber = bus.client.subscribe(inbox.clone()).await;
    Ok((inbox, subscriber.context("subscribe to the events")?))
}

impl Pull {
    /// Asks `consumer` for events from now on.
    ///
    /// # Errors
    /// The broker cannot be reached.
    pub async fn open(bus: &Bus, consumer: PullConsumer, window: Window) -> anyhow::Result<Self> {
        let (inbox, subscriber) = subscribe(bus).await?;
        Ok(Self {
            bus: bus.clone(),
            limits: Limits::of(&consumer.cached_info().config),
            consumer,
            subscriber,
            inbox,
            window,
            under_way: 0,
            misfits: 0,
            heard: Instant::now(),
            has_ended: false,
        })
    }

    /// The next event. Nothing is lost if it is not waited for.
    pub async fn next(&mut self) -> anyhow::Result<Message> {
        loop {
            self.ask().await?;
            let message = self.subscriber.next().await;
            let message = message.context("the subscription ended")?;
            self.heard = Instant::now();
            if let Some(status) = message.status {
                let description = message.description.as_deref().unwrap_or_default();
                self.note_status(status, description, message.headers.as_ref())?;
                continue;
            }
            self.under_way = self.under_way.saturating_sub(1);
            self.window.note_event(message.length, self.heard);
            if self.misfits > 0 && message.length <= self.window.bytes_of(1) {
                self.misfits = 0;
            }
            return Ok(Message {
                message,
                context: self.bus.jetstream.clone(),
            });
        }
    }

    /// Begins again at `sequence`, and gives up what is under way.
    pub async fn begin_again(&mut self, sequence: u64) -> anyhow::Result<()> {
        (self.inbox, self.subscriber) = subscribe(&self.bus).await?;
        let reset = self.consumer.reset(Some(sequence)).await;
        reset.context("place the consumer behind an empty event")?;
        self.under_way = 0;
        Ok(())
    }

    /// Says that nothing more waits at the server: the rate says nothing of the link.
    pub fn note_end(&mut self) {
        self.window.measure_from(self.heard);
    }

    /// Asks for nothing more.
    pub fn end(&mut self) {
        self.has_ended = true;
    }

    /// How long ago the last message of the server came, heartbeats included.
    pub fn silent_for(&self) -> Duration {
        self.heard.elapsed()
    }

    /// What the link carries in about a quarter of a second, in bytes.
    pub fn window_bytes(&self) -> usize {
        self.window.bytes()
    }

    /// Asks for more once a part of the window is free.
    async fn ask(&mut self) -> anyhow::Result<()> {
        if self.has_ended {
            return Ok(());
        }
        let one_by_one = self.misfits >= MISFITS_MAX;
        let window = if one_by_one {
            ONE_BY_ONE
        } else {
            self.window.events()
        };
        let most = if one_by_one { 1 } else { self.limits.events };
        // The server drops one request too many without a word.
        let window = window.min(most.saturating_mul(self.limits.requests));
        let share = if self.limits.requests < REQUESTS_MAX {
            1
        } else {
            4
        };
        while self.under_way <= window - window.div_ceil(share) {
            let events = (window - self.under_way).min(most);
            let max_bytes = if one_by_one {
                0
            } else {
                self.window.bytes_of(events).min(self.limits.bytes)
            };
            let request = BatchConfig {
                batch: events,
                max_bytes,
                expires: Some(self.limits.expires),
                idle_heartbeat: HEARTBEAT.min(self.limits.expires / 2),
                ..BatchConfig::default()
            };
            let asked = self.consumer.request_batch(request, self.inbox.clone());
            asked.await.context("ask for events")?;
            self.under_way += events;
        }
        Ok(())
    }

    /// What the server says instead of an event.
    fn note_status(
        &mut self,
        status: StatusCode,
        description: &str,
        headers: Option<&HeaderMap>,
    ) -> anyhow::Result<()> {
        let unused = headers
            .and_then(|headers| headers.get(PENDING_MESSAGES))
            .and_then(|unused| unused.as_str().parse().ok());
        match (status.as_u16(), unused) {
            (STATUS_HEARTBEAT, _) => {}
            (STATUS_CONFLICT, _) if description == COMPLETED => {}
            (STATUS_NO_MESSAGES | STATUS_TIMEOUT, Some(unused)) => {
                self.under_way = self.under_way.saturating_sub(unused);
            }
            (STATUS_CONFLICT, Some(unused)) if description == TOO_LARGE => {
                self.under_way = self.under_way.saturating_sub(unused);
                self.misfits += 1;
                self.window.note_larger();
            }
            _ if status == StatusCode::NO_RESPONDERS => bail!("the consumer is gone"),
            _ => return Err(anyhow!("the server says {status} {description}")),
        }
        Ok(())
    }
}
