//! What all styles answer, and where their answers come from.

use headwater::Positions;
use headwater::http::Problem;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::asking::Asking;
use crate::part::{Cursor, Part};
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

impl Purchase {
    /// `look`: title and image, where they are known.
    pub(crate) fn new(place: Cursor, look: Option<(String, String)>) -> Self {
        let (title, image) = look.unzip();
        Self {
            product_id: place.product_id,
            title,
            image,
            first_ordered_at: shop_events::timestamp(place.first_ordered_at).to_string(),
        }
    }
}

/// A part of what a user ever ordered, as of some positions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Each product once, with its place in the list.
    pub(crate) purchases: Vec<(Cursor, Purchase)>,
    /// Whether there are others after these.
    pub(crate) more: bool,
    pub(crate) as_of: Positions,
    /// The first event of each source that could not be applied.
    pub(crate) parked: Positions,
}

/// Where answers come from. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) enum Answers {
    /// From a copy of our own.
    Replica(Box<Replica>),
    /// From the sources, which are asked for each of them.
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
