//! The common interface of the three styles.

use headwater::Positions;
use headwater::http::Problem;
use uuid::Uuid;

use crate::asking::Asking;
use crate::list::{Product, Sales};
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

    /// A product, who ordered it as far as that is known, and as of when; `None` if there is no such
    /// product.
    pub(crate) async fn product(
        &self,
        product: Uuid,
    ) -> Result<Option<(Product, Option<Sales>, Positions)>, Problem> {
        match self {
            Self::Replica(replica) => {
                let found = replica.product(product).await?;
                Ok(found.map(|(product, sales, as_of)| (product, Some(sales), as_of)))
            }
            Self::Asking(asking) => {
                let found = asking.product(product).await?;
                Ok(found.map(|(product, as_of)| (product, None, as_of)))
            }
        }
    }

    /// Waits until the copy includes `position`; `false` at once in a style that has no copy.
    pub(crate) async fn reach(&self, position: &Positions) -> Result<bool, Problem> {
        match self {
            Self::Replica(replica) => replica.reach(position).await.map(|()| true),
            Self::Asking(_) => Ok(false),
        }
    }
}
