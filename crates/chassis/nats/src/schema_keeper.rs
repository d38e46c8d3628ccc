//! The task that keeps a source's schema in the bucket.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use async_nats::jetstream::kv::{Operation, Store};
use headwater_event::facts;
use headwater_event::schema::{BUCKET, Described};
use headwater_telemetry::health::{Health, State};
use tokio_util::sync::CancellationToken;

use crate::bus::Bus;
use crate::replicas::{self, Replicas};
use crate::schema_bucket::bucket;
use crate::stream;

/// The pause between checks of the entry: an operator may have deleted the bucket.
const LOOK_PAUSE: Duration = Duration::from_mins(1);

/// Pauses between attempts while the bucket is not available.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The name of the component in `/readyz?verbose`.
const COMPONENT: &str = "schema";

/// Keeps a source's schema in the bucket.
#[derive(Debug)]
pub struct Keeper {
    described: Described,
    bus: Bus,
    health: Health,
    /// Whether it has not yet succeeded once: only then may it replace a contradicting schema.
    is_new: bool,
}

/// What to do about the stored schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    Leave,
    Write,
    /// The stored schema contradicts ours, and another process wrote it after this one started.
    Yield,
}

impl Keeper {
    /// The keeper of a source's schema.
    pub fn new(described: Described, bus: Bus, health: Health) -> Self {
        health.set(COMPONENT, State::Degraded("starting".to_owned()));
        Self {
            described,
            bus,
            health,
            is_new: true,
        }
    }

    /// Runs until `stop`, whatever the broker does.
    ///
    /// # Errors
    /// None; the supervisor wants this type.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        stop.run_until_cancelled(self.run_on()).await;
        Ok(())
    }

    async fn run_on(&mut self) {
        let mut pause = PAUSE_MIN;
        loop {
            let waiting = |why| self.report(State::Degraded(why));
            self.bus.up_or_told(waiting).await;
            let bus = self.bus.clone();
            let seen = bus.seen();
            let settled = tokio::select! {
                settled = self.settle() => settled,
                () = bus.reconnected(seen) => continue,
            };
            let wait = match settled {
                Ok(state) => {
                    pause = PAUSE_MIN;
                    self.is_new = false;
                    self.report(State::Ok(state));
                    LOOK_PAUSE
                }
                Err(failure) => {
                    self.report_failure(&failure);
                    pause = (pause * 2).min(PAUSE_MAX);
                    pause
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = bus.reconnected(seen) => {}
            }
        }
    }

    /// Checks the entry and writes it if needed; returns its state.
    async fn settle(&self) -> anyhow::Result<String> {
        let source = &self.described.source;
        let store = self.store().await?;
        let entry = store.entry(source).await.context("read the schema")?;
        let entry = entry.filter(|entry| entry.operation == Operation::Put);
        let stored = entry.as_ref().map(|entry| &entry.value[..]);
        match decide(&self.described, stored, self.is_new)? {
            Decision::Leave => Ok(format!("the schema of {source} is in {BUCKET}")),
            Decision::Yield => Ok(format!(
                "a process that started later wrote another schema of {source} to {BUCKET}"
            )),
            Decision::Write => {
                let value = serde_json::to_vec(&self.described).context("encode the schema")?;
                let (bytes, bytes_max) = (value.len(), self.bytes_max(&store).await?);
                ensure!(
                    bytes <= bytes_max,
                    "the schema of {source} has {bytes} bytes, but at most {bytes_max} are \
                     accepted: raise `max_payload` of the NATS server or account, or the maximum \
                     value size of the bucket {BUCKET}"
                );
                match entry {
                    Some(entry) => store
                        .update(source, value.into(), entry.revision)
                        .await
                        .context("replace the schema")?,
                    None => store
                        .create(source, value.into())
                        .await
                        .context("write the schema")?,
                };
                tracing::info!(source, bucket = BUCKET, "wrote the schema");
                Ok(format!("the schema of {source} is in {BUCKET}"))
            }
        }
    }

    /// The maximum size of a value, in bytes: the lower limit of the server and the bucket.
    async fn bytes_max(&self, store: &Store) -> anyhow::Result<usize> {
        let status = store.status().await.context("inspect the bucket")?;
        let of_bucket = usize::try_from(status.info.config.max_message_size).ok();
        Ok(self.bus.reply_max().min(of_bucket.unwrap_or(usize::MAX)))
    }

    /// The bucket; created if missing.
    async fn store(&self) -> anyhow::Result<Store> {
        let jetstream = &self.bus.jetstream;
        let settings = bucket(self.bus.replicas);
        match jetstream.get_stream(&settings.name).await {
            Err(error) if stream::is_missing(&error.kind()) => {
                // Another source may have been faster, with other replicas.
                if let Err(error) = jetstream.create_stream(settings).await {
                    tracing::debug!(%error, bucket = BUCKET, "cannot create the bucket");
                }
            }
            found => {
                let found = found.context("reach the bucket of schemas")?;
                let info = found.cached_info();
                Replicas::of_stream(info, self.bus.replicas).note(&self.health);
            }
        }
        let store = jetstream.get_key_value(BUCKET).await;
        store.context(
            "open the bucket of schemas; if services may not create it, run `headwater provision`",
        )
    }

    fn report(&self, state: State) {
        self.health.set(COMPONENT, state);
    }

    /// Logs each reason once: the service works without the schema.
    fn report_failure(&self, failure: &anyhow::Error) {
        let reason = replicas::why(failure.as_ref());
        let state = State::Degraded(format!("waiting: {reason}"));
        if self.health.parts().get(COMPONENT) != Some(&state) {
            tracing::warn!(
                source = self.described.source,
                reason,
                "cannot store the schema yet: until it is in the bucket, tools cannot decode the \
                 events"
            );
            self.report(state);
        }
    }
}

/// Decides by the table in [`headwater_event::schema`].
fn decide(ours: &Described, stored: Option<&[u8]>, is_new: bool) -> anyhow::Result<Decision> {
    let stored = stored.and_then(|stored| serde_json::from_slice::<Described>(stored).ok());
    let Some(theirs) = stored.as_ref().and_then(|stored| facts::of(stored).ok()) else {
        return Ok(Decision::Write);
    };
    let ours = facts::of(ours)?;
    Ok(if ours.is_subset(&theirs) {
        Decision::Leave
    } else if is_new || theirs.is_subset(&ours) {
        Decision::Write
    } else {
        Decision::Yield
    })
}
