//! The endpoints: their names, descriptions and example requests.

use anyhow::Context as _;
use async_nats::service::NATS_SERVICE_ERROR;
use serde::{Deserialize, Serialize};

use crate::bus::Bus;
use crate::error::Error;

/// Declares each endpoint once: its variant, its name, an example request (empty if the request
/// is), and its description.
macro_rules! endpoints {
    ($($variant:ident, $name:literal, $example:literal, $does:literal;)*) => {
        /// An admin endpoint.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Endpoint {
            $(#[doc = concat!("`", $name, "`: ", $does, ".")] $variant,)*
        }

        impl Endpoint {
            /// All of them.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            /// The name, which follows `headwater.<service>.` in the subject. Never rename.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// An example request.
            pub const fn example(self) -> &'static str {
                match self { $(Self::$variant => $example,)* }
            }

            /// The description that `nats micro info` shows.
            pub const fn description(self) -> &'static str {
                match self { $(Self::$variant => $does,)* }
            }
        }
    };
}

endpoints! {
    Status, "status", r#"{"events":{"orders":17}} or nothing"#,
        "the status of the service, its components and its projections";
    Events, "events", r#"{"from":1,"limit":10}"#,
        "reads events of the outbox by position";
    DeadLettersList, "dead-letters.list", r#"{"after":0,"limit":100,"filter":{}}"#,
        "lists dead letters, the oldest first";
    DeadLettersShow, "dead-letters.show", r#"{"id":7}"#,
        "shows one dead letter with its payload";
    DeadLettersRetry, "dead-letters.retry",
        r#"{"id":7}, {"lane":"key …"} or {"all":{"source":"…","lane":"key …","error":"…"}}"#,
        "retries dead letters, with those that wait behind them";
    DeadLettersDiscard, "dead-letters.discard",
        r#"{"id":7,"reason":"…"} or {"ids":[7,9],"reason":"…"}"#,
        "discards one or several dead letters, and retries those that wait behind them";
    DeadLettersDiscarded, "dead-letters.discarded", r#"{"after":0,"limit":100,"filter":{}}"#,
        "lists discarded dead letters, the oldest first";
    ProjectionsPause, "projections.pause", r#"{"projection":"…","reason":"…"}"#,
        "pauses a projection until it is resumed";
    ProjectionsResume, "projections.resume", r#"{"projection":"…"}"#,
        "resumes a projection";
    Rebuild, "rebuild", r#"{"projection":"…"}"#,
        "starts a rebuild of a projection, which then replaces the live one";
    Verify, "verify", r#"{"projection":"…"}"#,
        "starts a rebuild into a temporary store, and compares it with the live one";
    Replay, "replay", r#"{"projection":"…","source":"…","sequence":17}"#,
        "applies one event on a temporary copy of its past, and shows the rows that it changes";
    Fold, "fold", r#"{"projection":"…"}"#,
        "the progress of a rebuild, verify or replay";
    FoldStop, "fold.stop", r#"{"projection":"…"}"#,
        "stops a rebuild, verify or replay; the live store stays";
    Backup, "backup", "{}",
        "starts a backup: the service copies its own database";
    BackupStatus, "backup.status", "{}",
        "the progress of a backup, or how the newest one ended";
    BackupStop, "backup.stop", "{}",
        "stops a backup; nothing of the copy stays";
}

impl Endpoint {
    /// Whether it only reads, and returns pages as large as one reply can hold.
    pub fn is_paged(self) -> bool {
        matches!(
            self,
            Self::Events | Self::DeadLettersList | Self::DeadLettersDiscarded
        )
    }

    /// The subject of this endpoint of `service`.
    pub fn subject(self, service: &str) -> String {
        format!("headwater.{service}.{}", self.name())
    }
}

/// Sends `request` to an endpoint of a service, and returns the answer.
///
/// # Errors
/// [`Error::Refused`]; [`Error::NoResponders`]; [`Error::TimedOut`]; or the answer cannot be
/// decoded.
pub async fn ask<A: for<'de> Deserialize<'de>>(
    bus: &Bus,
    service: &str,
    endpoint: Endpoint,
    request: &impl Serialize,
) -> Result<A, Error> {
    let subject = endpoint.subject(service);
    let payload = serde_json::to_vec(request).context("encode the request");
    let payload = payload.map_err(Error::of)?.into();
    let answer = bus.client.request(subject, payload).await;
    let answer = answer.map_err(|error| Error::of(error.into()))?;
    let refusal = answer
        .headers
        .as_ref()
        .and_then(|headers| headers.get(NATS_SERVICE_ERROR));
    if let Some(refusal) = refusal {
        return Err(Error::Refused(refusal.as_str().into()));
    }
    let answer = serde_json::from_slice(&answer.payload).context("decode the answer");
    answer.map_err(Error::of)
}
