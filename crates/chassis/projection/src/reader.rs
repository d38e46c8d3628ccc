//! Reads one source of a projection: places the feed, applies what comes, closes gaps.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail, ensure};
use async_nats::jetstream::context::RequestErrorKind;
use async_nats::jetstream::stream::{Info, Stream};
use headwater_event::Envelope;
use headwater_nats::bus::Bus;
use headwater_nats::window::Link;
use headwater_nats::{replicas, stream};
use headwater_store::{Snapshot, Tx, WriteError};
use headwater_telemetry::crash;
use headwater_telemetry::health::State;
use headwater_telemetry::trace::{self, Span, SpanKind};
use sea_orm::DbErr;

use crate::anomaly::{self, Anomalies};
use crate::apply::{self, Batch, Input, OnPoison, Stop};
use crate::checkpoint::Checkpoint;
use crate::feed::Feed;
use crate::gap::{self, Gap};
use crate::newer::Newer;
use crate::projection::{ApplyError, Projection};
use crate::shared::Shared;
use crate::source::{Source, WAITING};
use crate::source_answer::EpochAnswer;
use crate::{outbox, source_watch};
use headwater_nats::start::Start;

/// Pauses between attempts while the broker or the source does not answer.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// The pause before an event in a newer version is read again. Usually an upgrade restarts the
/// process earlier; but the event may have been published by hand and removed.
const NEWER_PAUSE: Duration = Duration::from_secs(15);

/// How often a silent source's stream is checked: a consumer that waits beyond the end of a
/// rolled-back stream is silent too. A consumer without even a heartbeat in this time is lost: its
/// server has died, and in a cluster another one takes over.
const LOOK_AFTER: Duration = Duration::from_secs(5);

/// How long a broker that is cut off from its cluster may believe that it still leads a stream: it
/// steps down after 10 s alone.
const CUT_OFF_MAX: Duration = Duration::from_secs(15);

/// Reads one source.
pub(super) struct Reader<P> {
    shared: Arc<Shared<P>>,
    bus: Bus,
    source: &'static str,
    /// The gap for which the stream was read again, as far as it is still open.
    gap: Option<Gap>,
    /// The stream being read, by when it was created; 0 before the first.
    stream_created: i64,
    /// Whether the stream was recreated or rolled back and has brought nothing new since: its relay
    /// is refilling it with known events.
    is_refilled: bool,
    /// Since when the stream's reported end is before what was read of it.
    shorter_since: Option<Instant>,
    /// The newer version that the next event has.
    newer: Option<Newer>,
    /// The link to the broker, shared by all sources.
    link: Arc<Link>,
}

/// The result of checking a silent source's stream.
enum Look {
    /// The stream is as it was read.
    AsRead,
    /// It is another stream, or ends elsewhere than the checkpoint.
    Elsewhere,
    /// No answer in time, with the probable reason.
    Unanswered(String),
}

impl<P: Projection> Reader<P> {
    pub(super) fn new(
        shared: Arc<Shared<P>>,
        bus: Bus,
        link: Arc<Link>,
        source: &'static str,
    ) -> Self {
        // Counters that alerts watch exist from the start.
        for counted in [
            "applied",
            "skipped",
            "gap_events",
            "manual",
            "foreign_epoch",
            "altered",
        ] {
            let name = format!("headwater_projection_{counted}_total");
            metrics::counter!(name, "projection" => shared.config.consumer.clone(), "source" => source)
                .increment(0);
        }
        metrics::counter!("headwater_dead_letters_total", "projection" => P::NAME, "source" => source)
            .increment(0);
        metrics::gauge!("headwater_projection_upgrade_needed", "projection" => shared.config.consumer.clone(), "source" => source)
            .set(0);
        Self {
            shared,
            bus,
            source,
            gap: None,
            stream_created: 0,
            is_refilled: false,
            shorter_since: None,
            newer: None,
            link,
        }
    }

    pub(super) async fn run_on(&mut self) {
        let mut pause = PAUSE_MIN;
        loop {
            let waiting = |why| self.report(State::Degraded(why));
            self.bus.up_or_told(waiting).await;
            let Err(failure) = Box::pin(self.follow(&mut pause)).await else {
                continue;
            };
            let reason = replicas::why(failure.as_ref());
            self.report(State::Degraded(format!("{WAITING}{reason}")));
            if let Some(newer) = failure.downcast_ref::<Newer>() {
                self.note_newer(Some(newer));
                tokio::time::sleep(NEWER_PAUSE).await;
                continue;
            }
            tracing::warn!(
                projection = P::NAME,
                source = self.source,
                reason,
                pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                "projection waits"
            );
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Reads the stream from the checkpoint on, until something must be checked again.
    async fn follow(&mut self, pause: &mut Duration) -> anyhow::Result<()> {
        let bus = self.bus.clone();
        let seen = bus.seen();
        let (mut feed, info) = tokio::select! {
            opened = self.open() => opened?,
            // Requests in flight were lost with the connection.
            () = bus.reconnected(seen) => return Ok(()),
        };
        let stream = feed.stream().clone();
        loop {
            let events = tokio::select! {
                biased;
                events = feed.next_batch() => events?,
                () = bus.reconnected(seen) => {
                    // Requests in flight are lost; events that already came need not come again.
                    return self.apply(feed.into_rest()).await.map(drop);
                }
                looked = self.look(&stream, &info) => match looked? {
                    Look::Unanswered(reason) => {
                        self.report(State::Degraded(reason));
                        continue;
                    }
                    Look::AsRead if feed.silent_for() < LOOK_AFTER && feed.check().await? => {
                        continue;
                    }
                    Look::AsRead | Look::Elsewhere => return Ok(()),
                },
            };
            if !feed.is_as_needed().await? {
                return Ok(());
            }
            crash::point(self.shared.config.crash_points[0]);
            let stored = feed.batch_stored();
            let (mut batch, took) = self.apply_and_read_ahead(events, &mut feed).await?;
            if batch.is_stream_changed {
                return Ok(());
            }
            if let Some(stop) = batch.stop {
                return self.go_past(stop, feed.window_bytes()).await;
            }
            feed.note_applied(batch.applied + batch.skipped + batch.parked, took);
            self.note_delay(&batch, stored);
            if self.note_reached(&mut batch, &info).await? {
                *pause = PAUSE_MIN;
            }
        }
    }

    /// Handles what a batch had to stop for.
    async fn go_past(&mut self, stop: Stop, bytes_max: usize) -> anyhow::Result<()> {
        match stop {
            Stop::Gap(gap) => self.close(gap, bytes_max).await,
            Stop::Unconfirmed(epoch) => bail!(
                "an event of the epoch {epoch} waits: {} does not say whether that is its own",
                self.source
            ),
            Stop::Newer(newer) => Err(newer.into()),
        }
    }

    /// Reports how far `batch` got in the stream, of which `info` was read at opening. Returns
    /// whether it got further.
    async fn note_reached(&mut self, batch: &mut Batch, info: &Info) -> anyhow::Result<bool> {
        let is_at_end = batch.checkpoint.sequence >= info.state.last_sequence;
        self.is_refilled &= batch.applied == 0;
        if !self.is_refilled {
            self.state().note_again(std::mem::take(&mut batch.again));
        }
        self.is_refilled &= !is_at_end;
        if is_at_end {
            self.shared.note_at_end(self.source).await?;
        }
        // Known events that come again do not show that the cause of a stop is over.
        let is_further = is_at_end || batch.applied + batch.parked > 0;
        if is_further {
            self.note_newer(None);
            let position = batch.checkpoint.position();
            self.report(applied_up_to(position, batch.dead_letters));
        }
        Ok(is_further)
    }

    /// Opens the feed at the checkpoint; also returns the stream's state then.
    async fn open(&mut self) -> anyhow::Result<(Feed, Info)> {
        let stream = stream::find(&self.bus, self.source)
            .await
            .context("reach the stream")?
            .with_context(|| format!("there is no stream {} yet: its relay creates it or, if services may not, an operator: `headwater provision`", stream::name(self.source)))?;
        let info = stream.cached_info().clone();
        let (checkpoint, dead_letters) = self.checkpoint().await?;
        self.state().note_opened();
        let start = Start::after(checkpoint.stream_created, checkpoint.sequence, &info);
        ensure!(
            !self.may_be_cut_off(&checkpoint, start, &info),
            "the broker reports the stream's end at {}, but it was read up to {}: checking again",
            start.known,
            checkpoint.sequence
        );
        let start = if checkpoint.clone().rewind(start) {
            self.rewind(&info).await.context("save the checkpoint")?
        } else {
            start
        };
        self.stream_created = start.stream_created;
        // A new stream brings everything again, a rolled-back stream what comes after its end.
        self.is_refilled |= start.stream_created != checkpoint.stream_created
            || start.is_earlier(checkpoint.stream_created, checkpoint.sequence);
        let config = &self.shared.config;
        let (bus, link) = (&self.bus, &self.link);
        let feed = Feed::open(bus, link, stream, self.source, P::NAME, config, start).await?;
        if feed.is_at_end() {
            let mut position = checkpoint.position();
            if info.state.first_sequence > start.known + 1 {
                position = self.fetch_discarded(&info, feed.window_bytes()).await?;
            }
            self.shared.note_at_end(self.source).await?;
            self.note_newer(None);
            self.report(applied_up_to(position, dead_letters));
        }
        Ok((feed, info))
    }

    /// Fetches from the outbox what an operator's limit removed from the stream before it was read,
    /// if no newer event shows the gap. Returns the new position.
    async fn fetch_discarded(&self, info: &Info, bytes_max: usize) -> anyhow::Result<u64> {
        let mut target = None;
        loop {
            let (mut checkpoint, _) = self.checkpoint().await?;
            let (epoch, have) = (checkpoint.epoch(), checkpoint.position());
            let epoch = epoch.as_deref();
            let (events, head) =
                gap::fetch_after(&self.bus, self.source, epoch, have, bytes_max).await?;
            if events.is_empty() || have >= *target.get_or_insert(head) {
                let end = Start::at_end(info);
                let pass = move |tx: &Tx| {
                    checkpoint.rewind(end);
                    checkpoint.save(tx)
                };
                self.shared.db.write(pass).await?;
                return Ok(have);
            }
            self.apply_fetched(have + 1, events).await?;
        }
    }

    fn note_fetched(&self, position: u64, events: usize) {
        tracing::warn!(
            projection = P::NAME,
            source = self.source,
            position,
            events,
            "the stream misses events: fetched from the outbox"
        );
        metrics::counter!("headwater_projection_gap_events_total", "projection" => self.shared.config.consumer.clone(), "source" => self.source)
            .increment(events as u64);
    }

    /// Moves the checkpoint to where reading starts and returns that. Loads the checkpoint again,
    /// because another store may have been swapped in.
    async fn rewind(&self, info: &Info) -> anyhow::Result<Start> {
        let (source, info) = (self.source, info.clone());
        let rewind = move |tx: &Tx| {
            let mut checkpoint = Checkpoint::load(tx, P::NAME, source)?;
            let start = Start::after(checkpoint.stream_created, checkpoint.sequence, &info);
            if checkpoint.rewind(start) {
                checkpoint.save(tx)?;
                anomaly::forget_behind(tx, P::NAME, source, start.known)?;
            }
            Ok::<_, DbErr>(start)
        };
        let saved = self.shared.db.write(rewind).await;
        Ok(saved?.value)
    }

    /// Whether the stream's reported state may come from a broker that does not know what the rest
    /// of its cluster has stored since. Rewinding is safe for relayed events, which have positions,
    /// but would apply events published by hand again.
    fn may_be_cut_off(&mut self, checkpoint: &Checkpoint, start: Start, info: &Info) -> bool {
        let is_shorter = start.is_earlier(checkpoint.stream_created, checkpoint.sequence);
        if !is_shorter || info.config.num_replicas < 2 {
            self.shorter_since = None;
            return false;
        }
        let since = self.shorter_since.get_or_insert_with(Instant::now);
        since.elapsed() < CUT_OFF_MAX
    }

    /// After a while without events, checks whether the stream is still the same and ends at the
    /// checkpoint: it may have been rolled back, or events may have been lost on the way.
    ///
    /// The answer comes after everything that the server has sent before on this connection.
    async fn look(&self, stream: &Stream, before: &Info) -> anyhow::Result<Look> {
        tokio::time::sleep(LOOK_AFTER).await;
        let info = match stream.get_info().await {
            Ok(info) => info,
            // The link is busy with others' data, or the stream has no leader now.
            Err(error) if error.kind() == RequestErrorKind::TimedOut => {
                return Ok(Look::Unanswered(format!(
                    "{WAITING}the broker does not answer for stream {}",
                    before.config.name
                )));
            }
            Err(error) => return Err(error).context("read the stream's state"),
        };
        let (checkpoint, dead_letters) = self.checkpoint().await?;
        let is_as_read = info.created == before.created
            && self.stream_created == checkpoint.stream_created
            && info.state.last_sequence == checkpoint.sequence;
        if !is_as_read {
            return Ok(Look::Elsewhere);
        }
        // An operator may have retried or discarded dead letters meanwhile.
        self.report(applied_up_to(checkpoint.position(), dead_letters));
        Ok(Look::AsRead)
    }

    /// Closes a gap: at first by reading the stream again, because events may have been lost on the
    /// way; then from the source's outbox.
    async fn close(&mut self, gap: Gap, bytes_max: usize) -> anyhow::Result<()> {
        if !self
            .gap
            .as_ref()
            .is_some_and(|before| before.is_where(&gap))
        {
            tracing::debug!(
                projection = P::NAME,
                source = self.source,
                ?gap,
                "gap: reading again"
            );
            self.gap = Some(gap);
            return Ok(());
        }
        let events = gap::fetch(&self.bus, self.source, &gap, bytes_max)
            .await
            .with_context(|| {
                format!(
                    "the stream misses the events {} to {} of {}",
                    gap.have + 1,
                    gap.came - 1,
                    self.source
                )
            })?;
        crash::point("projection.gap");
        let have = gap.have + events.len() as u64;
        self.apply_fetched(gap.have + 1, events).await?;
        self.gap = Some(Gap { have, ..gap });
        Ok(())
    }

    /// Applies events that came from the outbox, the first of them at `position`.
    ///
    /// # Errors
    /// One of them is in a newer version than the program knows; those before it are applied.
    async fn apply_fetched(&self, position: u64, events: Vec<Envelope>) -> anyhow::Result<()> {
        // While one of them is held, all are fetched again and again.
        if self.newer.is_none() {
            self.note_fetched(position, events.len());
        }
        match self.apply(events).await?.0.stop {
            Some(Stop::Newer(newer)) => Err(newer.into()),
            _ => Ok(()),
        }
    }

    /// Applies `events` on the writer thread, and reads the next ones meanwhile.
    async fn apply_and_read_ahead(
        &self,
        events: Vec<Envelope>,
        feed: &mut Feed,
    ) -> anyhow::Result<(Batch, Duration)> {
        let mut applying = pin!(self.apply(events));
        tokio::select! {
            applied = &mut applying => applied,
            read = feed.read_ahead() => {
                let applied = applying.await;
                read?;
                applied
            }
        }
    }

    /// Applies events as the barrier admits them. Asks the source before an event of an epoch that
    /// it has not confirmed. Returns the result of the last part, with all events that came again,
    /// and how long that part took.
    async fn apply(&self, mut events: Vec<Envelope>) -> anyhow::Result<(Batch, Duration)> {
        if self.shared.config.is_of_outbox {
            outbox::correct(&self.bus, self.source, &mut events).await?;
        }
        let (mut epoch_answer, mut again) = (EpochAnswer::NotAsked, Vec::new());
        loop {
            let (part, applying) = self.shared.barrier.admit(self.source, &mut events).await;
            let part = Arc::new(part);
            let began = Instant::now();
            let mut batch = self.apply_part(&part, &epoch_answer).await?;
            drop(applying);
            again.append(&mut batch.again);
            if matches!(batch.stop, Some(Stop::Unconfirmed(_)))
                && epoch_answer == EpochAnswer::NotAsked
            {
                epoch_answer = source_watch::epoch(&self.shared.bus, self.source).await;
                events.splice(0..0, part[batch.looked_at..].iter().cloned());
                continue;
            }
            if events.is_empty() || batch.stop.is_some() || batch.is_stream_changed {
                return Ok((Batch { again, ..batch }, began.elapsed()));
            }
        }
    }

    /// Applies events in one transaction.
    async fn apply_part(
        &self,
        events: &Arc<Vec<Envelope>>,
        epoch_answer: &EpochAnswer,
    ) -> anyhow::Result<Batch> {
        let (source, count) = (self.source, events.len());
        let spans = self.trace(events);
        let input = Input {
            source,
            stream_created: self.stream_created,
            events: Arc::clone(events),
            epoch_answer: epoch_answer.clone(),
        };
        let batch = self
            .write(input)
            .await
            .with_context(|| format!("apply {count} events of {source}"))
            .inspect_err(|error| trace::fail_all(&spans, error))?;
        drop(spans);
        crash::point(self.shared.config.crash_points[1]);
        if !batch.is_stream_changed {
            self.note_applied(&batch);
            let key = |event: &Envelope| apply::key(&*self.shared.projection, event);
            let keys = events[..batch.looked_at].iter().map(key);
            self.shared.followers.wake(keys);
        }
        Ok(batch)
    }

    /// Spans of the applied events; none for a rebuild, which is not part of the events' traces.
    fn trace(&self, events: &[Envelope]) -> Vec<Span> {
        if self.shared.config.consumer == P::NAME {
            applications(P::NAME, events)
        } else {
            Vec::new()
        }
    }

    /// Applies all events at once if only this projection writes to the database. If others write
    /// too, or some events cannot be applied, applies them so that events at fault become dead
    /// letters.
    async fn write(&self, input: Input) -> Result<Batch, WriteError<ApplyError>> {
        let apply = |on_poison| {
            let (shared, input) = (Arc::clone(&self.shared), input.clone());
            move |tx: &Tx| apply::batch(&*shared.projection, tx, &input, on_poison)
        };
        let db = &self.shared.db;
        if self.shared.config.is_exclusive {
            match db.write_exclusive(apply(OnPoison::Refuse)).await {
                Err(WriteError::Refused(ApplyError::Poison(_))) => {}
                applied => return applied,
            }
        }
        Ok(db.write(apply(OnPoison::DeadLetter)).await?.value)
    }

    fn note_applied(&self, batch: &Batch) {
        let position = batch.checkpoint.position();
        self.note_position(position, batch.first_parked);
        self.note_anomalies(batch);
        metrics::counter!("headwater_projection_applied_total", "projection" => self.shared.config.consumer.clone(), "source" => self.source)
            .increment(batch.applied as u64);
        metrics::counter!("headwater_projection_skipped_total", "projection" => self.shared.config.consumer.clone(), "source" => self.source)
            .increment(batch.skipped as u64);
        tracing::debug!(
            projection = P::NAME,
            source = self.source,
            position,
            sequence = batch.checkpoint.sequence,
            applied = batch.applied,
            skipped = batch.skipped,
            parked = batch.parked,
            "applied"
        );
    }

    /// Logs and records that the next event is in a newer version, or no longer.
    fn note_newer(&mut self, newer: Option<&Newer>) {
        if self.newer.as_ref() == newer {
            return;
        }
        self.newer = newer.cloned();
        // A store that is built next to the live one reports what it waits for in its status.
        if self.shared.config.consumer != P::NAME {
            return;
        }
        if let Some(newer) = newer {
            tracing::error!(
                projection = P::NAME,
                source = self.source,
                reason = %newer,
                "the projection waits for an upgrade of this service: nothing is lost"
            );
        }
        metrics::gauge!("headwater_projection_upgrade_needed", "projection" => self.shared.config.consumer.clone(), "source" => self.source)
            .set(f64::from(u8::from(newer.is_some())));
    }

    fn note_position(&self, position: u64, first_parked: Option<u64>) {
        let source = self.source.to_owned();
        self.shared.as_of.send_if_modified(|as_of| {
            let parked = match first_parked {
                Some(first) => as_of.parked.0.insert(source.clone(), first),
                None => as_of.parked.0.remove(&source),
            };
            as_of.applied.0.insert(source, position) != Some(position) || parked != first_parked
        });
    }

    /// Logs and counts events that the relay did not publish in this form.
    fn note_anomalies(&self, batch: &Batch) {
        let projection = &self.shared.config.consumer;
        let kinds = [
            (
                "manual",
                &batch.by_hand,
                "an event without a position, published by hand: applied",
            ),
            (
                "foreign_epoch",
                &batch.foreign,
                "an event of an epoch that the source does not have: refused",
            ),
        ];
        for (counted, tally, what) in kinds {
            let name = format!("headwater_projection_{counted}_total");
            metrics::counter!(name, "projection" => projection.clone(), "source" => self.source)
                .increment(tally.events);
            // A rebuild meets all of them again.
            if *projection != P::NAME {
                continue;
            }
            tally.log(P::NAME, self.source, what);
            if tally.more() > 0 {
                let (source, more) = (self.source, tally.more());
                tracing::warn!(
                    projection,
                    source,
                    more,
                    "and more in the same batch: {what}"
                );
            }
        }
        if let Some(anomalies) = &batch.anomalies {
            self.state().note_anomalies(anomalies.clone());
        }
    }

    /// Records how long the oldest event of a batch took from the stream to the tables.
    fn note_delay(&self, batch: &Batch, stored: Option<SystemTime>) {
        let now = self.shared.db.clock().now();
        if let Some(stored) = stored.filter(|_| batch.applied > 0) {
            metrics::histogram!("headwater_projection_delay_seconds", "projection" => self.shared.config.consumer.clone(), "source" => self.source)
                .record(now.duration_since(stored).unwrap_or_default());
        }
    }

    /// The checkpoint, and the number of dead letters.
    async fn checkpoint(&self) -> anyhow::Result<(Checkpoint, u64)> {
        let source = self.source;
        let load = move |snapshot: &Snapshot| {
            Ok::<_, DbErr>((
                Checkpoint::load(snapshot, P::NAME, source)?,
                Anomalies::load(snapshot, P::NAME, source)?,
            ))
        };
        let loaded = self.shared.db.read(load).await;
        let (checkpoint, anomalies) = loaded.context("load the checkpoint")?;
        self.state().note_anomalies(anomalies);
        let dead_letters = checkpoint.dead_letters;
        Ok((checkpoint, dead_letters))
    }

    fn state(&self) -> &Source {
        self.shared.sources.get(self.source)
    }

    fn report(&self, state: State) {
        self.state().report(state);
    }
}

/// With dead letters the component is degraded: an operator must look, but the projection
/// continues.
fn applied_up_to(position: u64, dead_letters: u64) -> State {
    match dead_letters {
        0 => State::Ok(format!("applied up to {position}")),
        letters => State::Degraded(format!(
            "applied up to {position}; {letters} dead letters wait: see headwater dead-letter list"
        )),
    }
}

/// The most spans for the events of one batch.
const APPLIED_MAX: usize = 64;

/// Starts a span for each of `events` whose command was traced.
fn applications(projection: &'static str, events: &[Envelope]) -> Vec<Span> {
    if !trace::is_on() {
        return Vec::new();
    }
    let begin = |event: &Envelope| {
        let traceparent = event.traceparent.as_deref()?;
        let span = trace::caused(Some(traceparent), SpanKind::Consumer, || {
            format!("apply {}", event.kind())
        });
        span.set("messaging.system", "nats");
        span.set("messaging.destination.name", event.subject.to_string());
        span.set_number("messaging.batch.message_count", events.len() as u64);
        span.set("headwater.projection", projection);
        if let Some(id) = &event.id {
            span.set_number("headwater.position", id.position);
        }
        Some(span)
    };
    events.iter().filter_map(begin).take(APPLIED_MAX).collect()
}
