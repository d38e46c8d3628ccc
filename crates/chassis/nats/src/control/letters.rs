//! `dead-letters.*`: events that could not be applied.

use serde::{Deserialize, Serialize};

/// How many letters one request discards at most, each in a transaction of its own: an answer has
/// to come within a request's timeout.
pub const DISCARD_MAX: usize = 256;

/// Asks for a page of dead letters, or of discarded ones: `dead-letters.list`,
/// `dead-letters.discarded`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListRequest {
    /// Only letters with a higher id.
    #[serde(default)]
    pub after: u64,
    /// How many at most.
    #[serde(default = "page_size")]
    pub limit: usize,
    /// Only these.
    #[serde(default)]
    pub filter: Filter,
}

/// Which letters are meant: those for which everything holds that is given; all by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// Of this source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// In this lane, as the letters have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lane: Option<String>,
    /// Whose reason contains this text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Whether they only wait behind another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<bool>,
}

fn page_size() -> usize {
    100
}

/// A page of dead letters, the oldest first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListAnswer {
    /// The letters.
    pub letters: Vec<Letter>,
    /// How many there are in all that the filter lets through.
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
    /// What waits with it: `key …`; where the key cannot be read `event …`, which is it alone.
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
    /// The payload in base64, or a part of it; only `dead-letters.show` gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// What its source's outbox has at its position; only `dead-letters.show` asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outbox: Option<InOutbox>,
    /// Why it was discarded; only discarded letters have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discarded_because: Option<String>,
    /// When it was discarded, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discarded_at: Option<i64>,
}

/// What a source's outbox has at the position of a letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InOutbox {
    /// What the letter has.
    Same,
    /// Another event: what was delivered had been altered. A retry applies this one.
    Other {
        /// Its subject.
        subject: String,
        /// How large its payload is.
        bytes: u64,
        /// The payload in base64, where the answer has room for it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        payload: Option<String>,
    },
    /// Nothing: the letter is not an event of the source.
    Missing,
    /// It cannot be known, and why: the source does not answer, or its outbox is of another life.
    Unknown(String),
}

/// Asks for one letter: `dead-letters.show`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShowRequest {
    /// Its number.
    pub id: u64,
    /// Allows the answer to have only a part of the payload, where it has no room for all of it:
    /// the part that begins at this byte. The letter says how many there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<usize>,
}

/// Which letters to try again, with those that wait behind them: `dead-letters.retry`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum RetryRequest {
    /// One, which must be the first of its lane: `{"id": 7}`.
    Id(u64),
    /// A lane, as the letters have it: `{"lane": "key 0193…"}`.
    Lane(String),
    /// All of them, or the lanes whose first letter a filter lets through: `{"all": {}}`,
    /// `{"all": {"source": "orders"}}`.
    All(Filter),
}

/// What trying again came to.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RetryAnswer {
    /// How many were applied.
    pub applied: u64,
    /// How many letters are left, in all.
    pub left: u64,
    /// Those that failed again, the first of them where one answer has no room for all; what waits
    /// behind them was not tried.
    pub failed: Vec<Letter>,
    /// How many failed again, in all.
    #[serde(default)]
    pub failed_total: u64,
}

impl RetryAnswer {
    /// How many failed again, also of a service that does not say so.
    pub fn failed_in_all(&self) -> u64 {
        self.failed_total.max(self.failed.len() as u64)
    }
}

/// Gives letters up, one or several of them: `dead-letters.discard`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiscardRequest {
    /// The number of one, whether it is at fault or waits. Answered with [`DiscardAnswer`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// The numbers of several that are at fault, at most [`DISCARD_MAX`]: in this order, each
    /// in a transaction of its own. Answered with [`DiscardManyAnswer`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<u64>,
    /// Why; kept with the events.
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

/// What discarding several letters came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiscardManyAnswer {
    /// How many were given up.
    pub discarded: u64,
    /// How many were not: they are gone, only wait behind another one, or are of a projection that
    /// the program does not have.
    pub skipped: u64,
    /// How many that waited behind them were applied.
    pub applied: u64,
    /// How many that waited behind them failed in their turn; they are dead letters at fault now.
    pub failed: u64,
    /// How many letters are left, in all.
    pub left: u64,
}
