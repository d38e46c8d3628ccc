//! Runs a projection: one loop a source.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::apply::{self, Batch, Gap};
use super::checkpoint::{self, Checkpoint};
use super::feed::{Feed, Start};
use super::{Progress, Projection, gap};
use crate::bus::Bus;
use crate::database::{Database, Snapshot, WriteError};
use crate::envelope::Envelope;
use crate::health::{Health, State};
use crate::position::Positions;
use crate::stream;

/// Pauses between attempts while something outside does not answer.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// How often a silent source's stream is looked at: a consumer that waits beyond the end of a
/// rolled-back stream is silent too.
const LOOK_AFTER: Duration = Duration::from_secs(5);

/// How a projection runs.
#[derive(Debug, Clone)]
pub struct Config {
    /// Events in one transaction, at most.
    pub batch_max: usize,
    /// The durable consumers' name.
    pub consumer: String,
}

impl Config {
    /// The defaults for the projection `P`.
    pub fn of<P: Projection>() -> Self {
        Self {
            batch_max: 2_000,
            consumer: P::NAME.to_owned(),
        }
    }
}

/// A projection that is about to run.
#[derive(Debug)]
pub struct Runner<P> {
    shared: Arc<Shared<P>>,
    progress: Progress,
}

#[derive(Debug)]
struct Shared<P> {
    projection: P,
    db: Database,
    bus: Bus,
    health: Health,
    config: Config,
    positions: watch::Sender<Positions>,
}

impl<P: Projection> Runner<P> {
    /// Loads how far `projection` got in `db`.
    ///
    /// # Errors
    /// The database's, or that its tables were folded by another version of the projection.
    pub async fn load(
        projection: P,
        db: Database,
        bus: Bus,
        health: Health,
        config: Config,
    ) -> anyhow::Result<Self> {
        let claimed = db
            .write(|tx| checkpoint::claim_version(tx, P::NAME, P::VERSION))
            .await
            .map_err(flat)?;
        if let Some(found) = claimed.value {
            bail!(
                "the tables of the projection {} are of version {found}, this program has {}: \
                 stop the service, move its database file away and start it again, and they are \
                 folded anew from the first event",
                P::NAME,
                P::VERSION
            );
        }
        let now = db
            .read(|snapshot| checkpoint::positions::<P>(snapshot))
            .await?;
        let (positions, receiver) = watch::channel(now);
        let shared = Shared {
            projection,
            db,
            bus,
            health,
            config,
            positions,
        };
        Ok(Self {
            shared: Arc::new(shared),
            progress: Progress::new(receiver),
        })
    }

    /// How far the projection has got, for reads that wait.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Runs until `stop`; does not end by itself, whatever broker and sources do.
    ///
    /// # Errors
    /// A part of it panicked.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut sources = JoinSet::new();
        for source in P::SOURCES {
            let shared = Arc::clone(&self.shared);
            let stop = stop.clone();
            sources.spawn(async move {
                let mut reader = Reader {
                    shared,
                    source,
                    gap: None,
                };
                stop.run_until_cancelled(reader.run_on()).await;
            });
        }
        while let Some(ended) = sources.join_next().await {
            ended.with_context(|| format!("read a source of {}", P::NAME))?;
        }
        Ok(())
    }
}

/// Reads one source.
struct Reader<P> {
    shared: Arc<Shared<P>>,
    source: &'static str,
    /// The gap that the stream was read again for.
    gap: Option<Gap>,
}

impl<P: Projection> Reader<P> {
    async fn run_on(&mut self) {
        let mut pause = PAUSE_MIN;
        loop {
            let Err(failure) = self.follow(&mut pause).await else {
                continue;
            };
            self.report(State::Degraded(format!("waiting: {failure:#}")));
            tracing::warn!(
                projection = P::NAME,
                source = self.source,
                reason = format!("{failure:#}"),
                pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                "projection waits"
            );
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Reads the stream from the checkpoint on, until something has to be looked at again.
    async fn follow(&mut self, pause: &mut Duration) -> anyhow::Result<()> {
        let seen = self.shared.bus.seen();
        let stream = stream::find(&self.shared.bus, self.source)
            .await
            .context("reach the stream")?
            .with_context(|| format!("there is no stream {} yet", stream::name(self.source)))?;
        let info = stream.get_info().await.context("read the stream's state")?;
        let mut checkpoint = self.checkpoint().await?;
        let start = Start::after(checkpoint.stream_created, checkpoint.sequence, &info);
        if checkpoint.rewind(start) {
            let rewound = checkpoint.clone();
            let saved = self.shared.db.write(move |tx| rewound.save(tx)).await;
            saved.map_err(flat).context("save the checkpoint")?;
        }
        let consumer = &self.shared.config.consumer;
        let mut feed = Feed::open(
            &stream,
            self.source,
            consumer,
            start,
            self.shared.config.batch_max,
        )
        .await?;
        self.report(State::Ok(format!(
            "applied up to {}",
            checkpoint.position()
        )));
        loop {
            let events = tokio::select! {
                events = feed.next_batch() => events?,
                () = self.shared.bus.reconnected(seen) => return Ok(()),
                () = tokio::time::sleep(LOOK_AFTER) => {
                    if self.is_elsewhere(&stream, start).await? { return Ok(()) }
                    continue;
                }
            };
            let applied = self.apply(events).await?;
            *pause = PAUSE_MIN;
            if let Some(gap) = applied.gap {
                return self.close(gap).await;
            }
        }
    }

    /// Whether the stream is not the one that is being read, or ends before the checkpoint.
    async fn is_elsewhere(
        &self,
        stream: &async_nats::jetstream::stream::Stream,
        start: Start,
    ) -> anyhow::Result<bool> {
        let info = stream.get_info().await.context("read the stream's state")?;
        let sequence = self.checkpoint().await?.sequence;
        Ok(stream::created(&info) != start.stream_created || info.state.last_sequence < sequence)
    }

    /// Closes a gap: the first time by reading the stream again, because events may have been
    /// lost on the way here; then from the source's outbox.
    async fn close(&mut self, gap: Gap) -> anyhow::Result<()> {
        if self.gap.as_ref() != Some(&gap) {
            tracing::debug!(
                projection = P::NAME,
                source = self.source,
                ?gap,
                "gap: reading again"
            );
            self.gap = Some(gap);
            return Ok(());
        }
        let events = gap::fetch(&self.shared.bus, self.source, &gap)
            .await
            .with_context(|| {
                format!(
                    "the stream misses the events {} to {} of {}",
                    gap.have + 1,
                    gap.came - 1,
                    self.source
                )
            })?;
        tracing::warn!(
            projection = P::NAME,
            source = self.source,
            position = gap.have + 1,
            events = events.len(),
            "the stream misses events: fetched from the outbox"
        );
        metrics::counter!("headwater_projection_gap_events_total", "projection" => P::NAME, "source" => self.source)
            .increment(events.len() as u64);
        self.apply(events).await?;
        Ok(())
    }

    /// Applies a batch, again and again while the database cannot take it.
    async fn apply(&self, events: Vec<Envelope>) -> anyhow::Result<Batch> {
        let source = self.source;
        let events = Arc::new(events);
        let (shared, batch) = (Arc::clone(&self.shared), Arc::clone(&events));
        let applied = self
            .shared
            .db
            .write(move |tx| apply::batch(&shared.projection, tx, source, &batch))
            .await
            .map_err(flat)
            .with_context(|| format!("apply {} events", events.len()))?
            .value;
        self.note_applied(&applied);
        Ok(applied)
    }

    fn note_applied(&self, batch: &Batch) {
        let position = batch.checkpoint.position();
        self.shared.positions.send_if_modified(|positions| {
            positions.0.insert(self.source.to_owned(), position) != Some(position)
        });
        self.report(applied_up_to(position, batch.dead_letters));
        metrics::counter!("headwater_projection_applied_total", "projection" => P::NAME, "source" => self.source)
            .increment(batch.applied as u64);
        metrics::counter!("headwater_projection_skipped_total", "projection" => P::NAME, "source" => self.source)
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

    async fn checkpoint(&self) -> anyhow::Result<Checkpoint> {
        let source = self.source;
        let load = move |snapshot: &Snapshot| Checkpoint::load(snapshot, P::NAME, source);
        self.shared
            .db
            .read(load)
            .await
            .context("load the checkpoint")
    }

    fn report(&self, state: State) {
        let part = format!("{} from {}", P::NAME, self.source);
        self.shared.health.set(&part, state);
    }
}

/// Dead letters are for a person to look at, but the rest goes on.
fn applied_up_to(position: u64, dead_letters: u64) -> State {
    match dead_letters {
        0 => State::Ok(format!("applied up to {position}")),
        letters => State::Degraded(format!(
            "applied up to {position}; {letters} dead letters wait in headwater_dead_letter"
        )),
    }
}

/// A write's error as one chain.
fn flat<E: Into<anyhow::Error> + Send + Sync + std::error::Error + 'static>(
    error: WriteError<E>,
) -> anyhow::Error {
    match error {
        WriteError::Refused(error) => anyhow::Error::new(error),
        other => anyhow::anyhow!("{other}"),
    }
}
