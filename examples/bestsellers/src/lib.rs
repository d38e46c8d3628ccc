//! Query service `bestsellers`: the worked example of `docs/adding-a-projection.md`.

mod http;
mod projection;
mod store;

use headwater::prelude::*;

pub use projection::Bestsellers;

/// What it is.
pub const ABOUT: About = About {
    name: "bestsellers", // never rename
    description: "The products ordered most.",
    version: env!("CARGO_PKG_VERSION"),
    port: 8087,
};

/// The tables of `bestsellers.db`.
pub const MIGRATIONS: &[Migration] = &[Migration::sql(
    "0001_bestsellers",
    include_str!("../migrations/0001_bestsellers.sql"),
)];

/// Runs the service until `stop` is cancelled or one of its tasks ends.
///
/// # Errors
/// The service cannot start, or a task ended unexpectedly.
pub async fn run(config: Config, process: Process) -> headwater::Result {
    let mut service = Service::start_read_store(ABOUT, MIGRATIONS, config, process).await?;
    let progress = service.project(Bestsellers).await?; // for reads that wait
    let routes = http::routes(&service, progress);
    service.serve(routes).await
}
