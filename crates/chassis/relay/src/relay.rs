//! The relay: publishes a source's outbox to its stream, in order, each event once.
//!
//! # What
//!
//! One task per source. It starts where the stream ends and publishes the rest of the outbox. Each
//! commit wakes it; a slow poll covers commits of other processes. **The tail of the stream is the
//! relay's memory.** The note that it also keeps in the database (`memory.rs`) may be old: it only
//! distinguishes a loss from an operator's limit.
//!
//! # The expected-last-sequence check
//!
//! Every publication carries `Nats-Expected-Last-Sequence`. A publication that does not wait for
//! the one before it also carries `Nats-Expected-Last-Msg-Id`. The server stores an event only if
//! the stream still ends at the sequence, and with the event, that the relay expects. Therefore:
//!
//! * Two relays of one source are harmless: the server refuses one of them, and that relay reads
//!   the tail again.
//! * A late publication (after a timeout, from a paused server) is refused, or its successor is.
//! * A reconnect that loses the middle of what was in flight cannot break the order.
//!
//! `Nats-Msg-Id` alone is not enough: the server forgets it after the dedupe window.
//!
//! # Worked example
//!
//! The outbox holds 1…7. The stream ends at sequence 5 with `orders.x.4`, because an event was also
//! published by hand. The relay reads the tail: last own position 4, last sequence 5. It publishes
//! position 5 expecting sequence 5, position 6 expecting 6, position 7 expecting 7. The answer for
//! 7 is lost. *Unknown* is not *failed*: the relay reads the tail again, finds `orders.x.7`, and
//! continues with 8.
//!
//! If the stream has several replicas, positions 5 to 7 are one atomic batch, which needs no check
//! of ids (ADR 9).
//!
//! # What it does with each finding
//!
//! | the tail | the relay |
//! | --- | --- |
//! | ends at an event that this relay published, or should have published | continues after it |
//! | has events that are not from this outbox | skips them |
//! | ends *behind* what was already acknowledged | warns, counts, publishes again from there |
//! | begins later than before | warns, counts; the outbox still has those events |
//! | has lost events to a limit that an operator set | continues after the newest event that it stored |
//! | ends *ahead* of the outbox, or differs from it | stops, says what to do, never overwrites |
//! | has events of another epoch only | stops, says what to do |
//!
//! The last two happen when a source's database was lost or restored from an old copy: the stream
//! has events that the database does not have. Events published by hand onto the source's subjects
//! look the same. An operator must decide which of the two is right.
//!
//! The relay also stops when a limit of the broker refuses an event (`limit.rs`). It publishes
//! nothing out of order, and resumes automatically when the limit allows the event.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use async_nats::jetstream::stream::{Config, Info, Stream};
use headwater_event::EventId;
use headwater_nats::bus::Bus;
use headwater_nats::replicas::{self, Replicas};
use headwater_nats::stream;
use headwater_store::{Database, RawSnapshot, outbox};
use headwater_telemetry::crash;
use headwater_telemetry::health::{Health, State};
use sea_orm::DbErr;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cursor::{StreamCursor, StreamStart};
use crate::limit::{self, BATCH_MAX, Fit, Limited, PublishMode};
use crate::memory::{self, Note};
use crate::publish::{self, Outcome};
use crate::resume::{self, ResumePoint};
use crate::stop::Stop;
use crate::tail;

/// How long the relay lets rows gather after a batch that was large but not full. Under load, fewer
/// and larger batches cost the broker much less, and the delay does not matter.
const GATHER: Duration = Duration::from_millis(20);

/// The smallest batch after which rows gather. The value is high, so that only a load that fills
/// such a batch again within [`GATHER`] triggers it. A thousand events per second are published as
/// they come; with a lower value, one hiccup would turn them into batches for good.
const GATHER_FROM: usize = 100;

/// How long the relay waits for a commit before it reads the outbox anyway, because another process
/// may have written. Also how often it checks whether the stream was restored or purged.
const POLL: Duration = Duration::from_secs(2);

/// Pauses between attempts while the broker is unreachable or refuses.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// How often a stopped relay checks whether the cause is gone.
const STOPPED_PAUSE: Duration = Duration::from_secs(3);

/// The name of the relay's component in `/readyz?verbose`.
const CHECK: &str = "relay";

/// Publishes the outbox of a database to its stream.
#[derive(Debug)]
pub struct Relay {
    db: Database,
    bus: Bus,
    health: Health,
    /// The newest event known to be stored.
    noted: watch::Sender<Note>,
    /// Whether `noted` was loaded from the database.
    is_loaded: bool,
    /// Where the stream began at the last check.
    begins: StreamStart,
    /// The stream's replicas at the last check.
    copies: usize,
    /// How much the broker accepts at once.
    fit: Fit,
    /// Why the relay has stopped, as logged last.
    stopped: Option<Stop>,
    /// Where the expected-last-sequence check refused last.
    refused: Option<StreamCursor>,
    published: watch::Sender<Option<u64>>,
}

/// How far a relay has published. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Published(watch::Receiver<Option<u64>>);

impl Published {
    /// The last position known to be in the stream, if known.
    pub fn position(&self) -> Option<u64> {
        *self.0.borrow()
    }
}

/// The rows to publish next, and where.
struct Next {
    cursor: StreamCursor,
    rows: Vec<outbox::Row>,
}

impl Next {
    /// Lets rows gather after a batch of `count`, if that makes the next batch larger. Rows that
    /// were already read are read again, with those that came meanwhile.
    async fn gather(&mut self, count: usize) {
        if (GATHER_FROM..BATCH_MAX).contains(&count) && self.rows.len() < BATCH_MAX {
            self.rows.clear();
            tokio::time::sleep(GATHER).await;
        }
    }
}

/// Why publishing ended.
enum ExitReason {
    /// The stream has changed: how.
    MovedOn(String),
    /// An operator must act.
    Stopped(Stop),
}

impl Relay {
    /// The relay of `db`'s owner.
    pub fn new(db: Database, bus: Bus, health: Health) -> Self {
        health.set(CHECK, State::Degraded("starting".to_owned()));
        // Counters that alerts watch exist from the start.
        for counted in ["published", "republished", "purged"] {
            let name = format!("headwater_relay_{counted}_total");
            metrics::counter!(name, "source" => db.owner()).increment(0);
        }
        let relay = Self {
            db,
            bus,
            health,
            noted: watch::Sender::new(Note::NONE),
            is_loaded: false,
            begins: StreamStart::default(),
            copies: 1,
            fit: Fit::new(),
            stopped: None,
            refused: None,
            published: watch::Sender::new(None),
        };
        relay.gauge_stopped();
        relay
    }

    /// Follows how far the relay has published.
    pub fn published(&self) -> Published {
        Published(self.published.subscribe())
    }

    /// Runs until `stop`. Does not end by itself, whatever the broker does.
    ///
    /// # Errors
    /// None; the supervisor needs the type.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        let (db, noted) = (self.db.clone(), self.noted.subscribe());
        let running = Box::pin(async {
            tokio::join!(self.run_on(), memory::keep(&db, noted));
        });
        stop.run_until_cancelled(running).await;
        if self.is_loaded {
            let note = *self.noted.borrow();
            memory::save(&db, note).await;
        }
        Ok(())
    }

    async fn run_on(&mut self) {
        let mut pause = PAUSE_MIN;
        loop {
            let waiting = |why| self.health.set(CHECK, State::Degraded(why));
            self.bus.up_or_told(waiting).await;
            let failure = match self.work(&mut pause).await {
                Ok(stop) => {
                    let is_too_large = matches!(stop, Stop::TooLarge(_));
                    self.note_stopped(stop);
                    tokio::time::sleep(STOPPED_PAUSE).await;
                    if is_too_large {
                        self.bus.learn_payload_max().await;
                    }
                    continue;
                }
                Err(failure) => failure,
            };
            let reason = self.why(&failure);
            self.health
                .set(CHECK, State::Degraded(format!("waiting: {reason}")));
            tracing::warn!(
                source = self.db.owner(),
                reason,
                pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                "relay waits"
            );
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// The reason for waiting. If the stream has no leader, also reports that.
    fn why(&self, failure: &anyhow::Error) -> String {
        if replicas::is_no_quorum(failure.as_ref()) {
            let configured = self.copies.max(self.bus.replicas);
            Replicas::none(&stream::name(self.db.owner()), configured).note(&self.health);
        }
        replicas::why(failure.as_ref())
    }

    /// Records how many replicas the stream has.
    ///
    /// # Errors
    /// The stream has no leader.
    fn note_replicas(&mut self, info: &Info) -> anyhow::Result<()> {
        let replicas = Replicas::of_stream(info, self.bus.replicas);
        self.copies = replicas.configured;
        replicas.note(&self.health);
        let trouble = replicas.trouble(false).unwrap_or_default();
        ensure!(!replicas.is_leaderless(), "{} {trouble}", replicas.name);
        Ok(())
    }

    /// Finds the resume point and publishes from there, again and again. Ends when an operator must
    /// act.
    async fn work(&mut self, pause: &mut Duration) -> anyhow::Result<Stop> {
        loop {
            let bus = self.bus.clone();
            let seen = bus.seen();
            let ended = tokio::select! {
                ended = self.publish(pause) => ended?,
                // Requests in flight were lost with the connection.
                () = bus.reconnected(seen) => ExitReason::MovedOn("reconnected".to_owned()),
            };
            match ended {
                ExitReason::Stopped(stop) => return Ok(stop),
                ExitReason::MovedOn(reason) => tracing::debug!(
                    source = self.db.owner(),
                    reason,
                    "relay reads the stream's tail again"
                ),
            }
        }
    }

    /// Finds the resume point and publishes from there, until the stream has changed.
    async fn publish(&mut self, pause: &mut Duration) -> anyhow::Result<ExitReason> {
        let stream = match stream::ensure(&self.bus, self.db.owner()).await {
            Err(headwater_nats::Error::UnusableStream(why)) => {
                return Ok(ExitReason::Stopped(Stop::Limit(why.to_string())));
            }
            ensured => ensured.context("reach the stream")?,
        };
        self.note_replicas(stream.cached_info())?;
        let begins = StreamStart::of(stream.cached_info());
        if begins.created != self.begins.created {
            self.begins = begins;
        }
        let known = self.known().await.context("load the relay's note")?;
        let cursor = match resume::find(&self.db, &stream, known).await? {
            ResumePoint::Continue {
                cursor,
                note,
                lost,
                begins,
            } => {
                if lost > 0 {
                    self.warn_of_loss(note.cursor.position, lost);
                    // The lost events are published again, wherever the stream begins now.
                    self.begins = begins;
                }
                self.note(note);
                cursor
            }
            ResumePoint::Contradiction(stop) => return Ok(ExitReason::Stopped(stop)),
        };
        self.published.send_replace(Some(cursor.position));
        // Only a stored event shows that a limit no longer refuses events.
        if !matches!(self.stopped, Some(Stop::Limit(_) | Stop::TooLarge(_))) {
            self.note_going(cursor.position);
        }
        self.publish_from(&stream, cursor, pause).await
    }

    fn warn_of_loss(&self, position: u64, lost: u64) {
        let source = self.db.owner();
        tracing::warn!(
            source,
            position,
            acknowledged = position + lost,
            "the stream lost events: publishing {lost} again from the outbox"
        );
        metrics::counter!("headwater_relay_republished_total", "source" => source).increment(lost);
    }

    /// Publishes what the outbox has after `cursor`, waits for more, and so on. Ends when the
    /// stream has changed or accepts no more.
    async fn publish_from(
        &mut self,
        stream: &Stream,
        cursor: StreamCursor,
        pause: &mut Duration,
    ) -> anyhow::Result<ExitReason> {
        let mut head = self.db.head();
        let mut looked = Instant::now();
        let mut next = Next {
            cursor,
            rows: Vec::new(),
        };
        loop {
            if looked.elapsed() >= POLL {
                if let Some(moved) = self.look(stream, next.cursor).await? {
                    return Ok(ExitReason::MovedOn(moved));
                }
                looked = Instant::now();
            }
            if next.rows.is_empty() {
                next.rows = self.page(next.cursor.position + 1).await?;
            }
            if next.rows.is_empty() {
                self.note_going(next.cursor.position);
                tokio::select! {
                    // Subscribed before the outbox was read: a commit in between wakes it at once.
                    Ok(()) = head.changed() => {}
                    () = tokio::time::sleep(POLL) => {}
                }
                continue;
            }
            crash::point("relay.read");
            if let Some(ended) = self.publish_next(stream, &mut next, pause).await? {
                return Ok(ended);
            }
        }
    }

    /// Publishes the first rows of `next`, as many as the broker accepts at once. Returns why
    /// publishing ends, if it ends.
    async fn publish_next(
        &mut self,
        stream: &Stream,
        next: &mut Next,
        pause: &mut Duration,
    ) -> anyhow::Result<Option<ExitReason>> {
        let (config, cursor) = (&stream.cached_info().config, next.cursor);
        let (mode, count) = self.fit.of(next.rows.len(), config.num_replicas);
        let count = match self.fitting(&next.rows[..count], cursor, config) {
            Ok(count) => count,
            Err(stop) => return Ok(Some(ExitReason::Stopped(stop))),
        };
        let rest = next.rows.split_off(count);
        let is_all = rest.is_empty();
        let rows = std::mem::replace(&mut next.rows, rest);
        let bytes = rows.iter().map(|row| row.payload.len() as u64).sum();
        let began = Instant::now();
        let (source, epoch) = (self.db.owner(), &*self.db.epoch());
        let publishing = publish::rows(&self.bus, mode, source, epoch, &rows, cursor.sequence);
        let outcome = match mode {
            // There are probably more rows: read them while the server writes.
            PublishMode::Batch if is_all => {
                let page = self.page(cursor.position + 1 + rows.len() as u64);
                let (outcome, page) = tokio::join!(publishing, page);
                next.rows = page?;
                outcome
            }
            _ => publishing.await,
        };
        match outcome {
            Outcome::Stored { last_sequence } => {
                crash::point("relay.published");
                next.cursor = StreamCursor {
                    position: cursor.position + rows.len() as u64,
                    sequence: last_sequence,
                };
                self.fit.note_stored(bytes, began.elapsed());
                *pause = PAUSE_MIN;
                self.note_published(&rows, next.cursor);
                if is_all {
                    next.gather(rows.len()).await;
                }
            }
            // The stream ends at `cursor` and the server refuses again: a cluster has not yet
            // agreed on an earlier publication. Wait for that.
            Outcome::Refused(reason) if self.refused == Some(cursor) => bail!(reason),
            Outcome::Refused(reason) => {
                self.refused = Some(cursor);
                return Ok(Some(ExitReason::MovedOn(reason)));
            }
            Outcome::Limited(limited) => {
                // Try again with fewer rows.
                next.rows.clear();
                return Ok(self.limited(&limited, mode, &rows, config));
            }
            Outcome::Unknown(error) => {
                self.fit.note_unknown(bytes);
                return Err(error.context("publish"));
            }
        }
        Ok(None)
    }

    /// How many of `rows` the broker accepts by their size; an error if the first is too large.
    fn fitting(
        &mut self,
        rows: &[outbox::Row],
        cursor: StreamCursor,
        config: &Config,
    ) -> Result<usize, Stop> {
        let (source, epoch) = (self.db.owner().into(), self.db.epoch());
        let id = |row: &outbox::Row| EventId {
            source: Arc::clone(&source),
            epoch: Arc::clone(&epoch),
            position: row.position,
        };
        let (max, limit) = limit::event_max(config, self.bus.max_payload());
        match limit::fitting(rows, id, cursor.sequence, max) {
            (0, Some(bytes)) => {
                let position = cursor.position + 1;
                Err(Stop::TooLarge(limit::too_large(position, bytes, &limit)))
            }
            (count, _) => Ok(count),
        }
    }

    /// What to do when a limit refused `rows`; `None` to try again with fewer.
    fn limited(
        &mut self,
        limited: &Limited,
        mode: PublishMode,
        rows: &[outbox::Row],
        config: &Config,
    ) -> Option<ExitReason> {
        match (mode, limited.row) {
            (PublishMode::Batch, _) => {
                if let Some(batch) = self.fit.shrink(rows.len(), limited) {
                    tracing::warn!(
                        source = self.db.owner(),
                        reason = limited.text,
                        batch,
                        "the broker refused a batch of {} events: publishing fewer at once",
                        rows.len()
                    );
                }
                None
            }
            (PublishMode::Pipelined, 0) => {
                self.fit.probe();
                let position = rows.first()?.position;
                let why = limit::refused(position, limited, config);
                Some(ExitReason::Stopped(Stop::Limit(why)))
            }
            // The rows before it are stored.
            (PublishMode::Pipelined, _) => Some(ExitReason::MovedOn(limited.text.clone())),
        }
    }

    /// The outbox rows from position `from` on, as many as fit into one batch.
    async fn page(&self, from: u64) -> Result<Vec<outbox::Row>, DbErr> {
        let bytes_max = self.fit.bytes();
        let page =
            move |snapshot: &RawSnapshot| outbox::page_within(snapshot, from, BATCH_MAX, bytes_max);
        self.db.read_raw(page).await
    }

    /// Checks the stream, even if nothing is written: refills it if it lost its end, reports if it
    /// lost its beginning. Returns the change if the stream no longer matches `cursor`.
    async fn look(
        &mut self,
        stream: &Stream,
        cursor: StreamCursor,
    ) -> anyhow::Result<Option<String>> {
        let info = stream.get_info().await.context("read the stream's state")?;
        self.note_replicas(&info)?;
        let before = stream.cached_info();
        let is_same = info.created == before.created
            && info.config == before.config
            && info.state.last_sequence == cursor.sequence
            && self.newest_is_there(stream, &info).await?;
        if is_same {
            self.note_beginning(&info);
        }
        Ok((!is_same).then(|| "the stream has changed".to_owned()))
    }

    /// Whether the stream still holds the newest acknowledged event, or dropped it by an operator's
    /// limit. Deleting the last event does not change the last sequence, and no later event would
    /// show a reader the gap.
    async fn newest_is_there(&self, stream: &Stream, info: &Info) -> anyhow::Result<bool> {
        let cursor = self.noted.borrow().cursor;
        let (source, epoch) = (self.db.owner(), &*self.db.epoch());
        Ok(cursor.position == 0
            || stream::is_discarded(info, cursor.sequence)
            || tail::holds(stream, source, epoch, cursor).await?)
    }

    /// The newest event known to be stored; at first the one noted before the start.
    async fn known(&mut self) -> Result<Note, DbErr> {
        if !self.is_loaded {
            let note = memory::load(&self.db).await?;
            self.noted.send_replace(note);
            self.is_loaded = true;
        }
        Ok(*self.noted.borrow())
    }

    /// Records the newest event known to be stored.
    fn note(&self, note: Note) {
        self.noted.send_if_modified(|noted| {
            let is_new = *noted != note;
            *noted = note;
            is_new
        });
    }

    /// Reports if the stream begins later than before and has not been refilled since.
    fn note_beginning(&mut self, info: &Info) {
        let begins = StreamStart::of(info);
        let gone = begins.sequence.saturating_sub(self.begins.sequence);
        let is_known = begins.created == self.begins.created;
        self.begins = begins;
        // With a limit, the operator wants that.
        if is_known && gone > 0 && stream::discards(&info.config).is_empty() {
            self.warn_of_lost_beginning(gone);
        }
    }

    /// The relay cannot publish these events again: they would come after newer ones.
    fn warn_of_lost_beginning(&self, events: u64) {
        let source = self.db.owner();
        tracing::warn!(
            source,
            events,
            "the stream lost its beginning: {events} events are in the outbox only, where readers \
             fetch them; `headwater stream restore {source}` puts them back into the stream"
        );
        metrics::counter!("headwater_relay_purged_total", "source" => source.to_owned())
            .increment(events);
    }

    /// Reports why the relay has stopped and what to do; logs it only once.
    fn note_stopped(&mut self, stop: Stop) {
        let source = self.db.owner();
        self.health.set(CHECK, State::Failed(stop.to_string()));
        if self.stopped.as_ref() == Some(&stop) {
            return;
        }
        match &stop {
            Stop::Contradiction { what, advice } => tracing::error!(
                source,
                reason = what,
                "relay stopped: the stream and this database contradict each other; {advice}"
            ),
            Stop::Limit(what) | Stop::TooLarge(what) => tracing::error!(
                source,
                reason = what,
                "relay stopped: the broker refuses the next event; it resumes automatically once \
                 the broker accepts it"
            ),
        }
        self.stopped = Some(stop);
        self.gauge_stopped();
    }

    /// Records that the relay works and has published up to `position`.
    fn note_going(&mut self, position: u64) {
        if self.stopped.take().is_some() {
            tracing::info!(source = self.db.owner(), position, "relay resumed");
            self.gauge_stopped();
        }
        let state = State::Ok(format!("published up to {position}"));
        self.health.set(CHECK, state);
    }

    fn gauge_stopped(&self) {
        let stopped = f64::from(u8::from(self.stopped.is_some()));
        metrics::gauge!("headwater_relay_stopped", "source" => self.db.owner()).set(stopped);
    }

    fn note_published(&mut self, rows: &[outbox::Row], cursor: StreamCursor) {
        let stream_created = self.noted.borrow().stream_created;
        self.note(Note {
            stream_created,
            cursor,
        });
        self.published.send_replace(Some(cursor.position));
        let source = self.db.owner().to_owned();
        self.note_going(cursor.position);
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
            position = cursor.position,
            sequence = cursor.sequence,
            events = rows.len(),
            "published"
        );
    }
}
