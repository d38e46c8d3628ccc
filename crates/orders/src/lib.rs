//! Source service `orders`: places orders for known users and products.
//!
//! Owns `orders.db`; publishes `orders.v1.placed`. Keeps its own copy of user and product ids
//! (the [`Catalogue`]) and refuses orders for unknown ones without a call to anyone.

mod catalogue;
mod http;
mod order;
mod store;

use anyhow::Context as _;
use headwater::database::Migration;
use headwater::projection::{self, Runner};
use headwater::{Bus, Clock, Database, Health, Projection as _, Relay, Supervisor, operator};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use catalogue::Catalogue;

/// The service's name, and the source of its events. Never rename.
pub const NAME: &str = "orders";

const MIGRATIONS: &[Migration] = &[Migration {
    name: "0001_orders",
    sql: include_str!("../migrations/0001_orders.sql"),
}];

/// Headwater service `orders`: places orders for known users and products.
#[derive(Debug, clap::Parser)]
#[command(name = "headwater-orders", version)]
#[command(mut_arg("listen", |listen| listen.default_value("127.0.0.1:8083")))]
#[command(mut_arg("path", |path| path.required(false).default_value("orders.db")))]
pub struct Config {
    /// What every service is told.
    #[command(flatten)]
    pub service: headwater::Config,
}

/// Runs the service until `stop` is cancelled or one of its tasks ends.
///
/// # Errors
/// It cannot start, or a task ended by itself.
pub async fn run(
    config: headwater::Config,
    listener: TcpListener,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let health = Health::new();
    let db = Database::open(NAME, &config.database, MIGRATIONS, Clock::system())
        .await
        .context("open the database")?;
    let bus = Bus::connect(NAME, &config.nats).await?;
    let (own_db, own_bus, own_health) = (db.clone(), bus.clone(), health.clone());
    let settings = projection::Config::of::<Catalogue>();
    let catalogue = Runner::load(Catalogue, own_db, own_bus, own_health, settings).await?;
    let app = http::app(&db, catalogue.progress(), &health, &config.http);

    let mut service = Supervisor::new(stop);
    let relay = Relay::new(db.clone(), bus.clone(), health.clone());
    service.spawn("relay", |stop| relay.run(stop));
    service.spawn(Catalogue::NAME, |stop| catalogue.run(stop));
    let operated = db.clone();
    service.spawn("operator", |stop| {
        operator::serve(operated, bus, health, stop)
    });
    service.spawn("http", |stop| {
        headwater::http::serve(listener, app, config.http.clone(), stop)
    });
    let watched = db.clone();
    service.spawn("database", |stop| watched.watch(stop));
    let ended = service.join(config.drain()).await;
    db.close().await;
    ended
}
