//! Runs a projection: one loop a source.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::reader::{Reader, flat, part};
use super::{Progress, Projection, checkpoint};
use crate::bus::Bus;
use crate::database::Database;
use crate::health::{Health, State};
use crate::position::Positions;

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
pub(super) struct Shared<P> {
    pub(super) projection: P,
    pub(super) db: Database,
    pub(super) bus: Bus,
    pub(super) health: Health,
    pub(super) config: Config,
    pub(super) positions: watch::Sender<Positions>,
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
                "the tables of the projection {} are of version {found}, this program has {}. \
                 Where the whole database is a copy of others' events, stop the service and move \
                 the file away: it is folded anew from the first event. Where it holds more than \
                 that, which a source's does, start the version before",
                P::NAME,
                P::VERSION
            );
        }
        let now = db
            .read(|snapshot| checkpoint::positions::<P>(snapshot))
            .await?;
        for source in P::SOURCES {
            health.set(&part::<P>(source), State::Degraded("starting".to_owned()));
        }
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
                let mut reader = Reader::new(shared, source);
                stop.run_until_cancelled(Box::pin(reader.run_on())).await;
            });
        }
        while let Some(ended) = sources.join_next().await {
            ended.with_context(|| format!("read a source of {}", P::NAME))?;
        }
        Ok(())
    }
}
