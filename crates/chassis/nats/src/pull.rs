//! Requests for events from a durable consumer.
//!
//! If a heartbeat is late, the client library's pull stream gives up and requests everything again.
//! On a slow link, the requested events themselves delay the heartbeats, so it makes no progress.
//! Here, a request asks for as much as the [window](crate::window) allows, and waits as long as the
//! events take. The reader checks whether a silent consumer still exists.

use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use async_nats::jetstream::consumer::pull::BatchConfig;
use async_nats::jetstream::consumer::{self, PullConsumer};
use async_nats::jetstream::message::Message;
use async_nats::{HeaderMap, StatusCode, Subject, Subscriber};
use futures_util::StreamExt as _;

use crate::bus::Bus;
use crate::error::Error;
use crate::window::Window;

/// The interval of heartbeats from a consumer without new events.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// How long a request stays open at the server. If the server does not notice that the reader is
/// gone, the request takes events until then.
pub(super) const EXPIRES: Duration = Duration::from_secs(5);

/// After this many requests in a row that the next event did not fit into, events are requested one
/// by one, whatever their size.
const MISFITS_MAX: u32 = 3;

/// The number of events under way while they are requested one by one.
const ONE_BY_ONE: usize = 2;

const STATUS_HEARTBEAT: u16 = 100;
const STATUS_NO_MESSAGES: u16 = 404;
const STATUS_TIMEOUT: u16 = 408;
const STATUS_CONFLICT: u16 = 409;
const TOO_LARGE: &str = "Message Size Exceeds MaxBytes";
/// All events of a request have arrived, and they were smaller than it allowed.
const COMPLETED: &str = "Batch Completed";
const PENDING_MESSAGES: &str = "Nats-Pending-Messages";

/// The limits of one request in a consumer's configuration, which includes the server's limits.
#[derive(Debug, Clone, Copy)]
struct Limits {
    events: usize,
    bytes: usize,
    expires: Duration,
    /// The maximum number of requests that wait at the same time.
    requests: usize,
}

/// The maximum number of requests at the same time, if a consumer allows few events per request.
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
    /// The number of events that were requested and have not arrived.
    under_way: usize,
    /// How many requests in a row the next event did not fit into.
    misfits: u32,
    /// When the last message from the server arrived.
    heard: Instant,
    /// Whether to request nothing more.
    has_ended: bool,
}

/// Subscribes to an inbox for the answers to requests.
async fn subscribe(bus: &Bus) -> anyhow::Result<(Subject, Subscriber)> {
    let inbox = Subject::from(bus.client.new_inbox());
    let subscriber = bus.client.subscribe(inbox.clone()).await;
    Ok((inbox, subscriber.context("subscribe to the events")?))
}

impl Pull {
    /// Starts to request events from `consumer`.
    ///
    /// # Errors
    /// The connection is closed for good.
    pub async fn open(bus: &Bus, consumer: PullConsumer, window: Window) -> Result<Self, Error> {
        let (inbox, subscriber) = subscribe(bus).await.map_err(Error::of)?;
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

    /// The next event. Cancellation-safe: no event is lost.
    ///
    /// # Errors
    /// The consumer is gone, or the broker refuses to deliver: place it again.
    pub async fn next(&mut self) -> Result<Message, Error> {
        self.try_next().await.map_err(Error::of)
    }

    async fn try_next(&mut self) -> anyhow::Result<Message> {
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

    /// Starts again at `sequence`, and drops the events under way.
    ///
    /// # Errors
    /// Those of requests to the broker.
    pub async fn begin_again(&mut self, sequence: u64) -> Result<(), Error> {
        self.try_begin_again(sequence).await.map_err(Error::of)
    }

    async fn try_begin_again(&mut self, sequence: u64) -> anyhow::Result<()> {
        (self.inbox, self.subscriber) = subscribe(&self.bus).await?;
        let reset = self.consumer.reset(Some(sequence)).await;
        reset.context("reset the consumer to the sequence after an empty event")?;
        self.under_way = 0;
        Ok(())
    }

    /// Notes that no events wait at the server, so the rate does not measure the link.
    pub fn note_end(&mut self) {
        self.window.measure_from(self.heard);
    }

    /// Stops requesting events.
    pub fn end(&mut self) {
        self.has_ended = true;
    }

    /// The time since the last message from the server, heartbeats included.
    pub fn silent_for(&self) -> Duration {
        self.heard.elapsed()
    }

    /// The size of the window, in bytes.
    pub fn window_bytes(&self) -> usize {
        self.window.bytes()
    }

    /// Requests more events once a part of the window is free.
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
        // The server silently drops requests above the limit.
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
            asked.await.context("request events")?;
            self.under_way += events;
        }
        Ok(())
    }

    /// Handles a status that the server sent instead of an event.
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
            _ => return Err(anyhow!("the server returned {status} {description}")),
        }
        Ok(())
    }
}
