//! Making a stream again, having it filled, and having rebuilt what reads it.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{CreateStreamErrorKind, RequestError, RequestErrorKind};
use client::{Nats, Tail, Unreachable};
use headwater::health::State;
use headwater::operator::{Endpoint, RebuildState, RebuildStatus};
use headwater::stream;
use serde::Serialize;
use terminal::{Bar, Screen};
use tokio::time::Instant;

use super::before::Before;
use crate::fold;
use crate::target::Target;

/// How often the stream is looked at while its relay fills it.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// How long the relay may publish nothing before it is given up.
const STANDSTILL: Duration = Duration::from_mins(1);

/// How often the stream is made again where the relay was quicker, with settings of its own.
const ATTEMPTS: usize = 5;

impl Before {
    /// Deletes the stream and makes it again with the settings that it had.
    pub(crate) async fn make_again(&self, nats: &Nats) -> anyhow::Result<()> {
        let Some(is) = &self.config else {
            // The relay makes it.
            return Ok(());
        };
        let wanted = stream::settings(&self.status.service, is.num_replicas);
        let config = stream::again(is, &wanted);
        for _ in 0..ATTEMPTS {
            self.delete(nats).await?;
            match nats.jetstream.create_stream(config.clone()).await {
                Ok(made) => {
                    for config in self.consumers.clone() {
                        // Its reader may be quicker.
                        let _ = made.create_consumer(config).await;
                    }
                    return Ok(());
                }
                // The relay was quicker, and does not know the settings.
                Err(error) if is_in_use(&error.kind()) => {}
                Err(error) => {
                    return Err(error).with_context(|| {
                        format!("make the stream {} again; its relay does", self.name)
                    });
                }
            }
        }
        let updated = nats.jetstream.update_stream(&config).await;
        updated.with_context(|| format!("give {} its settings back", self.name))?;
        Ok(())
    }

    async fn delete(&self, nats: &Nats) -> anyhow::Result<()> {
        let error = match nats.jetstream.delete_stream(&self.name).await {
            Ok(_) => return Ok(()),
            Err(error) if is_gone(&error.to_string()) => return Ok(()),
            Err(error) => anyhow::Error::from(error),
        };
        nats.expect_connected()?;
        // The stream is there: its state was read a moment ago.
        let may_not = if is_nobody(&error) {
            ": this user may not, nothing was done; log in as the operator"
        } else {
            ""
        };
        Err(error).with_context(|| format!("delete the stream {}{may_not}", self.name))
    }

    /// Waits until the relay has published what the outbox had; gives how far it is then.
    pub(crate) async fn wait_until_filled(
        &self,
        nats: &Nats,
        screen: &Screen,
    ) -> anyhow::Result<u64> {
        let (source, head) = (&self.status.service, self.status.head);
        let bar = screen.bar(&self.name, head);
        let (mut published, mut moved) = (0, Instant::now());
        loop {
            let (now, state) = self.published(nats, &bar).await?;
            if now >= head && matches!(state, Some(State::Ok(_))) {
                return Ok(now);
            }
            if now > published {
                (published, moved) = (now, Instant::now());
            }
            ensure!(
                moved.elapsed() < STANDSTILL,
                "the relay of {source} has stood still for {STANDSTILL:?} at {published} of {head}: {}",
                state.map_or_else(
                    || "it does not answer".to_owned(),
                    |state| format!("{state:?}")
                )
            );
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    /// The newest position in the stream, and what the relay says of itself.
    async fn published(&self, nats: &Nats, bar: &Bar) -> anyhow::Result<(u64, Option<State>)> {
        let Self { name, status, .. } = self;
        let (source, epoch) = (&status.service, Some(&*status.epoch));
        let state = match nats.status(source).await {
            Ok(status) => status.parts.get("relay").cloned(),
            Err(error) if is_broker(&error) => return Err(error),
            Err(_) => None,
        };
        let Ok(found) = nats.jetstream.get_stream(name).await else {
            nats.expect_connected()?;
            return Ok((0, state));
        };
        let tail = Tail::read(nats, found.cached_info(), source, epoch).await?;
        let position = tail.map_or(0, |tail| tail.position);
        bar.at(position);
        Ok((position, state))
    }

    /// Has each projection of the source rebuilt. One whose service refuses is in the report.
    pub(crate) async fn rebuild(
        &self,
        nats: &Nats,
        screen: &Screen,
    ) -> anyhow::Result<Vec<Rebuilt>> {
        let readers = self.readers.iter();
        let targets = readers.flat_map(|(service, projections)| {
            projections.iter().map(|projection| Target {
                service: service.clone(),
                projection: Some(projection.clone()),
            })
        });
        let mut all = Vec::new();
        for target in targets {
            let failure = match rebuild(nats, &target, screen).await {
                Ok(status) if status.state == RebuildState::Done => None,
                Ok(status) => Some(status.message.unwrap_or_else(|| "it failed".to_owned())),
                Err(error) if is_broker(&error) => return Err(error),
                Err(error) => Some(headwater::causes(&error)),
            };
            all.push(Rebuilt {
                service: target.service,
                projection: target.projection.unwrap_or_default(),
                failure,
            });
        }
        Ok(all)
    }
}

async fn rebuild(nats: &Nats, target: &Target, screen: &Screen) -> anyhow::Result<RebuildStatus> {
    let begun = target.ask(nats, Endpoint::Rebuild).await?;
    fold::follow(nats, target, begun, screen).await
}

fn is_broker(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref(),
        Some(Unreachable::Broker { .. } | Unreachable::Login { .. })
    )
}

/// Whether there is nobody who would take a request.
fn is_nobody(error: &anyhow::Error) -> bool {
    let kinds = error.chain().filter_map(|cause| cause.downcast_ref());
    kinds
        .map(RequestError::kind)
        .any(|kind| kind == RequestErrorKind::NoResponders)
}

/// A deletion says so in words only.
fn is_gone(error: &str) -> bool {
    error.contains(&ErrorCode::STREAM_NOT_FOUND.0.to_string())
}

fn is_in_use(kind: &CreateStreamErrorKind) -> bool {
    matches!(kind, CreateStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NAME_EXIST)
}

#[derive(Debug, Serialize)]
pub(crate) struct Rebuilt {
    pub(crate) service: String,
    pub(crate) projection: String,
    /// Why not.
    pub(crate) failure: Option<String>,
}
