//! The counters of a projection. It has its own name, so that no other test of this process
//! increments them.

use headwater::database::Tx;
use headwater::{ApplyError, Envelope, Projection};

use crate::support::{
    Readings, SensorRead, Tasks, append, broker, bus, eventually, folder, keep_reading, metrics,
    open, publish_again, read, relaying, serve_system, stored,
};

/// Keeps every reading but those below zero, which are poison.
#[derive(Debug)]
struct Counted;

impl Projection for Counted {
    const NAME: &'static str = "counted";
    const VERSION: u32 = 1;
    const SOURCES: &'static [&'static str] = &["sensors"];

    fn apply(&self, tx: &Tx, events: &[Envelope]) -> Result<(), ApplyError> {
        for event in events {
            let SensorRead { sensor, value, .. } = event.decode()?;
            if value < 0 {
                return Err(ApplyError::Poison("below zero".to_owned()));
            }
            keep_reading(tx, &sensor, value)?;
        }
        Ok(())
    }

    fn key(&self, event: &Envelope) -> Option<String> {
        Readings.key(event)
    }
}

#[tokio::test]
async fn what_was_applied_skipped_and_parked_is_counted() {
    let (folder, broker) = (folder(), broker());
    let (source, copy) = (open(&folder, "sensors").await, open(&folder, "house").await);
    let bus = bus(&broker, "world").await;
    let relay = relaying(&source, &bus);
    let mut tasks = Tasks::none();
    let address = serve_system(&mut tasks).await;
    // Whatever is counted before the first request for metrics is lost.
    metrics(&address).await;
    tasks.projection(Counted, &copy, &bus).await;
    let events = [("a", 1), ("b", -1), ("a", 2), ("b", 3), ("c", 4)];
    let events = events.map(|(sensor, value)| read(sensor, value));
    append(&source, events.to_vec()).await;
    let counted = async |applied: u64, skipped: u64, dead: u64| {
        eventually("all events are counted", async || {
            let metrics = metrics(&address).await;
            let count = |what: &str| {
                let labels = r#"{projection="counted",source="sensors"}"#;
                metrics
                    .get(&format!("headwater_{what}_total{labels}"))
                    .copied()
            };
            let now = (
                count("projection_applied").unwrap_or(0),
                count("projection_skipped").unwrap_or(0),
                count("dead_letters").unwrap_or(0),
            );
            if now == (applied, skipped, dead) {
                Ok(())
            } else {
                Err(now)
            }
        })
        .await;
    };
    counted(3, 0, 2).await;
    let all = stored(&bus, "sensors").await;
    publish_again(&bus, &all[..3]).await;
    counted(3, 3, 2).await;
    tasks.stop().await;
    relay.stop().await;
}
