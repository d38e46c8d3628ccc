//! A service's parts, put together: what all services have, and what some of them add.
//!
//! ```ignore
//! let mut service = Service::start(NAME, MIGRATIONS, config, stop).await?;
//! service.relay();                                        // publishes its outbox
//! service.describe(&shop_events::SCHEMA)?;                    // says what its events look like
//! let catalogue = service.project(Catalogue).await?;      // keeps a copy of others' data
//! service.answers(inquiry::SUBJECT, inquiry::answer);     // answers others over the bus
//! let app = http::app(ABOUT, routes, service.health.clone(), &service.config.http);
//! service.serve(listeners, app).await                      // until stopped
//! ```
//!
//! One that keeps nothing of its own and asks others has no database:
//! [`start_without_database`](Service::start_without_database).

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use axum::Router;
use prost::Message;
use sea_orm::DbErr;
use tokio::signal::unix::Signal;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::file_watch::FileWatch;
use crate::operator::AdminEndpoints;
use crate::operator::registry::ProjectionRegistry;
pub(crate) use crate::request_reply::answering::{Questions, Refusal};
use crate::sample::Sampler;
use crate::{operator, reload, watchdog};
use headwater_event::schema::Schema;
use headwater_http as http;
use headwater_http::{Listeners, LivenessProbe};
use headwater_nats::bus::Bus;
use headwater_nats::request::RequestClient;
use headwater_projection as projection;
use headwater_projection::Progress;
use headwater_projection::Projection;
use headwater_projection::Runner;
use headwater_rebuild as rebuild;
use headwater_rebuild::{Rebuilder, Store};
use headwater_relay::Published;
use headwater_relay::Relay;
use headwater_store as database;
use headwater_store::Database;
use headwater_store::Kind;
use headwater_store::Lock;
use headwater_store::Migration;
use headwater_store::WriteError;
use headwater_store::personal;
use headwater_store::personal::Shredder;
use headwater_store::{Snapshot, Tx};
use headwater_telemetry::Clock;
use headwater_telemetry::Health;
use headwater_telemetry::Supervisor;
use headwater_telemetry::systemd;

/// A service that is being put together; `D` is its [`Database`], or `()` where it has none.
#[derive(Debug)]
pub struct Service<D = Database> {
    /// Its database.
    pub db: D,
    /// What its parts say of themselves.
    pub health: Health,
    /// What it was told at its start.
    pub config: Config,
    name: &'static str,
    bus: Bus,
    /// The wishes to have the configuration read anew.
    sighup: Signal,
    tasks: Supervisor,
    registry: ProjectionRegistry,
    questions: Questions,
    /// How far its relay is, where it has one.
    published: Option<Published>,
    /// Whether the database is nothing but a copy.
    is_copy: bool,
    /// Keeps other processes away from the database, where there is one.
    lock: Option<Lock>,
    /// Destroys keys, where there are any.
    shredder: Option<Shredder>,
}

impl Service {
    /// Opens the service's database and begins to connect to the broker.
    ///
    /// # Errors
    /// Another process has the database open; see also [`Database::open`] and [`Bus::connect`].
    pub async fn start(
        name: &'static str,
        migrations: &'static [Migration],
        config: Config,
        stop: CancellationToken,
    ) -> anyhow::Result<Self> {
        Self::start_as(name, Kind::Own, migrations, config, stop).await
    }

    /// [`start`](Self::start) for a service that keeps [personal data](personal): its database has
    /// a key file beside it, and the keys of those who are erased are destroyed in the background.
    /// The process leaves no core dump.
    ///
    /// # Errors
    /// Those of [`start`](Self::start); the key file is missing, damaged, or of another database.
    pub async fn start_with_personal_data(
        name: &'static str,
        migrations: &'static [Migration],
        config: Config,
        stop: CancellationToken,
    ) -> anyhow::Result<Self> {
        personal::forbid_core_dumps().context("forbid core dumps")?;
        let mut service = Self::start_as(name, Kind::Personal, migrations, config, stop).await?;
        let shredder = Shredder::new(service.db.clone(), service.health.clone());
        service.shredder = Some(shredder.clone());
        service.tasks.spawn("erasure", |stop| shredder.run(stop));
        Ok(service)
    }

    /// [`start`](Self::start) for a service whose database is nothing but a copy, a read store: it
    /// is folded anew when it is missing, damaged, or of another version, and when an operator
    /// wants it; beside the one that serves, where there is one.
    ///
    /// # Errors
    /// Another process has the database open; see also [`Database::open`] and [`Bus::connect`].
    pub async fn start_copy(
        name: &'static str,
        migrations: &'static [Migration],
        config: Config,
        stop: CancellationToken,
    ) -> anyhow::Result<Self> {
        Self::start_as(name, Kind::ReadStore, migrations, config, stop).await
    }

    async fn start_as(
        name: &'static str,
        kind: Kind,
        migrations: &'static [Migration],
        config: Config,
        stop: CancellationToken,
    ) -> anyhow::Result<Self> {
        let place = &config.database;
        // Keeps every other process away from a database, made or not, before it is opened.
        let open = async || {
            database::make_folder(place)?;
            let lock = Lock::take(&place.path, kind)?;
            let db = Database::open_as(name, kind, place, migrations, Clock::system()).await;
            Ok((lock, db.context("open the database")?))
        };
        let (lock, db) = database::room::when_there_is_room(&place.path, &stop, open).await?;
        let mut service = Self::over(name, db, config, stop).await?;
        service.is_copy = !kind.is_own();
        service.lock = Some(lock);
        Ok(service)
    }

    /// Publishes the events of its outbox.
    pub fn relay(&mut self) {
        let relay = Relay::new(self.db.clone(), self.bus.clone(), self.health.clone());
        self.published = Some(relay.published());
        self.tasks.spawn("relay", |stop| relay.run(stop));
    }

    /// Puts what its events look like where tools find it, so that they can be read by ones that
    /// were not built with this service.
    ///
    /// # Errors
    /// See [`Schema::of`].
    pub fn describe(&mut self, schema: &Schema) -> anyhow::Result<()> {
        let described = schema.of(self.name).context("describe the events")?;
        self.questions.describe(&described);
        let keeper = headwater_nats::Keeper::new(described, self.bus.clone(), self.health.clone());
        self.tasks.spawn("schema", |stop| keeper.run(stop));
        Ok(())
    }

    /// Keeps the tables of `projection` up to date; gives how far they are, as it changes.
    ///
    /// Where the tables are of another version than the program's, they are rebuilt beside.
    ///
    /// # Errors
    /// The database's. A copy has one projection: its file is exchanged as a whole. In a database
    /// that holds more, each projection names its tables ([`Projection::TABLES`]).
    pub async fn project<P: Projection>(&mut self, projection: P) -> anyhow::Result<Progress> {
        let (db, bus, health) = (self.db.clone(), self.bus.clone(), self.health.clone());
        let (config, store) = if self.is_copy {
            ensure!(self.registry.is_empty(), "a read store has one projection");
            (projection::Config::of_copy::<P>(), Store::Copy)
        } else {
            rebuild::check_tables::<P>(&db).await?;
            (projection::Config::of::<P>(), Store::Shared)
        };
        let runner = Runner::load_any(Arc::new(projection), db, bus, health, config).await?;
        let (rebuilder, fold) = Rebuilder::new(runner.live(), runner.version(), store);
        self.tasks.spawn("rebuild", |stop| rebuilder.run(stop));
        self.registry = std::mem::take(&mut self.registry).with_fold(&runner, fold);
        let progress = runner.progress();
        self.tasks.spawn(P::NAME, |stop| runner.run(stop));
        Ok(progress)
    }

    /// Removes what events have made obsolete a part at a time, so that no write waits long for it.
    /// While `is_due`, `remove` is run again and again, each time in a transaction of its own that
    /// must not take more than some milliseconds. What is due is in the database, so a restart
    /// goes on where this one ends.
    pub fn remove_in_parts(
        &mut self,
        is_due: fn(&Snapshot) -> Result<bool, DbErr>,
        remove: fn(&Tx) -> Result<(), DbErr>,
    ) {
        let db = self.db.clone();
        self.tasks.spawn("removal", |stop| async move {
            let removing = stop.run_until_cancelled(async {
                loop {
                    if let Err(error) = remove_all(&db, is_due, remove).await {
                        tracing::warn!(
                            error = format!("{error:#}"),
                            "what was erased could not be removed; it is tried again"
                        );
                    }
                    tokio::time::sleep(REMOVE_EVERY).await;
                }
            });
            removing.await.unwrap_or(Ok(()))
        });
    }

    /// Answers the questions that come on `subject`, each from one snapshot of the database.
    pub fn answers<Q, A>(
        &mut self,
        subject: &'static str,
        answer: fn(&Snapshot, &Q, usize) -> Result<A, Refusal>,
    ) where
        Q: Message + Default + 'static,
        A: Message + 'static,
    {
        self.questions.add(&self.db, subject, answer);
    }

    /// Answers clients and operators until it is stopped or one of its tasks ends, then closes
    /// the database.
    ///
    /// # Errors
    /// A task ended by itself, or did not end when it was told to.
    pub async fn serve(mut self, listeners: Listeners, app: Router) -> anyhow::Result<()> {
        let (db, health) = (self.db.clone(), self.health.clone());
        // Until the database is closed.
        let lock = self.lock.take();
        let shredder = self.shredder.take();
        let file = FileWatch {
            db: db.clone(),
            lock: lock.clone(),
            health,
            is_copy: self.is_copy,
        };
        self.tasks.spawn("file", |stop| file.run(stop));
        let watched = db.clone();
        self.tasks.spawn("database", |stop| watched.watch(stop));
        let registry = std::mem::take(&mut self.registry);
        let sampler =
            self.sampler()
                .with_database(db.clone(), registry.clone(), self.published.take());
        let admin =
            AdminEndpoints::new(self.name, self.health.clone()).with_database(db.clone(), registry);
        let parts = (admin, sampler, Some(db.clone()));
        let ended = self.run(parts, listeners, app).await;
        if let Some(shredder) = shredder {
            // Of those who were erased while the other tasks ended.
            shredder.try_destroy_all().await;
        }
        db.close().await;
        drop(lock);
        ended
    }
}

impl Service<()> {
    /// Begins to connect to the broker, for a service that keeps nothing of its own.
    ///
    /// # Errors
    /// See [`Bus::connect`].
    pub async fn start_without_database(
        name: &'static str,
        config: Config,
        stop: CancellationToken,
    ) -> anyhow::Result<Self> {
        Self::over(name, (), config, stop).await
    }

    /// Answers clients and operators until it is stopped or one of its tasks ends.
    ///
    /// # Errors
    /// A task ended by itself, or did not end when it was told to.
    pub async fn serve(self, listeners: Listeners, app: Router) -> anyhow::Result<()> {
        let (admin, sampler) = (
            AdminEndpoints::new(self.name, self.health.clone()),
            self.sampler(),
        );
        self.run((admin, sampler, None), listeners, app).await
    }
}

impl<D> Service<D> {
    async fn over(
        name: &'static str,
        db: D,
        config: Config,
        stop: CancellationToken,
    ) -> anyhow::Result<Self> {
        let sighup = reload::sighup()?;
        let bus = Bus::connect(name, &config.nats).await?;
        Ok(Self {
            db,
            health: Health::new(),
            config,
            name,
            bus,
            sighup,
            tasks: Supervisor::new(stop),
            registry: ProjectionRegistry::default(),
            questions: Questions::default(),
            published: None,
            is_copy: false,
            lock: None,
            shredder: None,
        })
    }

    /// Asks others over the bus, `questions_max` questions at the same time.
    ///
    /// # Errors
    /// See [`RequestClient::subscribe`].
    pub async fn asks(&mut self, questions_max: usize) -> anyhow::Result<RequestClient> {
        let (inquirer, answers) =
            RequestClient::subscribe(&self.bus, Clock::system().new_id(), questions_max).await?;
        self.tasks.spawn("request-reply", |stop| answers.run(stop));
        Ok(inquirer)
    }

    fn sampler(&self) -> Sampler {
        Sampler::new(self.name, self.bus.clone(), self.health.clone())
    }

    async fn run(
        self,
        (admin, sampler, db): (AdminEndpoints, Sampler, Option<Database>),
        listeners: Listeners,
        app: Router,
    ) -> anyhow::Result<()> {
        let Self {
            health,
            config,
            name,
            bus,
            sighup,
            mut tasks,
            questions,
            ..
        } = self;
        let drain = config.drain_timeout;
        let admin_app = http::admin(name, health.clone(), &config.http);
        let (pulse, beats) = LivenessProbe::new();
        tell_systemd(&mut tasks, health.clone(), pulse, db);
        let (reloading, reporting) = (bus.clone(), bus.clone());
        tasks.spawn("reload", |stop| {
            reload::on_hangup(sighup, config.telemetry, reloading, stop)
        });
        tasks.spawn("nats", |stop| reporting.report(health, stop));
        tasks.spawn("operator", |stop| {
            operator::serve(admin, bus, questions, stop)
        });
        tasks.spawn("gauges", |stop| sampler.run(stop));
        let Listeners { public, admin } = listeners;
        tracing::info!(
            address = %public.local_addr().context("read the listener's address")?,
            admin = %admin.local_addr().context("read the listener's address")?,
            "listening"
        );
        // What looks at the accept loop looks at the public one.
        let (_pulse, unwatched) = LivenessProbe::new();
        let admin_config = config.http.of_admin();
        tasks.spawn("admin", |stop| {
            http::serve_watched(admin, admin_app, admin_config, unwatched, drain, stop)
        });
        tasks.spawn("http", |stop| {
            http::serve_watched(public, app, config.http, beats, drain, stop)
        });
        tasks.join(drain).await
    }
}

/// Has the service manager know how the service is, where it wants to.
fn tell_systemd(
    tasks: &mut Supervisor,
    health: Health,
    pulse: LivenessProbe,
    db: Option<Database>,
) {
    if systemd::is_told() {
        let pulse = pulse.clone();
        tasks.spawn("systemd", |stop| {
            systemd::tell(health, async move { pulse.ping().await }, stop)
        });
    }
    if let Some(deadline) = systemd::watchdog() {
        tasks.spawn("watchdog", |stop| watchdog::feed(deadline, pulse, db, stop));
    }
}

/// How often it is looked whether something is to be removed.
const REMOVE_EVERY: Duration = Duration::from_secs(1);

async fn remove_all(
    db: &Database,
    is_due: fn(&Snapshot) -> Result<bool, DbErr>,
    remove: fn(&Tx) -> Result<(), DbErr>,
) -> anyhow::Result<()> {
    while db.read(is_due).await? {
        match db.write(remove).await {
            Ok(_) => {}
            Err(WriteError::Refused(error)) => return Err(error.into()),
            Err(error) => bail!("{error}"),
        }
    }
    Ok(())
}
