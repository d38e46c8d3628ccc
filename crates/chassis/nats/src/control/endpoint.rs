//! The endpoints: their names, what they do, and what a request looks like.

use anyhow::Context as _;
use async_nats::service::NATS_SERVICE_ERROR;
use serde::{Deserialize, Serialize};

use crate::bus::Bus;

/// Declares each endpoint once: its variant, its name, an example of a request (empty where there
/// is nothing to say), and what it does.
macro_rules! endpoints {
    ($($variant:ident, $name:literal, $example:literal, $does:literal;)*) => {
        /// An endpoint for operators.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Endpoint {
            $(#[doc = concat!("`", $name, "`: ", $does, ".")] $variant,)*
        }

        impl Endpoint {
            /// All of them.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            /// Its name, which follows `headwater.<service>.` in its subject. Never rename.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What a request looks like.
            pub const fn example(self) -> &'static str {
                match self { $(Self::$variant => $example,)* }
            }

            /// What it does, as `nats micro info` shows it.
            pub const fn description(self) -> &'static str {
                match self { $(Self::$variant => $does,)* }
            }
        }
    };
}

endpoints! {
    Status, "status", "",
        "how the service and its parts are doing";
    Events, "events", r#"{"from":1,"limit":10}"#,
        "events of the outbox by position";
    DeadLettersList, "dead-letters.list", r#"{"after":0,"limit":100,"filter":{}}"#,
        "events that could not be applied, the oldest first";
    DeadLettersShow, "dead-letters.show", r#"{"id":7}"#,
        "one of them with its payload";
    DeadLettersRetry, "dead-letters.retry",
        r#"{"id":7}, {"lane":"key …"} or {"all":{"source":"…","lane":"key …","error":"…"}}"#,
        "tries them again, with those that wait behind";
    DeadLettersDiscard, "dead-letters.discard",
        r#"{"id":7,"reason":"…"} or {"ids":[7,9],"reason":"…"}"#,
        "gives one or several up for good, and tries those that wait behind them";
    DeadLettersDiscarded, "dead-letters.discarded", r#"{"after":0,"limit":100,"filter":{}}"#,
        "those that were given up";
    ProjectionsPause, "projections.pause", r#"{"projection":"…","reason":"…"}"#,
        "lets a projection stand still until it is resumed";
    ProjectionsResume, "projections.resume", r#"{"projection":"…"}"#,
        "lets a projection go on";
    Rebuild, "rebuild", r#"{"projection":"…"}"#,
        "begins to fold a projection once more beside, which then takes over";
    Verify, "verify", r#"{"projection":"…"}"#,
        "begins to fold a projection once more beside, and to compare both";
    Fold, "fold", r#"{"projection":"…"}"#,
        "how far a rebuild or verify is";
    FoldStop, "fold.stop", r#"{"projection":"…"}"#,
        "ends a rebuild or verify; the live store stays";
}

impl Endpoint {
    /// Whether it gives pages, as large as one reply has room for, and changes nothing.
    pub fn is_paged(self) -> bool {
        matches!(
            self,
            Self::Events | Self::DeadLettersList | Self::DeadLettersDiscarded
        )
    }

    /// The subject on which `service` is asked.
    pub fn subject(self, service: &str) -> String {
        format!("headwater.{service}.{}", self.name())
    }
}

/// Asks the endpoint of a service.
pub async fn ask<A: for<'de> Deserialize<'de>>(
    bus: &Bus,
    service: &str,
    endpoint: Endpoint,
    request: &impl Serialize,
) -> anyhow::Result<A> {
    let subject = endpoint.subject(service);
    let payload = serde_json::to_vec(request).context("write the request")?;
    let answer = bus.client.request(subject, payload.into()).await?;
    let refusal = answer
        .headers
        .as_ref()
        .and_then(|headers| headers.get(NATS_SERVICE_ERROR));
    if let Some(refusal) = refusal {
        anyhow::bail!("{refusal}");
    }
    serde_json::from_slice(&answer.payload).context("read the answer")
}
