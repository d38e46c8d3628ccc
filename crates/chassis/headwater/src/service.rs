//! Assembles a service from its components: those that every service has, and those that some add.
//!
//! A service that stores nothing and only asks others has no database:
//! [`start_without_database`](Service::start_without_database).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use sea_orm::DbErr;
use tokio::signal::unix::Signal;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::file_watch::FileWatch;
use crate::operator::AdminEndpoints;
use crate::operator::registry::ProjectionRegistry;
use crate::process::Process;
pub(crate) use crate::request_reply::answering::{Questions, Refusal};
use crate::sample::Sampler;
use crate::{operator, reload, watchdog};
use headwater_effect as effect;
use headwater_effect::{Effect, Intents, Worker};
use headwater_event::schema::Schema;
use headwater_http as http;
use headwater_http::{About, Listeners, LivenessProbe};
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
use headwater_store::personal;
use headwater_store::personal::Shredder;
use headwater_store::{Snapshot, Tx};
use headwater_telemetry::BoxError;
use headwater_telemetry::Clock;
use headwater_telemetry::Health;
use headwater_telemetry::Supervisor;
use headwater_telemetry::{causes, systemd};

/// A service that is being assembled. `D` is its [`Database`], or `()` if it has none.
#[derive(Debug)]
pub struct Service<D = Database> {
    /// Its database.
    pub db: D,
    /// The health of each component.
    pub health: Health,
    /// Its settings.
    pub config: Config,
    about: About,
    listeners: Listeners,
    bus: Bus,
    /// SIGHUPs, which ask for a reload of the configuration.
    sighup: Signal,
    tasks: Supervisor,
    registry: ProjectionRegistry,
    questions: Questions,
    /// The relay's position, if there is a relay.
    published: Option<Published>,
    /// Whether the database is a read store.
    is_copy: bool,
    /// Keeps other processes away from the database, if there is one.
    lock: Option<Lock>,
    /// Destroys the keys of erased personal data, if the service keeps any.
    shredder: Option<Shredder>,
}

impl Service {
    /// Opens the service's database and starts to connect to the broker.
    ///
    /// ```no_run
    /// use headwater::prelude::*;
    ///
    /// const ABOUT: About = About {
    ///     name: "reviews", // never rename
    ///     description: "Reviews of products.",
    ///     version: env!("CARGO_PKG_VERSION"),
    ///     port: 8086,
    /// };
    ///
    /// const MIGRATIONS: &[Migration] = &[Migration::sql(
    ///     "0001_review",
    ///     "CREATE TABLE review (id TEXT NOT NULL PRIMARY KEY, text TEXT NOT NULL)",
    /// )];
    ///
    /// async fn run(config: Config, process: Process) -> headwater::Result {
    ///     let service = Service::start(ABOUT, MIGRATIONS, config, process).await?;
    ///     service.serve(OpenApiRouter::new()).await
    /// }
    /// ```
    ///
    /// # Errors
    /// Another process has the database open; see also [`Database::open`] and [`Bus::connect`].
    pub async fn start(
        about: About,
        migrations: &'static [Migration],
        config: Config,
        process: Process,
    ) -> Result<Self> {
        Self::start_as(about, Kind::Own, migrations, config, process).await
    }

    /// [`start`](Self::start) for a service that keeps [personal data](personal): its database has
    /// a key file next to it, and the keys of erased persons are destroyed in the background.
    /// The process leaves no core dump.
    ///
    /// # Errors
    /// As [`start`](Self::start); the key file is missing, damaged, or of another database.
    pub async fn start_with_personal_data(
        about: About,
        migrations: &'static [Migration],
        config: Config,
        process: Process,
    ) -> Result<Self> {
        personal::forbid_core_dumps().map_err(|error| Error::System {
            what: "forbid core dumps",
            error: error.into(),
        })?;
        let mut service =
            Self::start_as(about, Kind::Personal, migrations, config, process).await?;
        let shredder = Shredder::new(service.db.clone(), service.health.clone());
        service.shredder = Some(shredder.clone());
        service.tasks.spawn("erasure", |stop| shredder.run(stop));
        Ok(service)
    }

    /// [`start`](Self::start) for a service whose database is a read store. The store is rebuilt
    /// if it is missing, damaged, or of another version, and on an operator's request; beside the
    /// live store, if there is one.
    ///
    /// # Errors
    /// Another process has the database open; see also [`Database::open`] and [`Bus::connect`].
    pub async fn start_read_store(
        about: About,
        migrations: &'static [Migration],
        config: Config,
        process: Process,
    ) -> Result<Self> {
        Self::start_as(about, Kind::ReadStore, migrations, config, process).await
    }

    async fn start_as(
        about: About,
        kind: Kind,
        migrations: &'static [Migration],
        config: Config,
        process: Process,
    ) -> Result<Self> {
        let target = &config.database;
        // The lock comes first, even if the database does not exist yet.
        let open = async || {
            database::make_folder(target)?;
            let lock = Lock::take(&target.path, kind)?;
            let db = Database::open_as(about.name, kind, target, migrations, Clock::system()).await;
            Ok((lock, db?))
        };
        let (lock, db) =
            database::room::when_there_is_room(&target.path, &process.stop, open).await?;
        let mut service = Self::over(about, db, config, process).await?;
        service.is_copy = !kind.is_own();
        service.lock = Some(lock);
        Ok(service)
    }

    /// Publishes the events of the outbox, with the relay, and their `schema`, so that tools that
    /// were not built with this service can decode them.
    ///
    /// ```no_run
    /// # use headwater::prelude::*;
    /// # const SCHEMA: headwater::Schema =
    /// #     headwater::Schema { events: &[], questions: &[], descriptors: &[] };
    /// # #[derive(Clone, PartialEq, prost::Message)]
    /// # struct ReviewWritten {
    /// #     #[prost(string, tag = "1")]
    /// #     review_id: String,
    /// # }
    /// # impl Event for ReviewWritten {
    /// #     const SUBJECT: &'static str = "reviews.v1.written";
    /// #     fn key(&self) -> &str { &self.review_id }
    /// # }
    /// # async fn run(mut service: Service) -> headwater::Result {
    /// service.publish(&SCHEMA)?; // of `headwater::include_events!()`
    ///
    /// // In a request: the event is committed together with the change that it describes.
    /// let written = ReviewWritten { review_id: Uuid::now_v7().to_string() };
    /// service.db.write(move |tx| outbox::append(tx, &written)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// See [`Schema::of`].
    pub fn publish(&mut self, schema: &Schema) -> Result {
        let relay = Relay::new(self.db.clone(), self.bus.clone(), self.health.clone());
        self.published = Some(relay.published());
        self.tasks.spawn("relay", |stop| relay.run(stop));
        let described = schema.of(self.about.name)?;
        self.questions.describe(&described);
        let keeper = headwater_nats::Keeper::new(described, self.bus.clone(), self.health.clone());
        self.tasks.spawn("schema", |stop| keeper.run(stop));
        Ok(())
    }

    /// Keeps the tables of `projection` up to date; returns its progress.
    ///
    /// If the tables are of another version than the program's, they are rebuilt beside the live
    /// ones.
    ///
    /// ```no_run
    /// # use headwater::prelude::*;
    /// # struct Titles;
    /// # impl Projection for Titles {
    /// #     const NAME: &'static str = "titles";
    /// #     const VERSION: u32 = 1;
    /// #     const SOURCES: &'static [&'static str] = &["products"];
    /// #     fn apply(&self, _: &Tx, _: &[Envelope]) -> Result<(), ApplyError> { Ok(()) }
    /// # }
    /// # async fn run(mut service: Service) -> headwater::Result {
    /// let progress = service.project(Titles).await?;
    /// // For handlers that wait until a position is applied.
    /// let state = (service.db.clone(), progress);
    /// let routes = OpenApiRouter::new().with_state(state);
    /// service.serve(routes).await
    /// # }
    /// ```
    ///
    /// # Errors
    /// The database's. A read store has one projection: its file is swapped as a whole. In a
    /// database that holds more, each projection names its tables ([`Projection::TABLES`]).
    pub async fn project<P: Projection>(&mut self, projection: P) -> Result<Progress> {
        let (db, bus, health) = (self.db.clone(), self.bus.clone(), self.health.clone());
        let (config, store) = if self.is_copy {
            if !self.registry.is_empty() {
                return Err(Error::OneProjection);
            }
            (projection::Config::of_copy::<P>(), Store::Copy)
        } else {
            rebuild::check_tables::<P>(&db).await?;
            (projection::Config::of::<P>(), Store::Shared)
        };
        let runner = Runner::load_any(Arc::new(projection), db, bus, health, config).await?;
        let (rebuilder, handle) = Rebuilder::new(runner.live(), runner.version(), store);
        self.tasks.spawn("rebuild", |stop| rebuilder.run(stop));
        self.registry = std::mem::take(&mut self.registry).with_rebuild(&runner, handle);
        let progress = runner.progress();
        self.tasks.spawn(P::NAME, |stop| runner.run(stop));
        Ok(progress)
    }

    /// Performs `effect` for the events of its sources.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use headwater::effect::{self, Outcome};
    /// # use headwater::{Effect, Envelope, Service};
    /// # struct Confirmation;
    /// # impl Effect for Confirmation {
    /// #     const NAME: &'static str = "orders-confirmation";
    /// #     const SOURCES: &'static [&'static str] = &["orders"];
    /// #     const EVENTS: &'static [&'static str] = &["orders.v1.placed"];
    /// #     async fn perform(&self, _: &Envelope, _: &str) -> Outcome { Outcome::Done }
    /// # }
    /// # async fn run(mut service: Service) -> headwater::Result {
    /// let config = effect::Config {
    ///     timeout: Duration::from_secs(5),
    ///     ..effect::Config::default()
    /// };
    /// service.effect(Confirmation, config).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The database's. A read store has no effects: see [`headwater_effect`].
    pub async fn effect<E: Effect>(&mut self, effect: E, config: effect::Config) -> Result {
        if self.is_copy {
            let (service, effect) = (self.about.name, E::NAME);
            return Err(Error::EffectOfReadStore { service, effect });
        }
        let (db, bus, health) = (self.db.clone(), self.bus.clone(), self.health.clone());
        let settings = projection::Config::of_effect::<Intents<E>>();
        let runner = Runner::load(Intents::of(effect), db, bus, health, settings).await?;
        self.registry = std::mem::take(&mut self.registry).with_effect(&runner);
        let worker = Worker::load(runner, config).await?;
        self.tasks.spawn(E::NAME, |stop| worker.run(stop));
        Ok(())
    }

    /// Removes obsolete data in small parts, so that no write waits long.
    ///
    /// While `is_due` returns `true`, `remove` runs again, each time in its own transaction, which
    /// must not take more than some milliseconds. The database records what is due, so removal
    /// resumes after a restart.
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
                            error = causes(&error),
                            "cannot remove erased data; retrying"
                        );
                    }
                    tokio::time::sleep(REMOVE_EVERY).await;
                }
            });
            removing.await.unwrap_or(Ok::<_, Infallible>(()))
        });
    }

    /// Runs a task of the service's own beside the others. It must end soon after its token is
    /// cancelled; if it ends before, or with an error, the service stops.
    pub fn spawn<F, T, E>(&mut self, name: &'static str, task: F)
    where
        F: FnOnce(CancellationToken) -> T,
        T: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError> + Send + 'static,
    {
        self.tasks.spawn(name, task);
    }

    /// Answers the questions on `subject`, each from one snapshot of the database. The last argument
    /// of `answer` is the size limit of the encoded answer, in bytes.
    ///
    /// ```no_run
    /// # use headwater::prelude::*;
    /// use headwater::request_reply::Refusal;
    ///
    /// # #[derive(Clone, PartialEq, prost::Message)]
    /// # struct ReviewAsked {
    /// #     #[prost(string, tag = "1")]
    /// #     review_id: String,
    /// # }
    /// # #[derive(Clone, PartialEq, prost::Message)]
    /// # struct ReviewAnswered {
    /// #     #[prost(bool, tag = "1")]
    /// #     is_known: bool,
    /// # }
    /// fn review(db: &Snapshot, asked: &ReviewAsked, _: usize) -> Result<ReviewAnswered, Refusal> {
    ///     let ReviewAsked { review_id } = asked;
    ///     let found = raw_sql!(Sqlite, "SELECT 1 FROM review WHERE id = {review_id}");
    ///     let is_known = db.query_one_raw(found)?.is_some();
    ///     Ok(ReviewAnswered { is_known })
    /// }
    ///
    /// # fn run(mut service: Service) {
    /// service.answers("inquiry.reviews.v1.asked", review);
    /// # }
    /// ```
    pub fn answers<Q, A>(
        &mut self,
        subject: &'static str,
        answer: impl Fn(&Snapshot, &Q, usize) -> Result<A, Refusal> + Clone + Send + Sync + 'static,
    ) where
        Q: Message + Default + 'static,
        A: Message + 'static,
    {
        self.questions.add(&self.db, subject, answer);
    }

    /// Answers clients with `routes`, which get what all services share around them, and operators,
    /// until it is stopped or one of its tasks ends; then closes the database.
    ///
    /// ```no_run
    /// # use headwater::prelude::*;
    /// /// Count the reviews
    /// #[utoipa::path(get, path = "/reviews/count", responses((status = 200, body = i64)))]
    /// async fn count(State(db): State<Database>) -> Result<axum::Json<i64>, Problem> {
    ///     let sql = raw_sql!(Sqlite, "SELECT count(*) AS n FROM review");
    ///     let row = db.read(move |snapshot| snapshot.query_one_raw(sql.clone())).await?;
    ///     let count = row.map(|row| row.try_get_by("n")).transpose()?;
    ///     Ok(axum::Json(count.unwrap_or(0)))
    /// }
    ///
    /// # async fn run(service: Service) -> headwater::Result {
    /// let routes = OpenApiRouter::new().routes(routes!(count));
    /// let routes = routes.with_state(service.db.clone());
    /// service.serve(routes).await
    /// # }
    /// ```
    ///
    /// # Errors
    /// A task ended unexpectedly, or did not end in time when it was stopped.
    pub async fn serve(mut self, routes: OpenApiRouter) -> Result {
        let (db, health) = (self.db.clone(), self.health.clone());
        // Held until the database is closed.
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
        let admin = AdminEndpoints::new(self.about.name, self.health.clone())
            .with_database(db.clone(), registry);
        let components = (admin, sampler, Some(db.clone()));
        let ended = self.run(components, routes).await;
        if let Some(shredder) = shredder {
            // Keys of persons who were erased while the other tasks ended.
            shredder.try_destroy_all().await;
        }
        db.close().await;
        drop(lock);
        ended
    }
}

impl Service<()> {
    /// Starts to connect to the broker, for a service without a database.
    ///
    /// # Errors
    /// See [`Bus::connect`].
    pub async fn start_without_database(
        about: About,
        config: Config,
        process: Process,
    ) -> Result<Self> {
        Self::over(about, (), config, process).await
    }

    /// Answers clients with `routes`, which get what all services share around them, and operators,
    /// until it is stopped or one of its tasks ends.
    ///
    /// # Errors
    /// A task ended unexpectedly, or did not end in time when it was stopped.
    pub async fn serve(self, routes: OpenApiRouter) -> Result {
        let (admin, sampler) = (
            AdminEndpoints::new(self.about.name, self.health.clone()),
            self.sampler(),
        );
        self.run((admin, sampler, None), routes).await
    }
}

impl<D> Service<D> {
    async fn over(about: About, db: D, config: Config, process: Process) -> Result<Self> {
        let sighup = reload::sighup()?;
        let bus = Bus::connect(about.name, &config.nats).await?;
        let Process { listeners, stop } = process;
        Ok(Self {
            db,
            health: Health::new(),
            config,
            about,
            listeners,
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

    /// Returns a client that asks other services over the bus, at most `questions_max` questions
    /// concurrently.
    ///
    /// ```no_run
    /// # use headwater::prelude::*;
    /// use std::time::Duration;
    ///
    /// use headwater::request_reply::Answer;
    /// use tokio::time::Instant;
    ///
    /// # #[derive(Clone, PartialEq, prost::Message)]
    /// # struct ReviewAsked {
    /// #     #[prost(string, tag = "1")]
    /// #     review_id: String,
    /// # }
    /// # #[derive(Clone, PartialEq, prost::Message)]
    /// # struct ReviewAnswered {
    /// #     #[prost(bool, tag = "1")]
    /// #     is_known: bool,
    /// # }
    /// # async fn run(mut service: Service) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    /// let client = service.asks(1_000).await?;
    ///
    /// // In a request, while the service runs:
    /// let question = ReviewAsked { review_id: "7".to_owned() };
    /// let deadline = Instant::now() + Duration::from_secs(2);
    /// let asked = client.ask("inquiry.reviews.v1.asked", &question, deadline);
    /// let answer: Answer<ReviewAnswered> = asked.await?;
    /// println!("known as of {}: {}", answer.as_of, answer.body.is_known);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// See [`RequestClient::subscribe`].
    pub async fn asks(&mut self, questions_max: usize) -> Result<RequestClient> {
        let (client, answers) =
            RequestClient::subscribe(&self.bus, Clock::system().new_id(), questions_max).await?;
        self.tasks.spawn("request-reply", |stop| answers.run(stop));
        Ok(client)
    }

    fn sampler(&self) -> Sampler {
        Sampler::new(self.about.name, self.bus.clone(), self.health.clone())
    }

    async fn run(
        self,
        (admin, sampler, db): (AdminEndpoints, Sampler, Option<Database>),
        routes: OpenApiRouter,
    ) -> Result {
        let Self {
            health,
            config,
            about,
            listeners,
            bus,
            sighup,
            mut tasks,
            questions,
            ..
        } = self;
        let drain = config.drain_timeout;
        let app = http::app(about, routes, health.clone(), &config.http);
        let admin_app = http::admin(about, health.clone(), &config.http);
        let (probe, pings) = LivenessProbe::new();
        report_to_systemd(&mut tasks, health.clone(), probe, db);
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
            address = %public.local_addr().map_err(http::Error::NoAddress)?,
            admin = %admin.local_addr().map_err(http::Error::NoAddress)?,
            "listening"
        );
        // The watchdog probes the accept loop of the public listener only.
        let (_probe, unwatched) = LivenessProbe::new();
        let admin_config = config.http.of_admin();
        tasks.spawn("admin", |stop| {
            http::serve_watched(admin, admin_app, admin_config, unwatched, drain, stop)
        });
        tasks.spawn("http", |stop| {
            http::serve_watched(public, app, config.http, pings, drain, stop)
        });
        Ok(tasks.join(drain).await?)
    }
}

/// Reports the service's state to systemd, and feeds its watchdog, if the unit asks for it.
fn report_to_systemd(
    tasks: &mut Supervisor,
    health: Health,
    probe: LivenessProbe,
    db: Option<Database>,
) {
    if systemd::is_told() {
        let probe = probe.clone();
        tasks.spawn("systemd", |stop| {
            systemd::tell(health, async move { probe.ping().await }, stop)
        });
    }
    if let Some(deadline) = systemd::watchdog() {
        tasks.spawn("watchdog", |stop| watchdog::feed(deadline, probe, db, stop));
    }
}

/// The pause between two checks for data to remove.
const REMOVE_EVERY: Duration = Duration::from_secs(1);

async fn remove_all(
    db: &Database,
    is_due: fn(&Snapshot) -> Result<bool, DbErr>,
    remove: fn(&Tx) -> Result<(), DbErr>,
) -> Result {
    while db.read(is_due).await? {
        db.write(remove).await?;
    }
    Ok(())
}
