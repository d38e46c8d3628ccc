//! `rebuild`, `verify`, `replay`, `fold` and `fold.stop`: rebuilding a projection next to the live
//! one.

use std::collections::BTreeMap;

use headwater_event::Positions;
use serde::{Deserialize, Serialize};

/// The request of `rebuild`, `verify`, `fold` and `fold.stop`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RebuildRequest {
    /// The projection; optional if the service has only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub projection: Option<String>,
    /// Whether the verification has found a fault elsewhere. Then it does not count as successful,
    /// even without differences here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_partial: bool,
}

/// The request of `replay`: one event, and what a copy of the projection has read before it.
///
/// The same request, repeated when the replay has ended, is answered with the rows, once: the
/// answers of `fold` only count them, because they may hold personal data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayRequest {
    /// The projection; optional if the service has only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub projection: Option<String>,
    /// The source of the event.
    pub source: String,
    /// Its sequence in the source's stream.
    pub sequence: u64,
    /// Its id, as in the header `Nats-Msg-Id`: the replay fails if it applies something else. `None`
    /// for an event published by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The last event of each stream that the copy has read before, by source and sequence; 0 for
    /// none. By default, the sequence before the event and, of other sources, what the live store
    /// has read.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub before: BTreeMap<String, u64>,
}

/// The purpose of a rebuild.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RebuildPurpose {
    /// The new store replaces the live one or, if that database holds more, the live tables are
    /// changed to equal the new ones: `rebuild`.
    #[serde(rename = "swap")]
    Rebuild,
    /// The new store is compared with the live one and discarded: `verify`.
    #[serde(rename = "compare")]
    Verify,
    /// One event is applied to the new store, which is then discarded: `replay`.
    #[serde(rename = "replay")]
    Replay,
}

impl RebuildPurpose {
    /// The end of the names of its consumers. There is one temporary store at a time, so a replay
    /// uses those of a verification.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Rebuild => "rebuild",
            Self::Verify | Self::Replay => "verify",
        }
    }
}

/// The status of a rebuild: the answer of `rebuild`, `verify`, `replay`, `fold` and `fold.stop`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RebuildStatus {
    /// Its state.
    pub state: RebuildState,
    /// Its purpose.
    pub then: RebuildPurpose,
    /// Why it was started.
    pub reason: String,
    /// The positions that the new store has reached.
    pub positions: Positions,
    /// The positions that the live store has reached.
    pub live: Positions,
    /// What it waits for, by source.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub waiting: BTreeMap<String, String>,
    /// The differences between the two stores at the same positions; `None` until they have been
    /// compared. Of a replay: the rows that the event has changed, before (`live`) and after it
    /// (`fold`).
    pub differences: Option<Differences>,
    /// Why it failed, or what could not be done.
    pub message: Option<String>,
    /// How long the apply barrier stopped the live store for the comparison, in microseconds. Reads
    /// continued.
    pub held_us: Option<u64>,
    /// As in the request.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_partial: bool,
    /// The request of a replay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<ReplayRequest>,
}

/// The state of a rebuild.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RebuildState {
    /// There was none since the service started.
    Idle,
    /// It applies events.
    Folding,
    /// The new store is compared with the live store.
    Comparing,
    /// The live tables are made equal to the new ones.
    Merging,
    /// It has succeeded.
    Done,
    /// It has failed; the live store is unchanged.
    Failed,
}

impl RebuildState {
    /// Whether it is under way.
    pub fn is_running(self) -> bool {
        matches!(self, Self::Folding | Self::Comparing | Self::Merging)
    }
}

/// The rows in which two stores differ.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Differences {
    /// The total number.
    pub count: u64,
    /// The first of them.
    pub rows: Vec<Difference>,
}

/// A row that is in only one of two stores. An altered row counts as two: that of the live store
/// and that of the new one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The table, or a view of several that the projection has named.
    pub table: String,
    /// The store that has the row: `live` or `fold`.
    pub only_in: Side,
    /// The row: the name and value of each column, as text (a blob in hexadecimal).
    pub row: Vec<(String, String)>,
}

/// One of two stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The live store; of a replay, the copy before the event.
    Live,
    /// The new store; of a replay, the copy after the event.
    Fold,
}
