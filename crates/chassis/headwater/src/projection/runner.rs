//! Runs a projection: one loop a source.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, ensure};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::dead_letter::Refusal;
use super::gate::Gate;
use super::pause::Brake;
use super::progress::AsOf;
use super::reader::{Reader, flat};
use super::source::{self, Sources};
use super::window::Link;
use super::{Progress, Projection, checkpoint, consumer};
use crate::bus::Bus;
use crate::database::Database;
use crate::health::Health;
use crate::operator::Then;
use crate::position::Positions;

/// Events in one transaction of a read store, at most: what a large store costs is its pages, and
/// the more events at once, the more of their rows are on each.
const COPY_BATCH_MAX: usize = 100_000;

/// How a projection runs.
#[derive(Debug, Clone)]
pub struct Config {
    /// Events in one transaction, at most.
    pub batch_max: usize,
    /// Whether nobody else writes to the database.
    pub(crate) is_alone: bool,
    /// Whether a pause in the database counts: a fold beside a paused store goes on.
    is_pausable: bool,
    /// Whether events with a position are taken from their source's outbox, wherever they lie in
    /// the stream, and those that it does not have are left out.
    pub(crate) is_of_outbox: bool,
    /// The durable consumers' name, and the projection's in metrics.
    pub consumer: String,
    /// Where the process dies before and after a batch, if it is told to.
    pub(crate) crash_points: [&'static str; 2],
}

impl Config {
    /// The defaults for the projection `P` in a database that others write to as well: a batch
    /// holds them up, for some 10 ms at most.
    pub fn of<P: Projection>() -> Self {
        Self {
            batch_max: 2_000,
            is_alone: false,
            is_pausable: true,
            is_of_outbox: false,
            consumer: P::NAME.to_owned(),
            crash_points: ["projection.received", "projection.committed"],
        }
    }

    /// The same for a read store, which nobody else writes to.
    pub(crate) fn of_copy<P: Projection>() -> Self {
        Self {
            batch_max: COPY_BATCH_MAX,
            is_alone: true,
            ..Self::of::<P>()
        }
    }

    /// The same for a store that is folded beside the live one: the one to compare with is a fold
    /// of the outboxes.
    pub(crate) fn beside<P: Projection>(then: Then) -> Self {
        Self {
            is_pausable: false,
            is_of_outbox: then == Then::Compare,
            consumer: consumer::beside(P::NAME, then),
            crash_points: ["rebuild.received", "rebuild.folding"],
            ..Self::of_copy::<P>()
        }
    }
}

/// A projection that is about to run.
#[derive(Debug)]
pub struct Runner<P> {
    shared: Arc<Shared<P>>,
    progress: Progress,
    version: u32,
    brake: Option<Brake>,
}

/// A running projection, seen from beside it.
#[derive(Debug)]
pub(crate) struct Live<P>(Arc<Shared<P>>);

impl<P> Clone for Live<P> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<P: Projection> Live<P> {
    pub(crate) fn projection(&self) -> &Arc<P> {
        &self.0.projection
    }

    pub(crate) fn db(&self) -> &Database {
        &self.0.db
    }

    pub(crate) fn bus(&self) -> &Bus {
        &self.0.bus
    }

    pub(crate) fn health(&self) -> &Health {
        &self.0.health
    }

    pub(crate) fn gate(&self) -> &Gate {
        &self.0.gate
    }

    /// How far it is, for those who watch.
    pub(crate) fn positions(&self) -> Positions {
        self.0.as_of.borrow().applied.clone()
    }

    /// Whether its tables are whole.
    pub(crate) fn is_complete(&self) -> bool {
        *self.0.is_complete.borrow()
    }

    /// What it waits for, by the source that it cannot go on in.
    pub(crate) fn waiting(&self) -> BTreeMap<String, String> {
        self.0.sources.waiting()
    }

    /// Errors while a rebuild makes its tables equal to a new fold: it knows of no other change.
    pub(crate) fn expect_no_take_over(&self) -> Result<(), Refusal> {
        if self.0.is_taken_over.load(Ordering::Acquire) {
            Err(Refusal::TakeOver)
        } else {
            Ok(())
        }
    }

    /// Notes whether a rebuild makes its tables equal to a new fold.
    pub(crate) fn set_taken_over(&self, is_taken_over: bool) {
        self.0.is_taken_over.store(is_taken_over, Ordering::Release);
    }

    /// Notes that its tables are others now, as far as `as_of`, and whether they are whole.
    pub(crate) fn note_tables(&self, as_of: AsOf, is_complete: bool) {
        self.0.as_of.send_replace(as_of);
        self.0.is_complete.send_replace(is_complete);
    }
}

#[derive(Debug)]
pub(super) struct Shared<P> {
    pub(super) projection: Arc<P>,
    pub(super) db: Database,
    bus: Bus,
    pub(super) health: Health,
    pub(super) config: Config,
    pub(super) gate: Gate,
    pub(super) as_of: watch::Sender<AsOf>,
    pub(super) sources: Sources,
    is_complete: watch::Sender<bool>,
    /// Whether a rebuild makes its tables equal to a new fold.
    is_taken_over: AtomicBool,
    /// The sources whose streams were read to the end since this runner was loaded.
    drained: Mutex<BTreeSet<&'static str>>,
}

impl<P: Projection> Shared<P> {
    /// The service's own connection: what is asked here does not wait behind the events.
    pub(super) fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Notes that the stream of `source` was read to its end.
    pub(super) async fn note_drained(&self, source: &'static str) -> anyhow::Result<()> {
        if *self.is_complete.borrow() {
            return Ok(());
        }
        let are_all = {
            let mut drained = self.drained.lock().unwrap_or_else(PoisonError::into_inner);
            drained.insert(source);
            drained.len() == P::SOURCES.len()
        };
        if are_all {
            let noted = self.db.write(|tx| checkpoint::note_complete(tx, P::NAME));
            noted
                .await
                .map_err(flat)
                .context("note that the tables are whole")?;
            self.is_complete.send_replace(true);
            tracing::info!(projection = P::NAME, "the tables are whole");
        }
        Ok(())
    }
}

impl<P: Projection> Runner<P> {
    /// Loads how far `projection` got in `db`.
    ///
    /// # Errors
    /// The database's, or that its tables were folded by another version of the projection: a
    /// runner alone does not rebuild them, [`Service::project`](crate::Service::project) does.
    pub async fn load(
        projection: impl Into<Arc<P>>,
        db: Database,
        bus: Bus,
        health: Health,
        config: Config,
    ) -> anyhow::Result<Self> {
        let runner = Self::load_any(projection.into(), db, bus, health, config).await?;
        let found = runner.version;
        ensure!(
            found == P::VERSION,
            "the tables of the projection {} are of version {found}, this program has {}: only a \
             service (`Service::project`) rebuilds them",
            P::NAME,
            P::VERSION
        );
        Ok(runner)
    }

    /// [`load`](Self::load), whatever version the tables are of.
    pub(crate) async fn load_any(
        projection: Arc<P>,
        db: Database,
        bus: Bus,
        health: Health,
        config: Config,
    ) -> anyhow::Result<Self> {
        // Not written where it is known: a service starts on a full disk, too.
        let known = |snapshot: &_| checkpoint::claimed(snapshot, P::NAME);
        let claimed = if let Some(known) = db.read(known).await? {
            known
        } else {
            let claim = |tx: &_| checkpoint::claim(tx, P::NAME, P::VERSION);
            db.write(claim).await.map_err(flat)?.value
        };
        let now = db.read(|snapshot| checkpoint::as_of::<P>(snapshot)).await?;
        let sources = Sources::new::<P>(&health);
        let gate = Gate::default();
        let brake = if config.is_pausable {
            let (db, health) = (db.clone(), health.clone());
            Some(Brake::load(P::NAME, db, gate.clone(), health).await?)
        } else {
            None
        };
        let (as_of, as_of_receiver) = watch::channel(now);
        let (is_complete, complete_receiver) = watch::channel(claimed.is_complete);
        let progress = Progress::new(P::NAME, db.clone(), as_of_receiver, complete_receiver);
        let shared = Shared {
            projection,
            db,
            bus,
            health,
            config,
            gate,
            as_of,
            sources,
            is_complete,
            is_taken_over: AtomicBool::new(false),
            drained: Mutex::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
            progress,
            version: claimed.version,
            brake,
        })
    }

    /// The version that the tables are of.
    pub(crate) fn version(&self) -> u32 {
        self.version
    }

    /// What holds it for operators; none where it is no one's to hold.
    pub(crate) fn brake(&self) -> Option<Brake> {
        self.brake.clone()
    }

    /// What a rebuild needs of it while it runs.
    pub(crate) fn live(&self) -> Live<P> {
        Live(Arc::clone(&self.shared))
    }

    /// What is known of its sources.
    pub(crate) fn sources(&self) -> Sources {
        self.shared.sources.clone()
    }

    /// How far the projection has got, for reads that wait.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Runs until `stop`; does not end by itself, whatever broker and sources do. No longer than
    /// its future either, but for what is being written.
    ///
    /// On a thread of its own, with a connection of its own: a stream of small events through
    /// the tasks of a runtime with many threads is half as fast.
    ///
    /// # Errors
    /// There can be no such thread, or a part of it panicked.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let stop = stop.child_token();
        let _ends_with_this = stop.clone().drop_guard();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("start a runtime")?;
        let (sender, ended) = oneshot::channel();
        std::thread::Builder::new()
            .name(self.shared.config.consumer.clone())
            .spawn(move || {
                // Where nobody waits for it any more, nobody is told.
                let _ = sender.send(runtime.block_on(self.read_sources(stop)));
            })
            .context("start a thread")?;
        ended
            .await
            .with_context(|| format!("the projection {} panicked", P::NAME))?
    }

    async fn read_sources(self, stop: CancellationToken) -> anyhow::Result<()> {
        let bus = self.shared.bus.another().await?;
        let link = Arc::new(Link::new());
        let mut sources = JoinSet::new();
        for source in P::SOURCES {
            let (shared, bus) = (Arc::clone(&self.shared), bus.clone());
            let (link, stop, watched) = (Arc::clone(&link), stop.clone(), Arc::clone(&self.shared));
            sources.spawn(async move {
                let mut reader = Reader::new(shared, bus, link, source);
                let reading =
                    async { tokio::join!(reader.run_on(), source::watch(watched, source)) };
                stop.run_until_cancelled(Box::pin(reading)).await;
            });
        }
        while let Some(ended) = sources.join_next().await {
            ended.with_context(|| format!("read a source of {}", P::NAME))?;
        }
        Ok(())
    }
}
