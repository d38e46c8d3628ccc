//! Creates a stream again, waits until it is refilled, and rebuilds the projections that read it.

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
use crate::target::Target;
use crate::watch;

/// The pause between two checks of the stream.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// How long the relay may publish nothing before this is an error.
const STANDSTILL: Duration = Duration::from_mins(1);

/// How often the stream is created again if the relay created it first, with default settings.
const ATTEMPTS: usize = 5;

impl Before {
    /// Deletes the stream and creates it again with its old settings.
    pub(crate) async fn make_again(&self, nats: &Nats) -> anyhow::Result<()> {
        let Some(is) = &self.config else {
            // The relay creates it.
            return Ok(());
        };
        let wanted = stream::settings(&self.status.service, is.num_replicas);
        let config = stream::again(is, &wanted);
        for _ in 0..ATTEMPTS {
            self.delete(nats).await?;
            match nats.jetstream.create_stream(config.clone()).await {
                Ok(made) => {
                    for config in self.consumers.clone() {
                        // The projection may have created it first.
                        let _ = made.create_consumer(config).await;
                    }
                    return Ok(());
                }
                // The relay was quicker, and does not know the old settings.
                Err(error) if is_in_use(&error.kind()) => {}
                Err(error) => {
                    return Err(error).with_context(|| {
                        format!(
                            "create the stream {} again; its relay will create it",
                            self.name
                        )
                    });
                }
            }
        }
        let updated = nats.jetstream.update_stream(&config).await;
        updated.with_context(|| format!("restore the settings of {}", self.name))?;
        Ok(())
    }

    async fn delete(&self, nats: &Nats) -> anyhow::Result<()> {
        let error = match nats.jetstream.delete_stream(&self.name).await {
            Ok(_) => return Ok(()),
            Err(error) if is_gone(&error.to_string()) => return Ok(()),
            Err(error) => anyhow::Error::from(error),
        };
        nats.expect_connected()?;
        // The stream exists: its state was read a moment ago.
        let may_not = if is_nobody(&error) {
            ": this user may not, nothing was done; log in as the operator"
        } else {
            ""
        };
        Err(error).with_context(|| format!("delete the stream {}{may_not}", self.name))
    }

    /// Waits until the relay has published the outbox; returns the newest published position.
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
                "the relay of {source} has made no progress for {STANDSTILL:?} at {published} of {head}: {}",
                state.map_or_else(
                    || "it does not answer".to_owned(),
                    |state| format!("{state:?}")
                )
            );
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    /// The newest position in the stream, and the relay's state.
    async fn published(&self, nats: &Nats, bar: &Bar) -> anyhow::Result<(u64, Option<State>)> {
        let Self { name, status, .. } = self;
        let (source, epoch) = (&status.service, Some(&*status.epoch));
        let state = match nats.status(source).await {
            Ok(status) => status.parts.get("relay").cloned(),
            Err(error) if error.is_broker() => return Err(error.into()),
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

    /// Rebuilds each projection of the source. If a service refuses, the report has the reason.
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
        let targets: Vec<Target> = targets.collect();
        let mut all = Vec::new();
        for target in targets {
            let failure = match rebuild(nats, &target, screen).await {
                Ok(status) if status.state == RebuildState::Done => None,
                Ok(status) => Some(status.message.unwrap_or_else(|| "it failed".to_owned())),
                Err(error) if client::unreachable(&error).is_some_and(Unreachable::is_broker) => {
                    return Err(error);
                }
                Err(error) => Some(headwater::causes(error.as_ref())),
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
    watch::follow(nats, target, begun, screen).await
}

/// Whether no service listens on the request's subject.
fn is_nobody(error: &anyhow::Error) -> bool {
    let kinds = error.chain().filter_map(|cause| cause.downcast_ref());
    kinds
        .map(RequestError::kind)
        .any(|kind| kind == RequestErrorKind::NoResponders)
}

/// The server reports a missing stream only in the text of the error.
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
    /// Why it failed.
    pub(crate) failure: Option<String>,
}
