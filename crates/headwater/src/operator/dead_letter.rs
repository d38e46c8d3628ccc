//! `dead-letters.*`: what a projection could not apply, tried again or given up.

use serde::{Deserialize, Serialize};

/// Asks for a page of dead letters, or of discarded ones: `dead-letters.list`,
/// `dead-letters.discarded`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListRequest {
    /// Only letters with a higher id.
    #[serde(default)]
    pub after: u64,
    /// How many at most.
    #[serde(default = "page")]
    pub limit: usize,
}

fn page() -> usize {
    100
}

/// A page of dead letters, the oldest first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListAnswer {
    /// The letters.
    pub letters: Vec<Letter>,
    /// How many there are in all.
    pub total: u64,
}

/// An event that was parked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// Its number in this database.
    pub id: u64,
    /// Whose it is.
    pub projection: String,
    /// Where the event came from.
    pub source: String,
    /// What waits with it: `key …`, or `partition …` where the key cannot be read.
    pub lane: String,
    /// Whether it only waits behind another one of its lane.
    pub waiting: bool,
    /// The life of the source; none for an event that somebody published by hand.
    pub epoch: Option<String>,
    /// Its place in the source's outbox.
    pub position: Option<u64>,
    /// Its place in the stream.
    pub sequence: Option<u64>,
    /// Its subject.
    pub subject: String,
    /// Why it was parked.
    pub reason: String,
    /// When it was parked, in milliseconds since 1970.
    pub recorded_at: i64,
    /// How large its payload is.
    pub bytes: u64,
    /// The payload in base64; only `dead-letters.show` gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// Why it was discarded; only discarded letters have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discarded_because: Option<String>,
    /// When it was discarded, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discarded_at: Option<i64>,
}

/// Asks for one letter: `dead-letters.show`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShowRequest {
    /// Its number.
    pub id: u64,
}

/// Which letters to try again, with those that wait behind them: `dead-letters.retry`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum RetryRequest {
    /// One, which must be the first of its lane: `{"id": 7}`.
    Id(u64),
    /// A lane, as the letters have it: `{"lane": "key 0193…"}`.
    Lane(String),
    /// All of them: `{"all": {}}`.
    All {},
}

/// What trying again came to.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RetryAnswer {
    /// How many were applied.
    pub applied: u64,
    /// How many letters are left, in all.
    pub left: u64,
    /// Those that failed again; what waits behind them was not tried.
    pub failed: Vec<Letter>,
}

/// Gives a letter up: `dead-letters.discard`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiscardRequest {
    /// Its number.
    pub id: u64,
    /// Why; kept with the event.
    pub reason: String,
}

/// What was given up, and what became of those that waited behind it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DiscardAnswer {
    /// The letter.
    pub discarded: Letter,
    /// What trying those behind it came to.
    pub retried: RetryAnswer,
}
