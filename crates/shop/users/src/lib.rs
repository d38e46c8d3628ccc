//! Source service `users`: registers and erases users.
//!
//! Owns `users.db`, with the keys of personal data in `users.keys`. Publishes
//! `users.v1.registered` and `users.v1.erased`, with ids only.

mod http;
mod inquiry;
mod password;
mod store;
mod user;

use headwater::Service;
use headwater::database::Migration;
use headwater::http::{About, Listeners};
use tokio_util::sync::CancellationToken;

/// The service's name, and the source of its events. Never rename.
pub const NAME: &str = "users";

const ABOUT: About = About {
    name: NAME,
    description: "Registers users and erases them. The only service that knows names and e-mail addresses.",
};

const MIGRATIONS: &[Migration] = &[
    Migration::sql("0001_users", include_str!("../migrations/0001_users.sql")),
    Migration {
        name: "0002_encrypted",
        sql: include_str!("../migrations/0002_encrypted.sql"),
        then: Some(store::encrypt_all),
    },
];

/// Headwater service `users`: registers and erases users.
#[derive(Debug, clap::Parser)]
#[command(name = "headwater-users", version)]
#[command(mut_arg("listen", |listen| listen.default_value("127.0.0.1:8081")))]
#[command(mut_arg("path", |path| path.required(false).default_value("users.db")))]
pub struct Config {
    /// The settings of every service.
    #[command(flatten)]
    pub service: headwater::Config,
}

/// Runs the service until `stop` is cancelled or one of its tasks ends.
///
/// # Errors
/// The service cannot start, or a task ended unexpectedly.
pub async fn run(
    config: headwater::Config,
    listeners: Listeners,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut service = Service::start_with_personal_data(NAME, MIGRATIONS, config, stop).await?;
    service.relay();
    service.describe(&shop_events::SCHEMA)?;
    service.answers(shop_events::UserAsked::SUBJECT, inquiry::user);
    let (health, config) = (service.health.clone(), &service.config.http);
    let app = headwater::http::app(ABOUT, http::routes(&service)?, health, config);
    service.serve(listeners, app).await
}
