//! `dead-letters.*`: events that could not be applied.

use serde::{Deserialize, Serialize};

/// The maximum number of letters that one request discards, each in a separate transaction: the
/// answer must arrive within a request's timeout.
pub const DISCARD_MAX: usize = 256;

/// A request for a page of dead letters or of discarded ones: `dead-letters.list`,
/// `dead-letters.discarded`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListRequest {
    /// Only letters with a higher id.
    #[serde(default)]
    pub after: u64,
    /// The maximum number of letters.
    #[serde(default = "page_size")]
    pub limit: usize,
    /// Only letters that match.
    #[serde(default)]
    pub filter: Filter,
}

/// Selects the letters that match all given conditions; all letters by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// The source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The blocked key, as in [`Letter::lane`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lane: Option<String>,
    /// A text that the reason contains.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Whether the letter only waits behind another one.
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
    /// The total number of letters that match the filter.
    pub total: u64,
}

/// A dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// Its number in this database.
    pub id: u64,
    /// The projection that could not apply it.
    pub projection: String,
    /// The source of the event.
    pub source: String,
    /// The blocked key, `key …`; `event …` if the key is not known and only this event is affected.
    pub lane: String,
    /// Whether it only waits behind another letter with the same key.
    pub waiting: bool,
    /// The epoch of the source; `None` for an event published by hand.
    pub epoch: Option<String>,
    /// Its position in the source's outbox.
    pub position: Option<u64>,
    /// Its sequence in the stream.
    pub sequence: Option<u64>,
    /// Its subject.
    pub subject: String,
    /// Why it is a dead letter.
    pub reason: String,
    /// When it became a dead letter, in milliseconds since 1970.
    pub recorded_at: i64,
    /// The size of its payload, in bytes.
    pub bytes: u64,
    /// The payload in base64, or a part of it; only from `dead-letters.show`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// The event in the source's outbox at its position; only from `dead-letters.show`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outbox: Option<InOutbox>,
    /// Why it was discarded; only for discarded letters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discarded_because: Option<String>,
    /// When it was discarded, in milliseconds since 1970; only for discarded letters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discarded_at: Option<i64>,
}

/// The source's outbox at the position of a letter, compared with the letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InOutbox {
    /// The same event.
    Same,
    /// Another event: the delivered one was altered. A retry applies the one in the outbox.
    Other {
        /// Its subject.
        subject: String,
        /// The size of its payload, in bytes.
        bytes: u64,
        /// The payload in base64, if it fits into the answer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        payload: Option<String>,
    },
    /// No event: the letter is not an event of the source.
    Missing,
    /// Unknown, with the reason: the source does not answer, or its outbox has another epoch.
    Unknown(String),
}

/// A request for one letter: `dead-letters.show`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShowRequest {
    /// Its number.
    pub id: u64,
    /// Allows a partial payload if the whole does not fit into one answer: the part that begins at
    /// this byte. [`Letter::bytes`] has the total size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<usize>,
}

/// The letters to retry, with those that wait behind them: `dead-letters.retry`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum RetryRequest {
    /// One letter, which must be the first of its key: `{"id": 7}`.
    Id(u64),
    /// A blocked key, as in [`Letter::lane`]: `{"lane": "key 0193…"}`.
    Lane(String),
    /// All blocked keys, or those whose first letter matches a filter: `{"all": {}}`,
    /// `{"all": {"source": "orders"}}`.
    All(Filter),
}

/// The result of a retry.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RetryAnswer {
    /// The number of letters that were applied.
    pub applied: u64,
    /// The total number of letters left.
    pub left: u64,
    /// The letters that failed again, or the first of them if not all fit into one answer. Letters
    /// behind them were not tried.
    pub failed: Vec<Letter>,
    /// The total number of letters that failed again.
    #[serde(default)]
    pub failed_total: u64,
}

impl RetryAnswer {
    /// The total number of letters that failed again, even from a service that does not send it.
    pub fn failed_in_all(&self) -> u64 {
        self.failed_total.max(self.failed.len() as u64)
    }
}

/// A request to discard one or several letters: `dead-letters.discard`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiscardRequest {
    /// The number of one letter, which may itself have failed or only wait. Answered with
    /// [`DiscardAnswer`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// The numbers of several letters that failed themselves, at most [`DISCARD_MAX`]. They are
    /// discarded in this order, each in a separate transaction. Answered with
    /// [`DiscardManyAnswer`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<u64>,
    /// The reason; stored with the events.
    pub reason: String,
}

/// The discarded letter, and the result for those that waited behind it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DiscardAnswer {
    /// The letter.
    pub discarded: Letter,
    /// The result of retrying the letters behind it.
    pub retried: RetryAnswer,
}

/// The result of discarding several letters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiscardManyAnswer {
    /// The number of letters that were discarded.
    pub discarded: u64,
    /// The number that were not discarded: they no longer exist, only wait behind another one, or
    /// belong to a projection that the program does not have.
    pub skipped: u64,
    /// The number of letters behind them that were applied.
    pub applied: u64,
    /// The number of letters behind them that failed; they no longer count as waiting.
    pub failed: u64,
    /// The total number of letters left.
    pub left: u64,
}
