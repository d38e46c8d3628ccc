//! The relay: moves a source's outbox to its stream, in order, each event once.
//!
//! # What
//!
//! One task a source. It reads the outbox from where the stream ends and publishes, woken by
//! each commit (or by a slow poll, should another process have written). **The tail of the stream
//! says how far it got**; what it notes beside that in the database (`memory.rs`) only tells a loss
//! from an operator's limit, and may be old.
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
//! | has lost events to a limit that an operator set | continues after the newest that it stored |
//! | ends *ahead* of the outbox, or differs from it | stops, says what to do, never overwrites |
//! | has events of another epoch only | stops, says what to do |
//!
//! The last two happen when a source's database was put back from an old copy, or lost: the stream
//! knows events that the database has forgotten. Somebody who publishes onto the source's subjects
//! makes the same picture. Which of the two is right, a person must decide.
//!
//! A limit of the broker that keeps an event out stops it as well (`limit.rs`): nothing is
//! published out of order, and it goes on by itself once the limit allows it.

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
use stream::Unusable;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cursor::{StreamCursor, StreamStart};
use crate::limit::{self, BATCH_MAX, Fit, Limited, PublishMode};
use crate::memory::{self, Note};
use crate::publish::{self, Outcome};
use crate::resume::{self, ResumePoint};
use crate::stop::Stop;
use crate::tail;

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
    /// The newest event that this relay knows to be stored.
    noted: watch::Sender<Note>,
    /// Whether `noted` has what the database remembers.
    is_loaded: bool,
    /// Where the stream began when it was looked at last.
    begins: StreamStart,
    /// How many copies are kept of the stream, as it was seen last.
    copies: usize,
    /// What the broker takes at once.
    fit: Fit,
    /// Why it stands still, as it was said last.
    stopped: Option<Stop>,
    /// Where the fence held last.
    refused: Option<StreamCursor>,
    published: watch::Sender<Option<u64>>,
}

/// How far a relay is, for those who watch. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Published(watch::Receiver<Option<u64>>);

impl Published {
    /// The last position that is known to be in the stream; `None` while that is not known.
    pub fn position(&self) -> Option<u64> {
        *self.0.borrow()
    }
}

/// What is published next, and after what.
struct Next {
    cursor: StreamCursor,
    rows: Vec<outbox::Row>,
}

impl Next {
    /// Lets rows gather after `count` were published, where that makes the next batch larger: what
    /// was read already is read again then, with what has come meanwhile.
    async fn gather(&mut self, count: usize) {
        if (GATHER_FROM..BATCH_MAX).contains(&count) && self.rows.len() < BATCH_MAX {
            self.rows.clear();
            tokio::time::sleep(GATHER).await;
        }
    }
}

/// Why publishing ended.
enum ExitReason {
    /// The stream is not as it was left: what was seen.
    MovedOn(String),
    /// A person must act.
    Stopped(Stop),
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

    /// How far it is, as it moves.
    pub fn published(&self) -> Published {
        Published(self.published.subscribe())
    }

    /// Runs until `stop`; does not end by itself, whatever the broker does.
    ///
    /// # Errors
    /// None; the type is the supervisor's.
    pub async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
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

    /// Why it waits; where nobody leads the stream, that is noted.
    fn why(&self, failure: &anyhow::Error) -> String {
        if replicas::is_no_quorum(failure) {
            let configured = self.copies.max(self.bus.replicas);
            Replicas::none(&stream::name(self.db.owner()), configured).note(&self.health);
        }
        replicas::why(failure)
    }

    /// Notes how many copies of the stream are there.
    ///
    /// # Errors
    /// Nobody leads it.
    fn note_replicas(&mut self, info: &Info) -> anyhow::Result<()> {
        let replicas = Replicas::of_stream(info, self.bus.replicas);
        self.copies = replicas.configured;
        replicas.note(&self.health);
        let trouble = replicas.trouble(false).unwrap_or_default();
        ensure!(!replicas.is_leaderless(), "{} {trouble}", replicas.name);
        Ok(())
    }

    /// Takes its place and publishes from there, again and again. Ends where a person must act.
    async fn work(&mut self, pause: &mut Duration) -> anyhow::Result<Stop> {
        loop {
            let bus = self.bus.clone();
            let seen = bus.seen();
            let ended = tokio::select! {
                ended = self.publish(pause) => ended?,
                // What was asked for went with the connection: no use in waiting for it.
                () = bus.reconnected(seen) => ExitReason::MovedOn("reconnected".to_owned()),
            };
            match ended {
                ExitReason::Stopped(stop) => return Ok(stop),
                ExitReason::MovedOn(reason) => tracing::debug!(
                    source = self.db.owner(),
                    reason,
                    "relay takes its place again"
                ),
            }
        }
    }

    /// Takes its place and publishes from there, until the stream is not what it was believed
    /// to be.
    async fn publish(&mut self, pause: &mut Duration) -> anyhow::Result<ExitReason> {
        let ensured = stream::ensure(&self.bus, self.db.owner())
            .await
            .context("reach the stream")?;
        let stream = match ensured {
            Ok(stream) => stream,
            Err(Unusable(why)) => return Ok(ExitReason::Stopped(Stop::Limit(why))),
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
                    // What is gone is published again, wherever the stream begins now.
                    self.begins = begins;
                }
                self.note(note);
                cursor
            }
            ResumePoint::Contradiction(stop) => return Ok(ExitReason::Stopped(stop)),
        };
        self.published.send_replace(Some(cursor.position));
        // Whether a limit keeps events out is seen when one is stored.
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

    /// Publishes whatever the outbox has after `cursor`, waits for more, and so on. Ends when the
    /// stream is not what it was believed to be, or takes no more.
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
                    // Armed since the last look at the outbox: a commit in between wakes it at once.
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

    /// Publishes the first of `next`, as many as the broker takes at once. Gives why publishing
    /// ends, if it does.
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
            // There is probably more: it is read while the server writes.
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
            // The stream ends there, and still it is refused: the servers of a cluster have to
            // agree first on something that is under way. That is waited for.
            Outcome::Refused(reason) if self.refused == Some(cursor) => bail!(reason),
            Outcome::Refused(reason) => {
                self.refused = Some(cursor);
                return Ok(Some(ExitReason::MovedOn(reason)));
            }
            Outcome::Limited(limited) => {
                // They are tried again, fewer at once.
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

    /// How many of `rows` the broker takes by their size; none of them where the first is too large.
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

    /// What a refusal of `rows` for a limit comes to; none: fewer of them are to be tried.
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
            // Those before it are stored.
            (PublishMode::Pipelined, _) => Some(ExitReason::MovedOn(limited.text.clone())),
        }
    }

    /// The rows of the outbox from position `from` on, as many as go into one batch.
    async fn page(&self, from: u64) -> Result<Vec<outbox::Row>, DbErr> {
        let bytes_max = self.fit.bytes();
        let page =
            move |snapshot: &RawSnapshot| outbox::page_within(snapshot, from, BATCH_MAX, bytes_max);
        self.db.read_raw(page).await
    }

    /// Looks at the stream, whether anything is written or not: one that lost its end is filled
    /// again, one that lost its beginning is told of. Gives what was seen if it is not as `cursor`
    /// has it.
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
        Ok((!is_same).then(|| "the stream is not as it was left".to_owned()))
    }

    /// Whether the stream holds the newest event that it acknowledged, as far as an operator lets
    /// it. One that was deleted at the end leaves the last sequence as it was, and nothing comes
    /// behind it that would show a reader the gap.
    async fn newest_is_there(&self, stream: &Stream, info: &Info) -> anyhow::Result<bool> {
        let cursor = self.noted.borrow().cursor;
        let (source, epoch) = (self.db.owner(), &*self.db.epoch());
        Ok(cursor.position == 0
            || stream::is_discarded(info, cursor.sequence)
            || tail::holds(stream, source, epoch, cursor).await?)
    }

    /// The newest event that is known to be stored: what was noted before the start, to begin with.
    async fn known(&mut self) -> Result<Note, DbErr> {
        if !self.is_loaded {
            let note = memory::load(&self.db).await?;
            self.noted.send_replace(note);
            self.is_loaded = true;
        }
        Ok(*self.noted.borrow())
    }

    /// Notes the newest event that is known to be stored.
    fn note(&self, note: Note) {
        self.noted.send_if_modified(|noted| {
            let is_new = *noted != note;
            *noted = note;
            is_new
        });
    }

    /// Says so if the stream begins later than it did, and was not filled again since.
    fn note_beginning(&mut self, info: &Info) {
        let begins = StreamStart::of(info);
        let gone = begins.sequence.saturating_sub(self.begins.sequence);
        let is_known = begins.created == self.begins.created;
        self.begins = begins;
        // With a limit somebody wants it that way.
        if is_known && gone > 0 && stream::discards(&info.config).is_empty() {
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
             fetch them; `headwater stream restore {source}` puts them back into the stream"
        );
        metrics::counter!("headwater_relay_purged_total", "source" => source.to_owned())
            .increment(events);
    }

    /// Says why the relay has stopped and what to do, in the log only once.
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
                "relay stopped: the broker does not take the next event; it goes on by itself \
                 when it does"
            ),
        }
        self.stopped = Some(stop);
        self.gauge_stopped();
    }

    /// Notes that it does its work, having published up to `position`.
    fn note_going(&mut self, position: u64) {
        if self.stopped.take().is_some() {
            tracing::info!(source = self.db.owner(), position, "relay goes on");
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
