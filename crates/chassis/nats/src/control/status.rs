//! `status`, and `projections.*`: how a service and its projections are doing.

use std::collections::BTreeMap;

use headwater_event::Positions;
use headwater_telemetry::health::State;
use serde::{Deserialize, Serialize};

/// How a service is doing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StatusAnswer {
    /// The service.
    pub service: String,
    /// The life of its database; empty when it has none.
    pub epoch: String,
    /// The newest position in its outbox; 0 when it has none.
    pub head: u64,
    /// Its parts, as `/readyz?verbose` has them.
    pub parts: BTreeMap<String, State>,
    /// What it folds from others' events.
    #[serde(default)]
    pub projections: Vec<ProjectionStatus>,
}

/// How a projection is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectionStatus {
    /// Its name.
    pub name: String,
    /// The version of the program's.
    pub version: u32,
    /// How far it is in each of its sources.
    pub positions: Positions,
    /// The life of each source that these positions are in.
    #[serde(default)]
    pub epochs: BTreeMap<String, String>,
    /// Whether its tables were folded to the end of all sources once.
    pub is_complete: bool,
    /// Events that it could not apply, and those that wait behind them, of all sources.
    pub dead_letters: u64,
    /// The same and more, of each source.
    #[serde(default)]
    pub sources: BTreeMap<String, SourceStatus>,
    /// That an operator holds it where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Pause>,
    /// Whether it can be folded once more beside, to be rebuilt or verified.
    pub can_rebuild: bool,
}

/// What a projection has met of one of its sources.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// Events that could not be applied, and those that wait behind them.
    pub dead_letters: u64,
    /// Events in the stream without a position, published by hand: applied.
    pub by_hand: u64,
    /// Events in the stream of an epoch that the source does not have: refused.
    pub foreign_epoch: u64,
    /// Events in the stream at a position that was applied before, and with another content than
    /// the outbox has: skipped.
    pub altered: u64,
    /// Events that the stream does not have: fetched from the outbox.
    pub missing: u64,
    /// What a person has to act on, and how, as sentences.
    pub faults: Vec<String>,
}

/// That a projection is held where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Since when, in milliseconds since 1970.
    pub since: i64,
    /// Why.
    pub reason: String,
}

/// Holds a projection where it is, over restarts, until it is resumed: `projections.pause`.
/// Answered with its [`ProjectionStatus`] once it stands still.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PauseRequest {
    /// Which; may be left out where the service has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub projection: Option<String>,
    /// Why; kept, and shown to everybody.
    pub reason: String,
}

/// Lets a projection go on: `projections.resume`. One that is not paused goes on as it is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResumeRequest {
    /// Which; may be left out where the service has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub projection: Option<String>,
}
