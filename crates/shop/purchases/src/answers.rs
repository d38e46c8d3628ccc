//! The common interface of the three styles.

use headwater::Positions;
use headwater::http::Problem;
use uuid::Uuid;

use crate::asking::Asking;
use crate::purchase::{Found, Part};
use crate::replica::Replica;

/// The source of the answers. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) enum Answers {
    /// The service's own copy.
    Replica(Box<Replica>),
    /// The sources, asked for each answer: composition and request-reply.
    Asking(Asking),
}

impl Answers {
    /// A part of what `user` ordered, at least as of `after`. `None` if there is no such user.
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

    /// The copy, which alone can list users and products; `None` in the other styles.
    pub(crate) fn replica(&self) -> Option<&Replica> {
        match self {
            Self::Replica(replica) => Some(replica),
            Self::Asking(_) => None,
        }
    }
}
