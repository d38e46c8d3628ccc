//! Query service `purchases`: title and image of every product a user ever ordered.
//!
//! Owns `purchases.db`, a copy of what it needs of `users`, `products` and `orders`, folded from
//! their events. Asks none of them, so it answers while they are down. The copy is expendable:
//! missing, damaged or of another version, it is folded anew from the first event.

mod http;
mod page;
mod replica;

use headwater::Service;
use headwater::database::Migration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use url::Url;

pub use replica::Purchases;

/// The service's name. Never rename.
pub const NAME: &str = "purchases";

/// The tables of `purchases.db`.
pub const MIGRATIONS: &[Migration] = &[Migration {
    name: "0001_purchases",
    sql: include_str!("../migrations/0001_purchases.sql"),
}];

/// Headwater service `purchases`: every product a user ever ordered.
#[derive(Debug, clap::Parser)]
#[command(name = "headwater-purchases", version)]
#[command(mut_arg("path", |path| path.required(false).default_value("purchases.db")))]
pub struct Config {
    /// What every service is told.
    #[command(flatten)]
    pub service: headwater::Config,
    /// Where browsers reach the service `products`: the web page shows uploaded images from there
    #[arg(
        long,
        env = "HEADWATER_IMAGES_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:8082"
    )]
    pub images_url: Url,
}

/// Runs the service until `stop` is cancelled or one of its tasks ends.
///
/// # Errors
/// It cannot start, or a task ended by itself.
pub async fn run(
    config: Config,
    listener: TcpListener,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut service = Service::start_copy(NAME, MIGRATIONS, config.service, stop).await?;
    let progress = service.project(Purchases).await?;
    let app = http::app(&service, progress, config.images_url);
    service.serve(listener, app).await
}
