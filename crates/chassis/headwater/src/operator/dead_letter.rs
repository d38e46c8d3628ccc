//! `dead-letters.*`: what a projection could not apply, tried again or given up.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

use super::tools::{Tool, Tools};
use super::{Error, fit, json, refuse, too_large};
use crate::database::Database;
use crate::projection::dead_letter::{self, Refusal, Table, Which};

/// How many letters one answer has at most: some 600 bytes each.
const LETTERS_MAX: usize = 1000;

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

/// A page of letters, as JSON of at most `bytes_max` bytes.
pub(super) async fn page(
    db: &Database,
    table: Table,
    ListRequest {
        after,
        limit,
        filter,
    }: ListRequest,
    bytes_max: usize,
) -> Result<Vec<u8>, Error> {
    let limit = limit.min(LETTERS_MAX);
    let page = db.read(move |snapshot| dead_letter::list(snapshot, table, &filter, after, limit));
    let mut page = page.await.map_err(|error| refusal(&error.into()))?;
    let Some(first) = page.letters.first().map(|letter| letter.id) else {
        return json(&page);
    };
    fit(&mut page, bytes_max, 1, |page| &mut page.letters).map_err(|error| {
        let why = error.status;
        refuse(
            error.code,
            format!("the dead letter {first}: {why}; go on with after {first}"),
        )
    })
}

/// One letter with its payload or a part of it, beside what its source's outbox has, as JSON of at
/// most `bytes_max` bytes.
pub(super) async fn show(
    db: &Database,
    tools: &Tools,
    ShowRequest { id, offset }: ShowRequest,
    bytes_max: usize,
) -> Result<Vec<u8>, Error> {
    let (mut letter, payload) = find(db, id).await?;
    let tool = tools
        .all()
        .iter()
        .find(|tool| tool.name == letter.projection);
    if let Some(tool) = tool {
        letter.outbox = dead_letter::in_outbox(&tool.bus, &letter, &payload).await;
    }
    if let Some(InOutbox::Other { payload, .. }) = &mut letter.outbox
        && payload
            .as_ref()
            .is_some_and(|payload| payload.len() > bytes_max / 4)
    {
        *payload = None;
    }
    let bare = json(&letter)?.len() + r#","payload":"""#.len();
    // Base64 makes 4 bytes of 3.
    let room = bytes_max.saturating_sub(bare) / 4 * 3;
    let wanted = payload.get(offset.unwrap_or(0)..).unwrap_or_default();
    if wanted.len() > room && (offset.is_none() || room == 0) {
        let bytes = bare + wanted.len().div_ceil(3) * 4;
        let what = format!("the dead letter {id} (in parts: {{\"id\":{id},\"offset\":0}})");
        return Err(too_large(&what, bytes, bytes_max));
    }
    letter.payload = Some(BASE64_STANDARD.encode(&wanted[..wanted.len().min(room)]));
    json(&letter)
}

async fn find(db: &Database, id: u64) -> Result<(Letter, Vec<u8>), Error> {
    db.read(move |snapshot| dead_letter::find(snapshot, id))
        .await
        .map_err(|error| refusal(&error))
}

/// Tries the letters of all projections that are meant; of one where an id is.
pub(super) async fn retry(
    db: &Database,
    tools: &Tools,
    which: RetryRequest,
) -> Result<RetryAnswer, Error> {
    let meant = match which {
        RetryRequest::Id(id) => vec![tool_of(db, tools, id).await?],
        _ => tools.all().to_vec(),
    };
    if meant.is_empty() {
        return Err(refuse(404, format!("{} has no projection", db.owner())));
    }
    let mut sum = RetryAnswer::default();
    let mut refused = None;
    let mut is_met = false;
    for tool in meant {
        match (tool.retry)(Which::Request(which.clone())).await {
            Ok(done) => {
                is_met = true;
                sum.applied += done.applied;
                sum.left = done.left;
                sum.failed_total += done.failed.len() as u64;
                sum.failed.extend(done.failed);
            }
            // Another projection may have that lane.
            Err(error @ Refusal::UnknownLane(_)) => refused = Some(error),
            Err(error) => return Err(refusal(&error)),
        }
    }
    match refused {
        Some(error) if !is_met => Err(refusal(&error)),
        _ => Ok(sum),
    }
}

pub(super) async fn discard(
    db: &Database,
    tools: &Tools,
    id: u64,
    reason: String,
) -> Result<DiscardAnswer, Error> {
    let tool = tool_of(db, tools, id).await?;
    let discarded = (tool.discard)(id, reason).await;
    let mut answer = discarded.map_err(|error| refusal(&error))?;
    answer.retried.failed_total = answer.retried.failed.len() as u64;
    Ok(answer)
}

/// Gives up several letters, one after the other, each in a transaction of its own.
pub(super) async fn discard_many(
    db: &Database,
    tools: &Tools,
    ids: Vec<u64>,
    reason: String,
) -> Result<DiscardManyAnswer, Error> {
    if ids.len() > DISCARD_MAX {
        return Err(refuse(400, format!("send at most {DISCARD_MAX} ids")));
    }
    let mut answer = DiscardManyAnswer::default();
    for id in ids {
        let projection = db.read(move |snapshot| dead_letter::at_fault(snapshot, id));
        let projection = projection.await.map_err(|error| refusal(&error.into()))?;
        let tool = projection.and_then(|name| tools.all().iter().find(|tool| tool.name == name));
        let Some(tool) = tool else {
            answer.skipped += 1;
            continue;
        };
        match (tool.discard)(id, reason.clone()).await {
            Ok(DiscardAnswer { retried, .. }) => {
                answer.discarded += 1;
                answer.applied += retried.applied;
                answer.failed += retried.failed.len() as u64;
            }
            // Somebody else has given it up meanwhile.
            Err(Refusal::Unknown(_)) => answer.skipped += 1,
            Err(error) => return Err(refusal(&error)),
        }
    }
    let left = db.read(dead_letter::left).await;
    answer.left = left.map_err(|error| refusal(&error.into()))?;
    Ok(answer)
}

/// The projection whose letter `id` is.
async fn tool_of(db: &Database, tools: &Tools, id: u64) -> Result<Tool, Error> {
    let projection = find(db, id).await?.0.projection;
    let tool = tools.all().iter().find(|tool| tool.name == projection);
    tool.cloned().ok_or_else(|| {
        refuse(
            404,
            format!("{} has no projection {projection}", db.owner()),
        )
    })
}

fn refusal(error: &Refusal) -> Error {
    let code = match error {
        Refusal::Unknown(_) | Refusal::UnknownLane(_) => 404,
        Refusal::Waits { .. } | Refusal::TakeOver => 409,
        Refusal::NoReason => 400,
        Refusal::Database(_) | Refusal::SourceAway { .. } | Refusal::Write(_) => 503,
    };
    let status = match error {
        Refusal::Database(cause) => format!("{error}: {cause}"),
        _ => error.to_string(),
    };
    refuse(code, status)
}
