//! Source service `users`: registers and erases users.
//!
//! Owns `users.db`, with the keys of personal data in `users.keys`. Publishes
//! `users.v1.registered` and `users.v1.erased`, with ids only.

mod http;
mod inquiry;
mod password;
mod store;
mod user;

use headwater::prelude::*;

/// The service's name, and the source of its events. Never rename.
pub const NAME: &str = "users";

/// What it is.
pub const ABOUT: About = About {
    name: NAME,
    description: "Registers users and erases them. The only service that knows names and e-mail addresses.",
    version: env!("CARGO_PKG_VERSION"),
    port: 8081,
};

const MIGRATIONS: &[Migration] = &[
    Migration::sql("0001_users", include_str!("../migrations/0001_users.sql")),
    Migration {
        name: "0002_encrypted",
        sql: include_str!("../migrations/0002_encrypted.sql"),
        then: Some(store::encrypt_all),
    },
];

/// Runs the service until `stop` is cancelled or one of its tasks ends.
///
/// # Errors
/// The service cannot start, or a task ended unexpectedly.
pub async fn run(config: Config, process: Process) -> headwater::Result {
    let mut service = Service::start_with_personal_data(ABOUT, MIGRATIONS, config, process).await?;
    service.publish(&shop_events::SCHEMA)?;
    service.answers(shop_events::UserAsked::SUBJECT, inquiry::user);
    let routes = http::routes(&service)?;
    service.serve(routes).await
}
