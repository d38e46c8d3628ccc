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
use headwater::prelude::*;

/// The service's name, and the source of its events. Never rename.
pub const NAME: &str = "products";

/// What it is.
pub const ABOUT: About = About {
    name: NAME,
    description: "The catalogue: products, their titles and images.",
    version: env!("CARGO_PKG_VERSION"),
    port: 8082,
};

const MIGRATIONS: &[Migration] = &[Migration::sql(
    "0001_products",
    include_str!("../migrations/0001_products.sql"),
)];

/// Its settings.
#[derive(Debug, clap::Args)]
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
pub async fn run(config: Config, process: Process) -> headwater::Result {
    let mut service = Service::start(ABOUT, MIGRATIONS, config.service, process).await?;
    service.publish(&shop_events::SCHEMA)?;
    service.answers(shop_events::ProductsAsked::SUBJECT, inquiry::products);
    let hosts = if config.private_images {
        Hosts::Any
    } else {
        Hosts::Public
    };
    let routes = http::routes(&service.db, hosts);
    service.serve(routes).await
}
