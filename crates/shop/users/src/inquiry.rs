//! The questions that other services may ask over the bus: does a user exist, what are users called,
//! and who is called so?

use headwater::database::Snapshot;
use headwater::request_reply::Refusal;
use sea_orm::DbErr;
use shop_events::inquiry::NAMES_MAX;
use shop_events::{
    NamedUser, UserAnswered, UserAsked, UserNamesAnswered, UserNamesAsked, UserSearchAnswered,
    UserSearchAsked, search,
};
use uuid::Uuid;

use crate::names::Names;
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

pub(crate) fn names(
    snapshot: &Snapshot,
    asked: &UserNamesAsked,
    _room: usize,
) -> Result<UserNamesAnswered, Refusal> {
    if asked.user_ids.len() > NAMES_MAX {
        let why = format!("ask for at most {NAMES_MAX} names at once");
        return Err(Refusal::Malformed(why));
    }
    let mut users = Vec::with_capacity(asked.user_ids.len());
    for id in &asked.user_ids {
        users.extend(named(snapshot, shop_events::id(id)?)?);
    }
    Ok(UserNamesAnswered { users })
}

pub(crate) fn search(
    names: &Names,
    snapshot: &Snapshot,
    asked: &UserSearchAsked,
) -> Result<UserSearchAnswered, Refusal> {
    let words = search::words(&asked.text);
    let words = words.map_err(|why| Refusal::Malformed(why.to_string()))?;
    let limit = match usize::try_from(asked.limit) {
        Ok(limit @ 1..=NAMES_MAX) => limit,
        _ => NAMES_MAX,
    };
    let mut start_after = match &*asked.start_after {
        "" => None,
        id => Some(shop_events::id(id)?),
    };
    // If it becomes complete in between, a user may be missing whom it has by now.
    let is_complete = names.is_complete();
    let mut users = Vec::new();
    let next = loop {
        let wanted = limit - users.len() + 1;
        let found = names.find(&words, start_after, wanted);
        let found = found.map_err(|error| DbErr::Custom(format!("search names: {error}")))?;
        let Some(found) = found else {
            return Ok(UserSearchAnswered {
                is_complete,
                is_too_broad: true,
                ..UserSearchAnswered::default()
            });
        };
        let is_last = found.len() < wanted;
        // A user who was erased, or is not registered after all, leaves room for others.
        for id in found {
            if users.len() == limit {
                break;
            }
            users.extend(named(snapshot, id)?);
            start_after = Some(id);
        }
        if is_last || users.len() == limit {
            break start_after.filter(|_| !is_last);
        }
    };
    Ok(UserSearchAnswered {
        users,
        next: next.map(|id| id.to_string()).unwrap_or_default(),
        is_complete,
        is_too_broad: false,
    })
}

/// The user with the name; `None` if there is no such user.
fn named(snapshot: &Snapshot, id: Uuid) -> Result<Option<NamedUser>, DbErr> {
    let found = store::find(snapshot, snapshot.keys(), id)?;
    Ok(found.map(|found| NamedUser {
        user_id: id.to_string(),
        name: found.person.name,
    }))
}
