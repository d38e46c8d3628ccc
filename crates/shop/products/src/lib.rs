//! Source service `products`: the catalogue and its images.
//!
//! Owns `products.db`; publishes `products.v1.created` and `products.v1.updated`.

mod address;
mod http;
mod image;
mod inquiry;
mod product;
mod store;

use address::Hosts;
use headwater::Service;
use headwater::database::Migration;
use headwater::http::{About, Listeners};
use tokio_util::sync::CancellationToken;

/// The service's name, and the source of its events. Never rename.
pub const NAME: &str = "products";

const ABOUT: About = About {
    name: NAME,
    description: "The catalogue: products, their titles and images.",
};

const MIGRATIONS: &[Migration] = &[Migration::sql(
    "0001_products",
    include_str!("../migrations/0001_products.sql"),
)];

/// Headwater service `products`: the catalogue and its images.
#[derive(Debug, clap::Parser)]
#[command(name = "headwater-products", version)]
#[command(mut_arg("listen", |listen| listen.default_value("127.0.0.1:8082")))]
#[command(mut_arg("path", |path| path.required(false).default_value("products.db")))]
pub struct Config {
    /// The settings of every service.
    #[command(flatten)]
    pub service: headwater::Config,
    /// Take image addresses on this machine and on private networks, too
    #[arg(long, env = "HEADWATER_PRIVATE_IMAGES", value_parser = clap::builder::FalseyValueParser::new())]
    pub private_images: bool,
}

/// Runs the service until `stop` is cancelled or one of its tasks ends.
///
/// # Errors
/// The service cannot start, or a task ended unexpectedly.
pub async fn run(
    config: Config,
    listeners: Listeners,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut service = Service::start(NAME, MIGRATIONS, config.service, stop).await?;
    service.relay();
    service.describe(&shop_events::SCHEMA)?;
    service.answers(shop_events::ProductsAsked::SUBJECT, inquiry::products);
    let hosts = if config.private_images {
        Hosts::Any
    } else {
        Hosts::Public
    };
    let routes = http::routes(&service.db, hosts);
    let (health, config) = (service.health.clone(), &service.config.http);
    let app = headwater::http::app(ABOUT, routes, health, config);
    service.serve(listeners, app).await
}
