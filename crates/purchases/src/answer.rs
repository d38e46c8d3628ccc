//! What all styles answer, and where their answers come from.

use headwater::Positions;
use headwater::http::Problem;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::asking::Asking;
use crate::replica::{Replica, Shopper};

/// A product that a user ordered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Purchase {
    pub(crate) product_id: Uuid,
    /// `null` for the moment between the news of an order and the news of its product.
    #[schema(example = "Enamel mug, river green")]
    pub(crate) title: Option<String>,
    /// An http(s) URL, or a path of the service `products`.
    #[schema(example = "https://example.com/mug.webp")]
    pub(crate) image: Option<String>,
    /// When the user ordered it for the first time, RFC 3339.
    #[schema(example = "2026-11-22T10:30:00Z")]
    pub(crate) first_ordered_at: String,
}

/// All that a user ever ordered, as of some positions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct UserPurchases {
    pub(crate) user_id: Uuid,
    /// Each product once, those ordered first first.
    pub(crate) purchases: Vec<Purchase>,
    /// Up to where each source's events are in it without one missing.
    #[schema(value_type = std::collections::BTreeMap<String, u64>)]
    pub(crate) as_of: Positions,
    /// The first event of a source that could not be applied and waits for an operator; some
    /// later ones may be in the answer. Left out where there is none.
    #[serde(skip_serializing_if = "Positions::is_empty")]
    #[schema(value_type = Option<std::collections::BTreeMap<String, u64>>)]
    pub(crate) parked: Positions,
}

/// Where answers come from. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) enum Answers {
    /// From a copy of our own.
    Replica(Replica),
    /// From the sources, which are asked for each of them.
    Asking(Asking),
}

impl Answers {
    /// What `user` ordered, as of `after` at least. `None` if there is no such user.
    pub(crate) async fn purchases(
        &self,
        user: Uuid,
        after: &Positions,
    ) -> Result<Option<UserPurchases>, Problem> {
        match self {
            Self::Replica(replica) => replica.purchases(user, after).await,
            Self::Asking(asking) => asking.purchases(user, after).await,
        }
    }

    /// The `limit` users heard of last, and as of when; `None` where nobody is heard of.
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
