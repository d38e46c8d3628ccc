//! The task that keeps a source's schema in the bucket.

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

/// How often it looks whether the entry is still there: a person may have deleted the bucket.
const LOOK_PAUSE: Duration = Duration::from_mins(1);

/// Pauses between attempts while the bucket cannot be had.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The name of its line in `/readyz?verbose`.
const CHECK: &str = "schema";

/// Keeps a source's schema in the bucket.
#[derive(Debug)]
pub struct Keeper {
    described: Described,
    bus: Bus,
    health: Health,
    /// Whether it has not been through once: only then may it replace what contradicts it.
    is_new: bool,
}

/// What is to be done about what the bucket has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    Leave,
    Write,
    /// What is there contradicts ours, and another process put it there after this one started.
    Yield,
}

impl Keeper {
    /// The keeper of a source's schema.
    pub fn new(described: Described, bus: Bus, health: Health) -> Self {
        health.set(CHECK, State::Degraded("starting".to_owned()));
        Self {
            described,
            bus,
            health,
            is_new: true,
        }
    }

    /// Runs until `stop`; does not end by itself, whatever the broker does.
    ///
    /// # Errors
    /// None; the type is the supervisor's.
    pub async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
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

    /// Looks at the entry and writes it if it has to; gives what it then is.
    async fn settle(&self) -> anyhow::Result<String> {
        let source = &self.described.source;
        let store = self.store().await?;
        let entry = store.entry(source).await.context("read the schema")?;
        let entry = entry.filter(|entry| entry.operation == Operation::Put);
        let kept = entry.as_ref().map(|entry| &entry.value[..]);
        match decide(&self.described, kept, self.is_new)? {
            Decision::Leave => Ok(format!("{source} is described in {BUCKET}")),
            Decision::Yield => Ok(format!(
                "{source} is described in {BUCKET} by a process that started later, in another way"
            )),
            Decision::Write => {
                let value = serde_json::to_vec(&self.described).context("encode the schema")?;
                let (bytes, bytes_max) = (value.len(), self.bytes_max(&store).await?);
                ensure!(
                    bytes <= bytes_max,
                    "the schema of {source} has {bytes} bytes, and {bytes_max} are taken: raise `max_payload` of the NATS server or account, or the largest value of the bucket {BUCKET}"
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
                tracing::info!(source, bucket = BUCKET, "wrote what the events look like");
                Ok(format!("{source} is described in {BUCKET}"))
            }
        }
    }

    /// How large a value may be, in bytes: as the server and the bucket say.
    async fn bytes_max(&self, store: &Store) -> anyhow::Result<usize> {
        let status = store.status().await.context("look at the bucket")?;
        let of_bucket = usize::try_from(status.info.config.max_message_size).ok();
        Ok(self.bus.reply_max().min(of_bucket.unwrap_or(usize::MAX)))
    }

    /// The bucket; made if it is not there.
    async fn store(&self) -> anyhow::Result<Store> {
        let jetstream = &self.bus.jetstream;
        let settings = bucket(self.bus.replicas);
        match jetstream.get_stream(&settings.name).await {
            Err(error) if stream::is_missing(&error.kind()) => {
                // Another source may be faster, with other replicas.
                if let Err(error) = jetstream.create_stream(settings).await {
                    tracing::debug!(%error, bucket = BUCKET, "make the bucket");
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
            "open the bucket of schemas; where services may not make it, the operator does: \
             `headwater provision`",
        )
    }

    fn report(&self, state: State) {
        self.health.set(CHECK, state);
    }

    /// In the log only once for each reason: the service does its work without it.
    fn report_failure(&self, failure: &anyhow::Error) {
        let reason = replicas::why(failure);
        let state = State::Degraded(format!("waiting: {reason}"));
        if self.health.parts().get(CHECK) != Some(&state) {
            tracing::warn!(
                source = self.described.source,
                reason,
                "the schema waits: until it is in the bucket, tools cannot decode the events"
            );
            self.report(state);
        }
    }
}

/// See the table in the [module's documentation](super).
fn decide(ours: &Described, kept: Option<&[u8]>, is_new: bool) -> anyhow::Result<Decision> {
    let kept = kept.and_then(|kept| serde_json::from_slice::<Described>(kept).ok());
    let Some(theirs) = kept.as_ref().and_then(|kept| facts::of(kept).ok()) else {
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
