//! Source service `orders`: places orders for known users and products.
//!
//! Owns `orders.db`; publishes `orders.v1.placed`. Keeps its own copy of user and product ids
//! (the [`KnownIds`]), and refuses orders with unknown ids without calling another service. Can send
//! each order to a webhook.

mod http;
mod inquiry;
mod known_ids;
mod order;
mod store;
mod webhook;

use headwater::effect::webhook::Config as WebhookConfig;
use headwater::prelude::*;
use headwater::{Clock, effect};

pub use http::save;
pub use known_ids::KnownIds;
pub use order::PlaceOrder;
use webhook::OrderWebhook;

/// The service's name, and the source of its events. Never rename.
pub const NAME: &str = "orders";

/// What it is.
pub const ABOUT: About = About {
    name: NAME,
    description: "Places orders for users and products that it knows from their events.",
    version: env!("CARGO_PKG_VERSION"),
    port: 8083,
};

/// The tables of `orders.db`.
pub const MIGRATIONS: &[Migration] = &[
    Migration::sql("0001_orders", include_str!("../migrations/0001_orders.sql")),
    Migration::sql(
        "0002_erasing",
        include_str!("../migrations/0002_erasing.sql"),
    ),
];

/// Its settings.
#[derive(Debug, clap::Args)]
pub struct Config {
    /// The settings of every service.
    #[command(flatten)]
    pub service: headwater::Config,
    /// Whom to tell of each order.
    #[command(flatten)]
    pub webhook: WebhookConfig,
}

/// Its name, if its own settings can be used.
///
/// # Errors
/// They cannot.
pub fn check(config: &Config) -> headwater::Result<&'static str> {
    config.webhook.open(Clock::system())?;
    Ok(NAME)
}

/// Runs the service until `stop` is cancelled or one of its tasks ends.
///
/// # Errors
/// The service cannot start, or a task ended unexpectedly.
pub async fn run(config: Config, process: Process) -> headwater::Result {
    let webhook = config.webhook.open(Clock::system())?;
    let mut service = Service::start(ABOUT, MIGRATIONS, config.service, process).await?;
    service.publish(&shop_events::SCHEMA)?;
    service.answers(shop_events::OrdersAsked::SUBJECT, inquiry::orders);
    let known_ids = service.project(KnownIds).await?;
    if let Some(webhook) = webhook {
        let settings = effect::Config::default();
        service.effect(OrderWebhook(webhook), settings).await?;
    }
    service.remove_in_parts(store::is_erasing, store::erase_part);
    let routes = http::routes(&service, known_ids);
    service.serve(routes).await
}
