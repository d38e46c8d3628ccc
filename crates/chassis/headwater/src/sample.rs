//! Gauges, sampled every few seconds: no gauge is updated per event, and a scrape only renders
//! text.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use headwater_backup as backup;
use headwater_event::Positions;
use headwater_nats::brokers::{self, Storage};
use headwater_nats::bus::Bus;
use headwater_nats::control::{Endpoint, EventsAnswer, EventsRequest, RebuildState, RebuildStatus};
use headwater_projection::{Progress, Sources, dead_letter};
use headwater_relay::Published;
use headwater_store::verified::Verified;
use headwater_store::{Database, Sizes, Snapshot, outbox};
use headwater_telemetry::causes;
use headwater_telemetry::health::{Health, State};
use headwater_telemetry::process;
use sea_orm::DbErr;
use tokio_util::sync::CancellationToken;

use crate::operator::registry::ProjectionRegistry;

/// The interval of the gauges, and of the freshness measurement.
const EVERY: Duration = Duration::from_secs(5);

/// The interval of the storage request to the brokers; longer if they do not answer it.
const ASK_BROKERS_EVERY: Duration = Duration::from_secs(15);
const ASK_AGAIN_AFTER: Duration = Duration::from_mins(5);

/// Samples the gauges of a service.
#[derive(Debug)]
pub(crate) struct Sampler {
    service: &'static str,
    bus: Bus,
    health: Health,
    stored: Option<Stored>,
}

/// What a service with a database has to sample.
#[derive(Debug)]
struct Stored {
    db: Database,
    registry: ProjectionRegistry,
    published: Option<Published>,
}

impl Sampler {
    /// A sampler for a service without a database.
    pub(crate) fn new(service: &'static str, bus: Bus, health: Health) -> Self {
        let version = env!("CARGO_PKG_VERSION");
        metrics::gauge!("headwater_build_info", "service" => service, "version" => version)
            .set(1.0);
        Self {
            service,
            bus,
            health,
            stored: None,
        }
    }

    /// Adds the database, the projections, and the relay's position, if there is a relay.
    pub(crate) fn with_database(
        self,
        db: Database,
        registry: ProjectionRegistry,
        published: Option<Published>,
    ) -> Self {
        Self {
            stored: Some(Stored {
                db,
                registry,
                published,
            }),
            ..self
        }
    }

    /// Sets the gauges until `stop`.
    ///
    /// # Errors
    /// None; the type is the supervisor's.
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), Infallible> {
        let freshness = async {
            if let Some(stored) = &self.stored {
                let projections = stored.registry.progresses();
                let each = projections
                    .map(|(name, progress, ..)| stored.freshness(&self.bus, name, progress));
                futures_util::future::join_all(each).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.gauges() => {}
            () = self.storage() => {}
            () = freshness => {}
        }
        Ok(())
    }

    async fn gauges(&self) {
        let mut components = BTreeSet::new();
        loop {
            process::note();
            self.note_components(&mut components);
            let is_up = self.bus.is_up();
            metrics::gauge!("headwater_nats_connected", "service" => self.service)
                .set(number(u64::from(is_up)));
            if let Some(stored) = &self.stored {
                stored.note().await;
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Samples the brokers' storage, if the service publishes.
    async fn storage(&self) {
        let stored = self.stored.as_ref();
        if stored.is_none_or(|stored| stored.published.is_none()) {
            std::future::pending::<()>().await;
        }
        loop {
            tokio::time::sleep(self.note_storage().await).await;
        }
    }

    /// Returns the pause before the next request.
    async fn note_storage(&self) -> Duration {
        if !self.bus.is_up() {
            return ASK_BROKERS_EVERY;
        }
        let Ok(account) = self.bus.jetstream.query_account().await else {
            return ASK_BROKERS_EVERY;
        };
        let all = brokers::ask(&self.bus.client).await;
        let storage = Storage::nearest(&all, Storage::of_account(&account));
        for (name, bytes) in [
            ("headwater_jetstream_storage_bytes", storage.used),
            ("headwater_jetstream_storage_limit_bytes", storage.limit),
        ] {
            metrics::gauge!(name, "service" => self.service).set(number(bytes));
        }
        if all.is_empty() {
            ASK_AGAIN_AFTER
        } else {
            ASK_BROKERS_EVERY
        }
    }

    /// `known` are all components seen so far: one that has disappeared counts as healthy.
    fn note_components(&self, known: &mut BTreeSet<String>) {
        let components = self.health.parts();
        known.extend(components.keys().cloned());
        for component in &*known {
            let value = match components.get(component) {
                Some(State::Ok(_)) | None => 0.0,
                Some(State::Degraded(_)) => 1.0,
                Some(State::Failed(_)) => 2.0,
            };
            metrics::gauge!("headwater_component_state", "service" => self.service, "component" => component.clone())
                .set(value);
        }
    }
}

impl Stored {
    async fn note(&self) {
        note_sizes(self.db.owner(), self.db.sizes());
        if let Err(error) = self.note_outbox().await {
            tracing::debug!(%error, "read the outbox for a gauge");
        }
        for (name, progress, sources, rebuild) in self.registry.progresses() {
            if let Err(error) = self.note_projection(name, progress).await {
                tracing::debug!(%error, "read dead letters for a gauge");
            }
            for source in progress.now().0.into_keys() {
                self.note_lag(name, progress, sources, source);
            }
            if let Some(rebuild) = rebuild {
                note_rebuild(name, &rebuild);
                let verified = Verified::of(&self.db, name).last(self.db.clock().now_ms());
                metrics::gauge!("headwater_verify_last_success_timestamp_seconds", "projection" => name)
                    .set(since_1970(verified));
            }
        }
    }

    /// Samples the unpublished part of the outbox, once the relay knows its position.
    async fn note_outbox(&self) -> Result<(), DbErr> {
        let Some(published) = &self.published else {
            return Ok(());
        };
        let source = self.db.owner();
        let published = published.position();
        let from = published.unwrap_or_default() + 1;
        let read = move |snapshot: &Snapshot| {
            Ok::<_, DbErr>((
                outbox::head(snapshot)?,
                outbox::recorded_at(snapshot, from)?,
            ))
        };
        let (head, oldest) = self.db.read(read).await?;
        metrics::gauge!("headwater_outbox_head", "source" => source).set(number(head));
        let backup = backup::newest(&self.db.path()).map_or(0.0, since_1970);
        metrics::gauge!("headwater_backup_timestamp_seconds", "source" => source).set(backup);
        if let Some(published) = published {
            let age = oldest.map_or(0.0, |recorded_at| self.age(recorded_at));
            metrics::gauge!("headwater_outbox_unpublished", "source" => source)
                .set(number(head.saturating_sub(published)));
            metrics::gauge!("headwater_outbox_unpublished_seconds", "source" => source).set(age);
        }
        Ok(())
    }

    async fn note_projection(&self, name: &'static str, progress: &Progress) -> Result<(), DbErr> {
        metrics::gauge!("headwater_projection_complete", "projection" => name)
            .set(number(u64::from(progress.is_complete())));
        for (source, position) in progress.now().0 {
            let of = source.clone();
            let count = move |snapshot: &Snapshot| dead_letter::count(snapshot, name, &of);
            let letters = self.db.read(count).await?;
            metrics::gauge!("headwater_projection_position", "projection" => name, "source" => source.clone())
                .set(number(position));
            metrics::gauge!("headwater_dead_letters_waiting", "projection" => name, "source" => source)
                .set(number(letters));
        }
        Ok(())
    }

    /// Samples the lag behind the source's outbox, from its last answer. Without a new answer,
    /// the gauges keep their values.
    fn note_lag(&self, name: &'static str, progress: &Progress, sources: &Sources, source: String) {
        let Some(backlog) = sources.take_backlog(&source) else {
            return;
        };
        metrics::gauge!("headwater_projection_ahead_events", "projection" => name, "source" => source.clone())
            .set(number(backlog.ahead));
        // Events applied since the answer do not count as lag.
        let behind = backlog.head.saturating_sub(progress.now().get(&source));
        let oldest = backlog.oldest_at.filter(|_| behind > 0);
        let age = oldest.map_or(0.0, |recorded_at| self.age(recorded_at));
        metrics::gauge!("headwater_projection_lag_events", "projection" => name, "source" => source.clone())
            .set(number(behind));
        metrics::gauge!("headwater_projection_lag_seconds", "projection" => name, "source" => source)
            .set(age);
    }

    /// From time to time waits until events are applied, and asks the source when it recorded the
    /// first of them. Thus events carry no timestamp, and no other event is measured.
    async fn freshness(&self, bus: &Bus, name: &'static str, progress: &Progress) {
        loop {
            tokio::time::sleep(EVERY).await;
            let before = progress.now();
            let after = progress.moved(&before).await;
            let now_ms = self.db.clock().now_ms();
            for (source, position) in advanced(&before, &after) {
                if let Some(row) = event(bus, &source, position)
                    .await
                    .and_then(|a| a.events.into_iter().next())
                {
                    metrics::histogram!("headwater_projection_freshness_seconds", "projection" => name, "source" => source)
                        .record(seconds(now_ms - row.recorded_at));
                }
            }
        }
    }

    fn age(&self, recorded_at: i64) -> f64 {
        seconds(self.db.clock().now_ms() - recorded_at)
    }
}

/// The first new position of each source that has advanced.
fn advanced(before: &Positions, after: &Positions) -> Vec<(String, u64)> {
    let moved = after
        .0
        .iter()
        .filter(|(source, at)| before.get(source) < **at);
    moved
        .map(|(source, _)| (source.clone(), before.get(source) + 1))
        .collect()
}

/// The event of `source` at `position`, if there is one, and the head of the outbox.
async fn event(bus: &Bus, source: &str, position: u64) -> Option<EventsAnswer> {
    if !bus.is_up() {
        return None;
    }
    let request = EventsRequest {
        epoch: None,
        from: position,
        limit: 1,
        // The payload is not needed: take as little of it as possible.
        max_bytes: Some(0),
        offset: Some(0),
    };
    let answer = headwater_nats::control::ask(bus, source, Endpoint::Events, &request).await;
    answer
        .inspect_err(|error| {
            tracing::debug!(error = causes(error), source, "ask for a gauge");
        })
        .ok()
}

fn note_sizes(service: &'static str, sizes: Sizes) {
    metrics::gauge!("headwater_database_queue_length", "service" => service)
        .set(number(sizes.queue as u64));
    metrics::gauge!("headwater_database_bytes", "service" => service).set(number(sizes.file));
    metrics::gauge!("headwater_database_wal_bytes", "service" => service).set(number(sizes.wal));
    if let Some(free) = sizes.free {
        metrics::gauge!("headwater_database_free_bytes", "service" => service).set(number(free));
    }
}

fn note_rebuild(name: &'static str, rebuild: &RebuildStatus) {
    let is_running = rebuild.state.is_running();
    let progress = if is_running {
        share(&rebuild.positions, &rebuild.live)
    } else {
        1.0
    };
    metrics::gauge!("headwater_rebuild_running", "projection" => name)
        .set(number(u64::from(is_running)));
    metrics::gauge!("headwater_rebuild_progress", "projection" => name).set(progress);
    metrics::gauge!("headwater_rebuild_failed", "projection" => name)
        .set(number(u64::from(rebuild.state == RebuildState::Failed)));
    let differences = rebuild.differences.as_ref().map_or(0, |found| found.count);
    metrics::gauge!("headwater_rebuild_differences", "projection" => name).set(number(differences));
}

/// The progress of a rebuild at `positions` towards `live`, from 0 to 1.
fn share(positions: &Positions, live: &Positions) -> f64 {
    let sum = |at: &Positions| number(at.0.values().sum());
    let all = sum(live);
    if all > 0.0 {
        (sum(positions) / all).min(1.0)
    } else {
        0.0
    }
}

fn seconds(ms: i64) -> f64 {
    number(u64::try_from(ms).unwrap_or_default()) / 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "a gauge need not be exact")]
fn number(number: u64) -> f64 {
    number as f64
}

/// Seconds since 1970.
fn since_1970(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn positions(text: &str) -> Positions {
        text.parse().unwrap()
    }

    #[test]
    fn the_first_new_event_of_each_source_that_moved_is_measured() {
        let moved = advanced(
            &positions("orders:4,users:7"),
            &positions("orders:9,users:7"),
        );
        assert_eq!(moved, [("orders".to_owned(), 5)]);
    }

    #[test]
    fn a_fold_goes_from_nothing_to_all() {
        let live = positions("orders:30,users:10");
        assert!(share(&Positions::default(), &live).abs() < 1e-9);
        assert!((share(&positions("orders:20"), &live) - 0.5).abs() < 1e-9);
        assert!((share(&positions("orders:31,users:10"), &live) - 1.0).abs() < 1e-9);
        assert!(share(&live, &Positions::default()).abs() < 1e-9);
    }
}
