//! A second relay for the database of `orders`. A second service would refuse to start on it.

use headwater::{Bus, Clock, Database, Health, Relay, supervisor, telemetry};

pub(crate) async fn run(config: headwater::Config) -> anyhow::Result<()> {
    let stop = supervisor::stop_on_signal();
    let _telemetry = telemetry::init("rival", &config.telemetry);
    let clock = Clock::system();
    let db = Database::open(orders::NAME, &config.database, orders::MIGRATIONS, clock).await?;
    let bus = Bus::connect(orders::NAME, &config.nats).await?;
    let relay = Relay::new(db.clone(), bus, Health::new());
    relay.run(stop).await?;
    db.close().await;
    Ok(())
}
