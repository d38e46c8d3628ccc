//! Runs a projection: one loop per source.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use crate::Config;
use crate::barrier::ApplyBarrier;
use crate::checkpoint;
use crate::dead_letter::Refusal;
use crate::error::Error;
use crate::pause::PauseControl;
use crate::progress::Progress;
use crate::projection::Projection;
use crate::reader::Reader;
use crate::shared::Shared;
use crate::source::Sources;
use crate::source_watch;
use headwater_event::AsOf;
use headwater_event::Positions;
use headwater_nats::bus::Bus;
use headwater_nats::window::Link;
use headwater_store::Database;
use headwater_store::follow::Followers;
use headwater_telemetry::health::Health;

/// A projection that is about to run.
#[derive(Debug)]
pub struct Runner<P> {
    shared: Arc<Shared<P>>,
    progress: Progress,
    version: u32,
    pause_control: Option<PauseControl>,
}

/// A running projection, as others use it.
#[derive(Debug)]
pub struct RunnerHandle<P>(Arc<Shared<P>>);

impl<P> Clone for RunnerHandle<P> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<P: Projection> RunnerHandle<P> {
    /// The projection itself.
    pub fn projection(&self) -> &Arc<P> {
        &self.0.projection
    }

    /// Its database.
    pub fn db(&self) -> &Database {
        &self.0.db
    }

    /// The connection to the broker.
    pub fn bus(&self) -> &Bus {
        &self.0.bus
    }

    /// Where the projection reports its state.
    pub fn health(&self) -> &Health {
        &self.0.health
    }

    /// Its apply barrier.
    pub fn barrier(&self) -> &ApplyBarrier {
        &self.0.barrier
    }

    /// The positions that are applied now.
    pub fn positions(&self) -> Positions {
        self.0.as_of.borrow().applied.clone()
    }

    /// Whether its tables are complete.
    pub fn is_complete(&self) -> bool {
        *self.0.is_complete.borrow()
    }

    /// For each source that cannot be read on, what it waits for.
    pub fn waiting(&self) -> BTreeMap<String, String> {
        self.0.sources.waiting()
    }

    /// Fails while a rebuild changes the tables to equal the new store: other changes would be
    /// lost.
    pub(crate) fn expect_no_take_over(&self) -> Result<(), Refusal> {
        if self.0.is_taken_over.load(Ordering::Acquire) {
            Err(Refusal::TakeOver)
        } else {
            Ok(())
        }
    }

    /// Records whether a rebuild is changing the tables to equal the new store.
    pub fn set_taken_over(&self, is_taken_over: bool) {
        self.0.is_taken_over.store(is_taken_over, Ordering::Release);
    }

    /// Records that the tables are others now, as of `as_of`, and whether they are complete.
    pub fn note_tables(&self, as_of: AsOf, is_complete: bool) {
        self.0.as_of.send_replace(as_of);
        self.0.is_complete.send_replace(is_complete);
        self.wake_followers();
    }

    /// Wakes everybody who follows the projection.
    pub(crate) fn wake_followers(&self) {
        self.0.followers.wake_all();
    }
}

impl<P: Projection> Runner<P> {
    /// Loads how far `projection` got in `db`.
    ///
    /// # Errors
    /// [`Error::OtherVersion`]: a runner alone does not rebuild the tables, `Service::project` does;
    /// or the database's.
    pub async fn load(
        projection: impl Into<Arc<P>>,
        db: Database,
        bus: Bus,
        health: Health,
        config: Config,
    ) -> Result<Self, Error> {
        let runner = Self::load_any(projection.into(), db, bus, health, config).await?;
        match runner.version {
            found if found == P::VERSION => Ok(runner),
            found => Err(Error::OtherVersion {
                projection: P::NAME,
                found,
                known: P::VERSION,
            }),
        }
    }

    /// [`load`](Self::load), for tables of any version.
    ///
    /// # Errors
    /// The database's.
    pub async fn load_any(
        projection: Arc<P>,
        db: Database,
        bus: Bus,
        health: Health,
        config: Config,
    ) -> Result<Self, Error> {
        // Written only if unknown: a service must also start on a full disk.
        let known = |snapshot: &_| checkpoint::claimed(snapshot, P::NAME);
        let claimed = if let Some(known) = db.read(known).await? {
            known
        } else {
            let claim = |tx: &_| checkpoint::claim(tx, P::NAME, P::VERSION);
            db.write(claim).await?.value
        };
        let now = db.read(|snapshot| checkpoint::as_of::<P>(snapshot)).await?;
        if P::EVENTS.is_empty() && config.consumer == P::NAME {
            tracing::warn!(
                projection = P::NAME,
                "the projection names no EVENTS: it cannot wait at an event in a newer version"
            );
        }
        let sources = Sources::new::<P>(&health);
        let barrier = ApplyBarrier::default();
        let pause_control = if config.is_pausable {
            let (db, health) = (db.clone(), health.clone());
            Some(PauseControl::load(P::NAME, db, barrier.clone(), health).await?)
        } else {
            None
        };
        let (as_of, as_of_receiver) = watch::channel(now);
        let (is_complete, complete_receiver) = watch::channel(claimed.is_complete);
        let followers = Followers::default();
        let progress = Progress::new(
            P::NAME,
            db.clone(),
            as_of_receiver,
            complete_receiver,
            followers.clone(),
        );
        let shared = Shared {
            projection,
            db,
            bus,
            health,
            config,
            barrier,
            as_of,
            followers,
            sources,
            is_complete,
            is_taken_over: AtomicBool::new(false),
            read_to_end: Mutex::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
            progress,
            version: claimed.version,
            pause_control,
        })
    }

    /// The version of the tables.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The operator's pause control; `None` for rebuilds.
    pub fn pause_control(&self) -> Option<PauseControl> {
        self.pause_control.clone()
    }

    /// A handle for a rebuild while it runs.
    pub fn live(&self) -> RunnerHandle<P> {
        RunnerHandle(Arc::clone(&self.shared))
    }

    /// The state of its sources.
    pub fn sources(&self) -> Sources {
        self.shared.sources.clone()
    }

    /// How far the projection has got, for reads that wait.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Runs until `stop`. Does not end by itself, whatever broker and sources do. Dropping the
    /// future also stops it, except for a write in progress.
    ///
    /// Runs on its own thread, with its own connection: a stream of small events through the tasks
    /// of a multi-threaded runtime is half as fast.
    ///
    /// # Errors
    /// The thread cannot be started, or [panicked](Error::Panicked).
    pub async fn run(self, stop: CancellationToken) -> Result<(), Error> {
        let stop = stop.child_token();
        let _ends_with_this = stop.clone().drop_guard();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("start a runtime")
            .map_err(|error| Error::Other(error.into()))?;
        let (sender, ended) = oneshot::channel();
        std::thread::Builder::new()
            .name(self.shared.config.consumer.clone())
            .spawn(move || {
                // Fails only if the future was dropped.
                let _ = sender.send(runtime.block_on(self.read_sources(stop)));
            })
            .context("start a thread")
            .map_err(|error| Error::Other(error.into()))?;
        ended
            .await
            .with_context(|| format!("the projection {} panicked", P::NAME))
            .map_err(|error| Error::Panicked(error.into()))?
    }

    async fn read_sources(self, stop: CancellationToken) -> Result<(), Error> {
        let bus = self.shared.bus.another().await?;
        let link = Arc::new(Link::new());
        let mut sources = JoinSet::new();
        for source in P::SOURCES {
            let (shared, bus) = (Arc::clone(&self.shared), bus.clone());
            let (link, stop, watched) = (Arc::clone(&link), stop.clone(), Arc::clone(&self.shared));
            sources.spawn(async move {
                let mut reader = Reader::new(shared, bus, link, source);
                let reading =
                    async { tokio::join!(reader.run_on(), source_watch::watch(watched, source)) };
                stop.run_until_cancelled(Box::pin(reading)).await;
            });
        }
        while let Some(ended) = sources.join_next().await {
            ended
                .with_context(|| format!("read a source of {}", P::NAME))
                .map_err(|error| Error::Panicked(error.into()))?;
        }
        Ok(())
    }
}
