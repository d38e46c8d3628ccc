//! Source service `users`: registers and erases users.
//!
//! Owns `users.db`, with the keys of personal data in `users.keys`. Publishes
//! `users.v1.registered` and `users.v1.erased`, with ids only. Answers questions for names, which
//! others show and do not store.

mod http;
mod inquiry;
mod names;
mod password;
mod store;
mod user;

use headwater::prelude::*;
use shop_events::{UserAsked, UserNamesAsked, UserSearchAsked};

use names::Names;

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
pub async fn run(config: Config, process: Process) -> anyhow::Result<()> {
    let mut service = Service::start_with_personal_data(ABOUT, MIGRATIONS, config, process).await?;
    service.publish(&shop_events::SCHEMA)?;
    let (names, changes) = Names::open()?;
    let (index, db) = (names.clone(), service.db.clone());
    service.spawn("names", |stop| index.follow(db, changes, stop));
    service.answers(UserAsked::SUBJECT, inquiry::user);
    service.answers(UserNamesAsked::SUBJECT, inquiry::names);
    let sought = names.clone();
    service.answers(UserSearchAsked::SUBJECT, move |snapshot, asked, _| {
        inquiry::search(&sought, snapshot, asked)
    });
    let routes = http::routes(&service, names)?;
    Ok(service.serve(routes).await?)
}
