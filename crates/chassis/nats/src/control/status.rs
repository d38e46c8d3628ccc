//! `status` and `projections.*`: the status of a service and its projections.

use std::collections::BTreeMap;

use headwater_event::Positions;
use headwater_telemetry::health::State;
use serde::{Deserialize, Serialize};

/// The request of `status`; may be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StatusRequest {
    /// Events, as positions of sources: the answer says when each projection applied them, in
    /// [`SourceStatus::applied_at`].
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub events: BTreeMap<String, u64>,
}

/// The status of a service.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StatusAnswer {
    /// The service.
    pub service: String,
    /// The epoch of its database; empty if it has no database.
    pub epoch: String,
    /// The newest position in its outbox; 0 if there is none.
    pub head: u64,
    /// Whether its database can be backed up: it has one, which is not a read store.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub can_back_up: bool,
    /// Its components, as in `/readyz?verbose`.
    pub parts: BTreeMap<String, State>,
    /// Its projections.
    #[serde(default)]
    pub projections: Vec<ProjectionStatus>,
}

/// The status of a projection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectionStatus {
    /// Its name.
    pub name: String,
    /// Its version in the program.
    pub version: u32,
    /// The positions that it has reached in its sources.
    pub positions: Positions,
    /// The epochs of its sources to which the positions belong.
    #[serde(default)]
    pub epochs: BTreeMap<String, String>,
    /// Whether it has caught up with all its sources once.
    pub is_complete: bool,
    /// Dead letters of all sources, including those that wait behind others.
    pub dead_letters: u64,
    /// Details for each source.
    #[serde(default)]
    pub sources: BTreeMap<String, SourceStatus>,
    /// The pause, if an operator has paused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Pause>,
    /// Whether it can be rebuilt and verified.
    pub can_rebuild: bool,
    /// Whether it writes the intents of an effect, which are never rebuilt and have no tables to
    /// compare.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_effect: bool,
}

/// What a projection has found in the stream of one source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// Dead letters, including those that wait behind others.
    pub dead_letters: u64,
    /// Events without a position, published by hand: applied.
    pub by_hand: u64,
    /// Events of an epoch that the source does not have: refused.
    pub foreign_epoch: u64,
    /// Events at a position that was applied before, whose content differs from the outbox:
    /// skipped.
    pub altered: u64,
    /// Events missing from the stream: fetched from the outbox.
    pub missing: u64,
    /// Sentences that describe what an operator must act on, and how.
    pub faults: Vec<String>,
    /// When the event that the request names was applied, in milliseconds since 1970. `None` if
    /// that is not known: the event is not applied yet, or was long ago, or before the service
    /// started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied_at: Option<i64>,
}

/// The pause of a projection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Since when, in milliseconds since 1970.
    pub since: i64,
    /// Why.
    pub reason: String,
}

/// Pauses a projection, across restarts, until it is resumed: `projections.pause`. Answered with
/// its [`ProjectionStatus`] once it has stopped applying.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PauseRequest {
    /// The projection; optional if the service has only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub projection: Option<String>,
    /// The reason; stored and shown in every status.
    pub reason: String,
}

/// Resumes a projection: `projections.resume`. Does nothing if it is not paused.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResumeRequest {
    /// The projection; optional if the service has only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub projection: Option<String>,
}
