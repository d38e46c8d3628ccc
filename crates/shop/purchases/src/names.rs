//! What users are called: asked for each page, shown, and forgotten. No name is stored here, in no
//! file and in no cache, so an erased user has no name on the next page.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::join_all;
use headwater::request_reply::{NoAnswer, RequestClient};
use shop_events::inquiry::NAMES_MAX;
use shop_events::{
    NamedUser, UserNamesAnswered, UserNamesAsked, UserSearchAnswered, UserSearchAsked,
};
use tokio::time::Instant;
use uuid::Uuid;

use crate::asking::Composition;

/// How long a page waits for names: it comes without them rather than late.
const WITHIN: Duration = Duration::from_millis(300);

/// Asks for names. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) enum Names {
    /// Styles replica and request-reply.
    Bus(RequestClient),
    /// Style composition: one user after another, and no search.
    Http(Composition),
}

/// The names of some users, and why there are none of others.
#[derive(Debug, Default)]
pub(crate) struct Known {
    names: HashMap<Uuid, String>,
    /// In words.
    pub(crate) missing: Option<String>,
}

/// A page of the users whose names have some words.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) users: Vec<(Uuid, String)>,
    /// The user after whom the next page begins.
    pub(crate) next: Option<Uuid>,
    /// Why users are missing, in words.
    pub(crate) missing: Option<String>,
}

impl Known {
    /// The name of a user; without one, the end of the id, which differs most.
    pub(crate) fn of(&self, user: Uuid) -> String {
        self.get(user).unwrap_or_else(|| short(user))
    }

    /// The name of a user, if it is known.
    pub(crate) fn get(&self, user: Uuid) -> Option<String> {
        self.names.get(&user).cloned()
    }

    /// Adds names.
    pub(crate) fn extend(&mut self, users: impl IntoIterator<Item = (Uuid, String)>) {
        self.names.extend(users);
    }
}

/// The end of an id.
pub(crate) fn short(id: Uuid) -> String {
    let id = id.to_string();
    format!("…{}", &id[id.len() - 8..])
}

impl Names {
    /// What `users` are called.
    pub(crate) async fn of(&self, users: &[Uuid]) -> Known {
        let deadline = Instant::now() + WITHIN;
        let mut known = Known::default();
        match self {
            Self::Bus(client) => {
                let questions = users.chunks(NAMES_MAX).map(async |users| {
                    let user_ids = users.iter().map(Uuid::to_string).collect();
                    let question = UserNamesAsked { user_ids };
                    client
                        .ask::<UserNamesAnswered>(UserNamesAsked::SUBJECT, &question, deadline)
                        .await
                });
                for answer in join_all(questions).await {
                    match answer {
                        Ok(answer) => known.extend(named(answer.body.users)),
                        Err(why) => known.missing = Some(missing(&in_words(&why))),
                    }
                }
            }
            Self::Http(composition) => {
                let questions = users.iter().map(async |user| {
                    let name = composition.name(*user, deadline).await;
                    (*user, name)
                });
                for (user, answer) in join_all(questions).await {
                    match answer {
                        Ok(name) => known.extend(name.map(|name| (user, name))),
                        Err(why) => known.missing = Some(missing(&why.to_string())),
                    }
                }
            }
        }
        known
    }

    /// At most `limit` users whose names have the words of `text`, the newest first, after the user
    /// `start_after`. `None` in a style that cannot search names.
    pub(crate) async fn find(
        &self,
        text: &str,
        start_after: Option<Uuid>,
        limit: usize,
    ) -> Option<Found> {
        let Self::Bus(client) = self else {
            return None;
        };
        let question = UserSearchAsked {
            text: text.to_owned(),
            start_after: start_after.map(|id| id.to_string()).unwrap_or_default(),
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
        };
        let deadline = Instant::now() + WITHIN;
        let answer =
            client.ask::<UserSearchAnswered>(UserSearchAsked::SUBJECT, &question, deadline);
        Some(match answer.await {
            Ok(answer) => Found {
                next: answer.body.next.parse().ok(),
                missing: doubt(&answer.body).map(str::to_owned),
                users: named(answer.body.users).collect(),
            },
            Err(why) => Found {
                missing: Some(format!(
                    "Names cannot be searched: the service users {}.",
                    in_words(&why)
                )),
                ..Found::default()
            },
        })
    }
}

/// Why an answer may lack users, in words.
fn doubt(answer: &UserSearchAnswered) -> Option<&'static str> {
    if answer.is_too_broad {
        return Some(
            "Too many names have these letters to look through them: type more of a name.",
        );
    }
    (!answer.is_complete).then_some(
        "The service users has just started and still reads its names: some may be missing. Try \
         again in a moment.",
    )
}

fn named(users: Vec<NamedUser>) -> impl Iterator<Item = (Uuid, String)> {
    let named = |user: NamedUser| Some((user.user_id.parse().ok()?, user.name));
    users.into_iter().filter_map(named)
}

fn missing(why: &str) -> String {
    format!("Names are missing: the service users {why}. The end of an id stands for its name.")
}

fn in_words(why: &NoAnswer) -> String {
    match why {
        NoAnswer::NoResponders => "is away".to_owned(),
        NoAnswer::Late => "did not answer in time".to_owned(),
        other => format!("was not reached ({other})"),
    }
}
