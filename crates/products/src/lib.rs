//! Source service `products`: the catalogue and its images.
//!
//! Owns `products.db`; publishes `products.v1.created` and `products.v1.updated`.

mod http;
mod image;
mod product;
mod store;

use anyhow::Context as _;
use headwater::database::Migration;
use headwater::{Bus, Clock, Database, Health, Relay, Supervisor, operator};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// The service's name, and the source of its events. Never rename.
pub const NAME: &str = "products";

const MIGRATIONS: &[Migration] = &[Migration {
    name: "0001_products",
    sql: include_str!("../migrations/0001_products.sql"),
}];

/// Headwater service `products`: the catalogue and its images.
#[derive(Debug, clap::Parser)]
#[command(name = "headwater-products", version)]
#[command(mut_arg("listen", |listen| listen.default_value("127.0.0.1:8082")))]
#[command(mut_arg("path", |path| path.required(false).default_value("products.db")))]
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
    let app = http::app(&db, &health, &config.http);

    let mut service = Supervisor::new(stop);
    let relay = Relay::new(db.clone(), bus.clone(), health.clone());
    service.spawn("relay", |stop| relay.run(stop));
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
