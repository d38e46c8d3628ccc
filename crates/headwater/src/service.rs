//! A service's parts, put together: what all services have, and what some of them add.
//!
//! ```ignore
//! let mut service = Service::start(NAME, MIGRATIONS, config, stop).await?;
//! service.relay();                                        // publishes its outbox
//! let catalogue = service.project(Catalogue).await?;      // keeps a copy of others' data
//! let app = http::app(&service, catalogue);
//! service.serve(listener, app).await                      // until stopped
//! ```

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::database::Migration;
use crate::health::State;
use crate::operator::Tools;
use crate::projection::{self, Progress, Projection, Runner};
use crate::rebuild::Rebuilder;
use crate::{Bus, Clock, Config, Database, Health, Relay, Supervisor, http, operator};

/// A service that is being put together.
#[derive(Debug)]
pub struct Service {
    /// Its database.
    pub db: Database,
    /// What its parts say of themselves.
    pub health: Health,
    /// What it was told at its start.
    pub config: Config,
    bus: Bus,
    tasks: Supervisor,
    tools: Tools,
    /// Whether the database is nothing but a copy.
    is_copy: bool,
}

impl Service {
    /// Opens the service's database and begins to connect to the broker.
    ///
    /// # Errors
    /// See [`Database::open`] and [`Bus::connect`].
    pub async fn start(
        name: &'static str,
        migrations: &'static [Migration],
        config: Config,
        stop: CancellationToken,
    ) -> anyhow::Result<Self> {
        let db = Database::open(name, &config.database, migrations, Clock::system())
            .await
            .context("open the database")?;
        Self::over(db, config, stop, false).await
    }

    /// [`start`](Self::start) for a service whose database is nothing but a copy, a read store: it
    /// is folded anew when it is missing, damaged, or of another version, and when an operator
    /// wants it; beside the one that serves, where there is one.
    ///
    /// # Errors
    /// See [`Database::open`] and [`Bus::connect`].
    pub async fn start_copy(
        name: &'static str,
        migrations: &'static [Migration],
        config: Config,
        stop: CancellationToken,
    ) -> anyhow::Result<Self> {
        let db = Database::open_copy(name, &config.database, migrations, Clock::system())
            .await
            .context("open the read store")?;
        Self::over(db, config, stop, true).await
    }

    async fn over(
        db: Database,
        config: Config,
        stop: CancellationToken,
        is_copy: bool,
    ) -> anyhow::Result<Self> {
        let bus = Bus::connect(db.owner(), &config.nats).await?;
        Ok(Self {
            db,
            health: Health::new(),
            config,
            bus,
            tasks: Supervisor::new(stop),
            tools: Tools::default(),
            is_copy,
        })
    }

    /// Publishes the events of its outbox.
    pub fn relay(&mut self) {
        let relay = Relay::new(self.db.clone(), self.bus.clone(), self.health.clone());
        self.tasks.spawn("relay", |stop| relay.run(stop));
    }

    /// Keeps the tables of `projection` up to date; gives how far they are, as it changes.
    ///
    /// # Errors
    /// See [`Runner::load`]; a copy takes any version, and is folded anew where it is another
    /// one. It has one projection: its file is exchanged as a whole.
    pub async fn project<P: Projection>(&mut self, projection: P) -> anyhow::Result<Progress> {
        let (db, bus, health) = (self.db.clone(), self.bus.clone(), self.health.clone());
        let projection = Arc::new(projection);
        let runner = if self.is_copy {
            ensure!(self.tools.is_empty(), "a read store has one projection");
            let config = projection::Config::of_copy::<P>();
            let runner = Runner::load_any(projection, db, bus, health, config).await?;
            let (rebuilder, fold) = Rebuilder::new(runner.live(), runner.version());
            self.tools = Tools::default().with_fold(fold);
            self.tasks.spawn("rebuild", |stop| rebuilder.run(stop));
            runner
        } else {
            let config = projection::Config::of::<P>();
            Runner::load(projection, db, bus, health, config).await?
        };
        self.tools = std::mem::take(&mut self.tools).with(&runner);
        let progress = runner.progress();
        self.tasks.spawn(P::NAME, |stop| runner.run(stop));
        Ok(progress)
    }

    /// Answers clients and operators until it is stopped or one of its tasks ends, then closes
    /// the database.
    ///
    /// # Errors
    /// A task ended by itself, or did not end when it was told to.
    pub async fn serve(self, listener: TcpListener, app: Router) -> anyhow::Result<()> {
        let Self {
            db,
            health,
            config,
            bus,
            mut tasks,
            tools,
            is_copy,
        } = self;
        let (operated, watched) = (db.clone(), db.clone());
        if !is_copy {
            // Nobody can make it again from anything; a copy's own task folds it anew.
            let (db, health) = (db.clone(), health.clone());
            tasks.spawn("damage", |stop| tell_of_damage(db, health, stop));
        }
        let drain = config.drain();
        tasks.spawn("operator", |stop| {
            operator::serve(operated, bus, health, tools, stop)
        });
        tasks.spawn("http", |stop| http::serve(listener, app, config.http, stop));
        tasks.spawn("database", |stop| watched.watch(stop));
        let ended = tasks.join(drain).await;
        db.close().await;
        ended
    }
}

/// Says so when a database that is more than a copy is found to be damaged. What can still be
/// read of it is read on: a person decides when to put back the newest copy.
async fn tell_of_damage(
    db: Database,
    health: Health,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    if let Some(what) = stop.run_until_cancelled(db.damaged()).await {
        let advice = "stop the service and put back the newest copy of the file";
        tracing::error!(database = %db.path().display(), what, "the database is damaged: {advice}");
        health.set(
            "database",
            State::Failed(format!("damaged: {what}; {advice}")),
        );
        stop.cancelled().await;
    }
    Ok(())
}
