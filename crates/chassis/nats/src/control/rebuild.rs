//! `rebuild`, `verify`, `fold` and `fold.stop`: folding a projection once more beside the live one.

use std::collections::BTreeMap;

use headwater_event::Positions;
use serde::{Deserialize, Serialize};

/// Names a projection: for `rebuild`, `verify`, `fold` and `fold.stop`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RebuildRequest {
    /// Which; may be left out where the service has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub projection: Option<String>,
    /// Whether a verification has found something elsewhere, so that without differences here it is
    /// no success all the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_partial: bool,
}

/// What a rebuild is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RebuildPurpose {
    /// The new store replaces the live one, or, where the service keeps more in that database, the
    /// live tables are changed to equal the new ones: `rebuild`.
    #[serde(rename = "swap")]
    Rebuild,
    /// The new store is compared with the live one and discarded: `verify`.
    #[serde(rename = "compare")]
    Verify,
}

impl RebuildPurpose {
    /// The endpoint that begins it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Rebuild => "rebuild",
            Self::Verify => "verify",
        }
    }
}

/// How far it is: the answer of `rebuild` and `verify`, which begin one, of `fold`, and of
/// `fold.stop`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RebuildStatus {
    /// What it is doing.
    pub state: RebuildState,
    /// What it is for.
    pub then: RebuildPurpose,
    /// Why it was begun.
    pub reason: String,
    /// How far the new store is.
    pub positions: Positions,
    /// How far the live store is.
    pub live: Positions,
    /// What it waits for, by the source that it cannot go on in.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub waiting: BTreeMap<String, String>,
    /// What differed between the two stores, at the same positions; none while they have not
    /// been compared.
    pub differences: Option<Differences>,
    /// Why it failed, or what could not be done.
    pub message: Option<String>,
    /// For how long the live store stood still so that both could be compared, in microseconds.
    /// Reads went on.
    pub held_us: Option<u64>,
    /// As it was asked for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_partial: bool,
}

/// What a fold is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RebuildState {
    /// There was none since the service started.
    Idle,
    /// It applies events.
    Folding,
    /// It is compared with the live store.
    Comparing,
    /// The live tables are made equal to it.
    Merging,
    /// It did what it was for.
    Done,
    /// It gave up; the live store is as it was.
    Failed,
}

impl RebuildState {
    /// Whether it is under way.
    pub fn is_running(self) -> bool {
        matches!(self, Self::Folding | Self::Comparing | Self::Merging)
    }
}

/// Rows in which two stores differ.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Differences {
    /// How many in all.
    pub count: u64,
    /// The first of them.
    pub rows: Vec<Difference>,
}

/// A row that the two stores do not have in common. An altered row comes as two: what the live
/// store has, and what the fold gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The table, or the view of several that the projection has named.
    pub table: String,
    /// Where the row is: `live` only, or `fold` only.
    pub only_in: Side,
    /// The row: each column's name and value as text (a blob in hexadecimal).
    pub row: Vec<(String, String)>,
}

/// One of two stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The store that serves.
    Live,
    /// The one that was folded anew.
    Fold,
}
