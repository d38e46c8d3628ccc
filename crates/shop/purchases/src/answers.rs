//! The interface of the three styles.

use headwater::Positions;
use headwater::http::Problem;
use uuid::Uuid;

use crate::asking::Asking;
use crate::purchase::{Found, Part, Shopper};
use crate::replica::Replica;

/// Where answers come from. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) enum Answers {
    /// From a copy of our own.
    Replica(Box<Replica>),
    /// From the sources, which are asked for each answer: composition and inquiry.
    Asking(Asking),
}

impl Answers {
    /// A part of what `user` ordered, as of `after` at least. `None` if there is no such user.
    pub(crate) async fn purchases(
        &self,
        user: Uuid,
        part: Part,
        after: &Positions,
    ) -> Result<Option<Found>, Problem> {
        match self {
            Self::Replica(replica) => replica.purchases(user, part, after).await,
            Self::Asking(asking) => asking.purchases(user, part, after).await,
        }
    }

    /// The `limit` newest users, and the position of the answer; `None` in a style that cannot
    /// list users.
    pub(crate) async fn shoppers(
        &self,
        limit: u32,
    ) -> Result<Option<(Vec<Shopper>, Positions)>, Problem> {
        match self {
            Self::Replica(replica) => replica.shoppers(limit).await.map(Some),
            Self::Asking(_) => Ok(None),
        }
    }
}
