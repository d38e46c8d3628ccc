//! Query service `bestsellers`: the worked example of `docs/adding-a-projection.md`.

mod http;
mod projection;
mod store;

use headwater::Service;
use headwater::database::Migration;
use headwater::http::Listeners;
use tokio_util::sync::CancellationToken;

pub use projection::Bestsellers;

/// The service's name. Never rename.
pub const NAME: &str = "bestsellers";

/// The tables of `bestsellers.db`.
pub const MIGRATIONS: &[Migration] = &[Migration::sql(
    "0001_bestsellers",
    include_str!("../migrations/0001_bestsellers.sql"),
)];

/// Runs the service until `stop` is cancelled or one of its tasks ends.
///
/// # Errors
/// The service cannot start, or a task ended unexpectedly.
pub async fn run(
    config: headwater::Config,
    listeners: Listeners,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut service = Service::start_copy(NAME, MIGRATIONS, config, stop).await?;
    let progress = service.project(Bestsellers).await?; // for reads that wait
    let app = http::app(&service, progress);
    service.serve(listeners, app).await
}
