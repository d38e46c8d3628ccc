//! The question that other services may ask over the bus: does a user exist?

use headwater::database::Snapshot;
use headwater::request_reply::Refusal;
use shop_events::{UserAnswered, UserAsked};

use crate::store;

pub(crate) fn user(
    snapshot: &Snapshot,
    asked: &UserAsked,
    _room: usize,
) -> Result<UserAnswered, Refusal> {
    let id = shop_events::id(&asked.user_id)?;
    Ok(UserAnswered {
        user_id: id.to_string(),
        is_known: store::find(snapshot, snapshot.keys(), id)?.is_some(),
    })
}
