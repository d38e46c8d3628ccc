//! The relay: moves a source's outbox to its stream, in order, each event once.
//!
//! # What
//!
//! One task a source. It reads the outbox from where the stream ends and publishes, woken by
//! each commit (or by a slow poll, should another process have written). It keeps no memory of
//! its own on disk: **the tail of the stream says how far it got**.
//!
//! # The fence
//!
//! Every publication carries `Nats-Expected-Last-Sequence`, and those that follow others without
//! waiting for them `Nats-Expected-Last-Msg-Id`: the server stores it only if the stream still ends
//! where this relay believes it ends, and with what. So
//!
//! * two relays of one source are harmless: one of the two is refused and looks again,
//! * a publication that arrives late (after a timeout, out of a paused server) is refused, or its
//!   successor is,
//! * order cannot be broken by a reconnect that loses the middle of what was in flight.
//!
//! `Nats-Msg-Id` alone would not do: the server forgets it after the dedupe window.
//!
//! # Worked example
//!
//! The outbox holds 1…7, the stream ends at sequence 5 with `orders.x.4` (somebody published one
//! event by hand). The relay reads the tail: last own position 4, last sequence 5. It publishes
//! position 5 expecting sequence 5, position 6 expecting 6, position 7 expecting 7. The answer for
//! 7 is lost. *Unknown* is not *failed*: the relay reads the tail again, finds `orders.x.7`, and
//! goes on with 8.
//!
//! Where several copies of the stream are kept, positions 5 to 7 would be one atomic batch, which
//! needs no ids to be checked (ADR 9).
//!
//! # What it does with each finding
//!
//! | the tail | the relay |
//! | --- | --- |
//! | ends at an event that it published itself, or should have | continues after it |
//! | has events that are not this outbox's | steps over them |
//! | ends *behind* what was already acknowledged | warns, counts, publishes again from there |
//! | begins later than before | warns, counts; the outbox has what is gone |
//! | ends *ahead* of the outbox, or differs from it | stops, says what to do, never overwrites |
//!
//! The last happens when a source's database was put back from an old copy: the stream knows
//! events that the database has forgotten. Which of the two is right, a person must decide.

mod place;
mod publish;
mod tail;

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use async_nats::jetstream::stream::{Info, Stream};
use sea_orm::DbErr;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::bus::{Bus, NOT_CONNECTED};
use crate::database::{Database, Snapshot};
use crate::health::{Health, State};
use crate::{crash, outbox, stream};
use place::{Finding, Place};
use publish::{Outcome, Way};

/// How many events go into one batch: the server's limit.
const BATCH_MAX: usize = 1000;

/// How large a batch may be, in bytes: it has to get through within one request's timeout.
const BATCH_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// How long the relay lets rows gather after a batch that was large but not full: under load
/// fewer, larger batches cost the broker much less, and nobody waits for the difference.
const GATHER: Duration = Duration::from_millis(20);

/// From how many rows on it does: as many as only a load brings that gathers as many again. A
/// thousand events a second are published as they come; were they made to gather once, by a
/// hiccup, they would be a batch each time.
const GATHER_FROM: usize = 100;

/// How long the relay waits for a commit before it looks at the outbox all the same, because
/// another process may have written; and how often it looks at the stream, which may have been
/// put back or purged.
const POLL: Duration = Duration::from_secs(2);

/// Pauses between attempts while the broker cannot be reached or refuses.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// How often a stopped relay looks whether a person has put things right.
const STOPPED_PAUSE: Duration = Duration::from_secs(3);

/// The name of the relay's line in `/readyz?verbose`.
const CHECK: &str = "relay";

/// Moves the outbox of a database to its stream.
#[derive(Debug)]
pub struct Relay {
    db: Database,
    bus: Bus,
    health: Health,
    /// The newest event that this relay knows to be stored, and its sequence.
    acknowledged: Place,
    /// Where the stream began when it was looked at last.
    begins: Beginning,
    /// Where the fence held last.
    refused: Option<Place>,
    published: watch::Sender<Option<u64>>,
}

/// How far a relay is, for those who watch. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Published(watch::Receiver<Option<u64>>);

impl Published {
    /// The last position that is known to be in the stream; `None` while that is not known.
    pub(crate) fn position(&self) -> Option<u64> {
        *self.0.borrow()
    }
}

/// Where a stream begins, and which one it is.
#[derive(Debug, Clone, Copy, Default)]
struct Beginning {
    created: i64,
    sequence: u64,
}

impl Beginning {
    /// An empty stream begins where its first event will be.
    fn of(info: &Info) -> Self {
        Self {
            created: stream::created(info),
            sequence: info.state.first_sequence.max(1),
        }
    }
}

/// Why publishing ended.
enum Ended {
    /// The stream is not as it was left: what was seen.
    MovedOn(String),
    /// The stream and the outbox contradict each other: why.
    Contradicted(String),
}

impl Relay {
    /// The relay of `db`'s owner.
    pub fn new(db: Database, bus: Bus, health: Health) -> Self {
        health.set(CHECK, State::Degraded("starting".to_owned()));
        // Those that alerts look at are there from the start.
        for counted in ["published", "republished", "purged"] {
            let name = format!("headwater_relay_{counted}_total");
            metrics::counter!(name, "source" => db.owner()).increment(0);
        }
        Self {
            db,
            bus,
            health,
            acknowledged: Place::START,
            begins: Beginning::default(),
            refused: None,
            published: watch::Sender::new(None),
        }
    }

    /// How far it is, as it moves.
    pub(crate) fn published(&self) -> Published {
        Published(self.published.subscribe())
    }

    /// Runs until `stop`; does not end by itself, whatever the broker does.
    ///
    /// # Errors
    /// None; the type is the supervisor's.
    pub async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        stop.run_until_cancelled(Box::pin(self.run_on())).await;
        Ok(())
    }

    async fn run_on(&mut self) {
        let mut pause = PAUSE_MIN;
        loop {
            if !self.bus.is_up() {
                self.health
                    .set(CHECK, State::Degraded(NOT_CONNECTED.to_owned()));
                self.bus.up().await;
            }
            let failure = match self.work(&mut pause).await {
                Ok(contradiction) => {
                    self.note_stopped(&contradiction);
                    tokio::time::sleep(STOPPED_PAUSE).await;
                    continue;
                }
                Err(failure) => failure,
            };
            self.health
                .set(CHECK, State::Degraded(format!("waiting: {failure:#}")));
            tracing::warn!(
                source = self.db.owner(),
                reason = format!("{failure:#}"),
                pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                "relay waits"
            );
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Takes its place and publishes from there, again and again. Ends with the reason of a
    /// contradiction.
    async fn work(&mut self, pause: &mut Duration) -> anyhow::Result<String> {
        loop {
            let bus = self.bus.clone();
            let seen = bus.seen();
            let ended = tokio::select! {
                ended = self.publish(pause) => ended?,
                // What was asked for went with the connection: no use in waiting for it.
                () = bus.reconnected(seen) => Ended::MovedOn("reconnected".to_owned()),
            };
            match ended {
                Ended::Contradicted(reason) => return Ok(reason),
                Ended::MovedOn(reason) => tracing::debug!(
                    source = self.db.owner(),
                    reason,
                    "relay takes its place again"
                ),
            }
        }
    }

    /// Takes its place and publishes from there, until the stream is not what it was believed
    /// to be.
    async fn publish(&mut self, pause: &mut Duration) -> anyhow::Result<Ended> {
        let stream = stream::ensure(&self.bus, self.db.owner())
            .await
            .context("reach the stream")?;
        let begins = Beginning::of(stream.cached_info());
        if begins.created != self.begins.created {
            self.begins = begins;
        }
        let place = match self.take_place(&stream).await? {
            Finding::Continue(place) => place,
            Finding::Contradiction(reason) => return Ok(Ended::Contradicted(reason)),
        };
        self.published.send_replace(Some(place.position));
        self.health.set(
            CHECK,
            State::Ok(format!("published up to {}", place.position)),
        );
        let reason = self.publish_from(&stream, place, pause).await?;
        Ok(Ended::MovedOn(reason))
    }

    /// Publishes whatever the outbox has after `place`, waits for more, and so on. Ends when the
    /// stream is not what it was believed to be, with what was seen.
    async fn publish_from(
        &mut self,
        stream: &Stream,
        mut place: Place,
        pause: &mut Duration,
    ) -> anyhow::Result<String> {
        let mut head = self.db.head();
        let mut looked = Instant::now();
        let mut read_ahead = Vec::new();
        let copies = stream.cached_info().config.num_replicas;
        loop {
            if looked.elapsed() >= POLL {
                if let Some(moved) = self.look(stream, place).await? {
                    return Ok(moved);
                }
                looked = Instant::now();
            }
            let mut rows = std::mem::take(&mut read_ahead);
            if rows.is_empty() {
                rows = self.page(place.position + 1).await?;
            }
            if rows.is_empty() {
                tokio::select! {
                    // Armed since the last look at the outbox: a commit in between wakes it at once.
                    Ok(()) = head.changed() => {}
                    () = tokio::time::sleep(POLL) => {}
                }
                continue;
            }
            crash::point("relay.read");
            let (source, epoch) = (self.db.owner(), &*self.db.epoch());
            let way = Way::of(rows.len(), copies);
            let publishing = publish::rows(&self.bus, way, source, epoch, &rows, place.sequence);
            let outcome = match way {
                Way::Pipelined => publishing.await,
                Way::Batch => {
                    // There is probably more: it is read while the server writes.
                    let next = place.position + 1 + rows.len() as u64;
                    let (outcome, page) = tokio::join!(publishing, self.page(next));
                    read_ahead = page?;
                    outcome
                }
            };
            match outcome {
                Outcome::Stored { last_sequence } => {
                    crash::point("relay.published");
                    place = Place {
                        position: place.position + rows.len() as u64,
                        sequence: last_sequence,
                    };
                    self.acknowledged = place;
                    *pause = PAUSE_MIN;
                    self.note_published(&rows, place);
                    if (GATHER_FROM..BATCH_MAX).contains(&rows.len())
                        && read_ahead.len() < BATCH_MAX
                    {
                        // Read again afterwards, with what has come meanwhile.
                        read_ahead.clear();
                        tokio::time::sleep(GATHER).await;
                    }
                }
                // The stream ends there, and still it is refused: the servers of a cluster have
                // to agree first on something that is under way. That is waited for.
                Outcome::Refused(reason) if self.refused == Some(place) => bail!(reason),
                Outcome::Refused(reason) => {
                    self.refused = Some(place);
                    return Ok(reason);
                }
                Outcome::Unknown(error) => return Err(error.context("publish")),
            }
        }
    }

    /// The rows of the outbox from position `from` on, as many as go into one batch.
    async fn page(&self, from: u64) -> Result<Vec<outbox::Row>, DbErr> {
        let page = move |snapshot: &Snapshot| {
            outbox::page_within(snapshot, from, BATCH_MAX, BATCH_BYTES_MAX)
        };
        self.db.read(page).await
    }

    /// Looks at the stream, whether anything is written or not: one that lost its end is filled
    /// again, one that lost its beginning is told of. Gives what was seen if it is not as `place`
    /// has it.
    async fn look(&mut self, stream: &Stream, place: Place) -> anyhow::Result<Option<String>> {
        let info = stream.get_info().await.context("read the stream's state")?;
        let before = stream.cached_info();
        let is_same = info.created == before.created
            && info.config.num_replicas == before.config.num_replicas
            && info.state.last_sequence == place.sequence
            && (info.state.messages > 0 || place.position == 0)
            && self.newest_is_there(stream).await?;
        if is_same {
            self.note_beginning(&info);
        }
        Ok((!is_same).then(|| "the stream is not as it was left".to_owned()))
    }

    /// Whether the stream holds the newest event that it acknowledged. One that was deleted at the
    /// end leaves the last sequence as it was, and nothing comes behind it that would show a
    /// reader the gap.
    async fn newest_is_there(&self, stream: &Stream) -> anyhow::Result<bool> {
        let Place { position, sequence } = self.acknowledged;
        let (source, epoch) = (self.db.owner(), &*self.db.epoch());
        Ok(position == 0 || tail::holds(stream, source, epoch, position, sequence).await?)
    }

    /// Says so if the stream begins later than it did, and was not filled again since.
    fn note_beginning(&mut self, info: &Info) {
        let begins = Beginning::of(info);
        let gone = begins.sequence.saturating_sub(self.begins.sequence);
        let is_known = begins.created == self.begins.created;
        self.begins = begins;
        // With an age limit somebody wants it that way.
        if is_known && gone > 0 && info.config.max_age.is_zero() {
            self.warn_of_lost_beginning(gone);
        }
    }

    /// It cannot be put back before what came since without breaking the order.
    fn warn_of_lost_beginning(&self, events: u64) {
        let source = self.db.owner();
        tracing::warn!(
            source,
            events,
            "the stream lost its beginning: {events} events are in the outbox only, where readers \
             fetch them; to have them in the stream again, delete it, and it is filled anew"
        );
        metrics::counter!("headwater_relay_purged_total", "source" => source.to_owned())
            .increment(events);
    }

    /// Says why the relay has stopped and what to do, in the log only once.
    fn note_stopped(&self, contradiction: &str) {
        let advice = "put back the newest copy of the database, and the relay goes on by itself; \
                      if there is none, docs/operations.md says how this one begins a new life";
        let state = State::Failed(format!("{contradiction}; {advice}"));
        if self.health.parts().get(CHECK) != Some(&state) {
            tracing::error!(
                source = self.db.owner(),
                reason = contradiction,
                "relay stopped: the stream and this database contradict each other; {advice}"
            );
            self.health.set(CHECK, state);
        }
    }

    fn note_published(&self, rows: &[outbox::Row], place: Place) {
        self.published.send_replace(Some(place.position));
        let source = self.db.owner().to_owned();
        self.health.set(
            CHECK,
            State::Ok(format!("published up to {}", place.position)),
        );
        metrics::counter!("headwater_relay_published_total", "source" => source.clone())
            .increment(rows.len() as u64);
        if let Some(oldest) = rows.first() {
            let waited_ms = (self.db.clock().now_ms() - oldest.recorded_at).max(0);
            #[expect(clippy::cast_precision_loss, reason = "a waiting time")]
            metrics::histogram!("headwater_relay_delay_seconds", "source" => source)
                .record(waited_ms as f64 / 1000.0);
        }
        tracing::debug!(
            source = self.db.owner(),
            position = place.position,
            sequence = place.sequence,
            events = rows.len(),
            "published"
        );
    }
}
