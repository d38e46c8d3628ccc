//! `dead-letters.*`: events that a projection could not apply, retried or discarded.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use headwater_nats::control::{
    DISCARD_MAX, DiscardAnswer, DiscardManyAnswer, InOutbox, Letter, ListRequest, RetryAnswer,
    RetryRequest, ShowRequest,
};
use headwater_projection::dead_letter::letters::Table;
use headwater_projection::dead_letter::retry::Which;
use headwater_projection::dead_letter::{self, Refusal};
use headwater_store::Database;

use crate::operator::registry::{ProjectionHandle, ProjectionRegistry};
use crate::operator::reply::{Error, fit, json, refuse, too_large};

/// The most letters per answer, some 600 bytes each.
const LETTERS_MAX: usize = 1000;

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
            format!("the dead letter {first}: {why}; continue with `after` {first}"),
        )
    })
}

/// One letter with its payload or a part of it, and the event at its position in the source's
/// outbox, as JSON of at most `bytes_max` bytes.
pub(super) async fn show(
    db: &Database,
    registry: &ProjectionRegistry,
    ShowRequest { id, offset }: ShowRequest,
    bytes_max: usize,
) -> Result<Vec<u8>, Error> {
    let (mut letter, payload) = find(db, id).await?;
    let handle = registry
        .all()
        .iter()
        .find(|handle| handle.name == letter.projection);
    if let Some(handle) = handle {
        letter.outbox = dead_letter::in_outbox(&handle.bus, &letter, &payload).await;
    }
    if let Some(InOutbox::Other { payload, .. }) = &mut letter.outbox
        && payload
            .as_ref()
            .is_some_and(|payload| payload.len() > bytes_max / 4)
    {
        *payload = None;
    }
    let rest = json(&letter)?.len() + r#","payload":"""#.len();
    // Base64 makes 4 bytes of 3.
    let room = bytes_max.saturating_sub(rest) / 4 * 3;
    let wanted = payload.get(offset.unwrap_or(0)..).unwrap_or_default();
    if wanted.len() > room && (offset.is_none() || room == 0) {
        let bytes = rest + wanted.len().div_ceil(3) * 4;
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

/// Retries the letters that `which` selects; with an id, in the letter's own projection only.
pub(super) async fn retry(
    db: &Database,
    registry: &ProjectionRegistry,
    which: RetryRequest,
) -> Result<RetryAnswer, Error> {
    let handles = match which {
        RetryRequest::Id(id) => vec![handle_of(db, registry, id).await?],
        _ => registry.all().to_vec(),
    };
    if handles.is_empty() {
        return Err(refuse(404, format!("{} has no projection", db.owner())));
    }
    let mut sum = RetryAnswer::default();
    let mut refused = None;
    let mut is_found = false;
    for handle in handles {
        match (handle.retry)(Which::Request(which.clone())).await {
            Ok(done) => {
                is_found = true;
                sum.applied += done.applied;
                sum.left = done.left;
                sum.failed_total += done.failed.len() as u64;
                sum.failed.extend(done.failed);
            }
            // Another projection may have that blocked key.
            Err(error @ Refusal::UnknownLane(_)) => refused = Some(error),
            Err(error) => return Err(refusal(&error)),
        }
    }
    match refused {
        Some(error) if !is_found => Err(refusal(&error)),
        _ => Ok(sum),
    }
}

pub(super) async fn discard(
    db: &Database,
    registry: &ProjectionRegistry,
    id: u64,
    reason: String,
) -> Result<DiscardAnswer, Error> {
    let handle = handle_of(db, registry, id).await?;
    let discarded = (handle.discard)(id, reason).await;
    let mut answer = discarded.map_err(|error| refusal(&error))?;
    answer.retried.failed_total = answer.retried.failed.len() as u64;
    Ok(answer)
}

/// Discards several letters, one after another, each in its own transaction.
pub(super) async fn discard_many(
    db: &Database,
    registry: &ProjectionRegistry,
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
        let handle =
            projection.and_then(|name| registry.all().iter().find(|handle| handle.name == name));
        let Some(handle) = handle else {
            answer.skipped += 1;
            continue;
        };
        match (handle.discard)(id, reason.clone()).await {
            Ok(DiscardAnswer { retried, .. }) => {
                answer.discarded += 1;
                answer.applied += retried.applied;
                answer.failed += retried.failed.len() as u64;
            }
            // Another request has discarded it meanwhile.
            Err(Refusal::Unknown(_)) => answer.skipped += 1,
            Err(error) => return Err(refusal(&error)),
        }
    }
    let left = db.read(dead_letter::left).await;
    answer.left = left.map_err(|error| refusal(&error.into()))?;
    Ok(answer)
}

/// The projection that the letter `id` belongs to.
async fn handle_of(
    db: &Database,
    registry: &ProjectionRegistry,
    id: u64,
) -> Result<ProjectionHandle, Error> {
    let projection = find(db, id).await?.0.projection;
    let handle = registry
        .all()
        .iter()
        .find(|handle| handle.name == projection);
    handle.cloned().ok_or_else(|| {
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
        _ => 503,
    };
    let status = match error {
        Refusal::Database(cause) => format!("{error}: {cause}"),
        _ => error.to_string(),
    };
    refuse(code, status)
}
