//! A review, and the rules for writing one.

use headwater::prelude::*;
use serde::{Deserialize, Serialize};

use crate::events::ReviewWritten;

const STARS_MAX: u32 = 5;

/// A review.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Review {
    pub(crate) id: Uuid,
    pub(crate) product_id: Uuid,
    pub(crate) stars: u32,
}

/// A request to write a review.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WriteReview {
    /// The review's id, if the client wants to choose it.
    pub(crate) id: Option<Uuid>,
    pub(crate) product_id: Uuid,
    /// 1 to 5.
    #[schema(minimum = 1, maximum = 5)]
    pub(crate) stars: u32,
}

/// Why a review is rejected.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Rejection {
    #[error("there is a review {0} from another request; leave the id out for a new review")]
    IdTaken(Uuid),
    #[error("must be 1 to {STARS_MAX}")]
    Stars,
}

impl WriteReview {
    pub(crate) fn check(&self) -> Result<(), Rejection> {
        let fits = (1..=STARS_MAX).contains(&self.stars);
        fits.then_some(()).ok_or(Rejection::Stars)
    }
}

impl Review {
    pub(crate) fn written_event(&self) -> ReviewWritten {
        ReviewWritten {
            review_id: self.id.to_string(),
            product_id: self.product_id.to_string(),
            stars: self.stars,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_are_one_to_five() {
        let write = |stars| WriteReview {
            id: None,
            product_id: Uuid::nil(),
            stars,
        };
        let taken: Vec<u32> = (0..=6)
            .filter(|stars| write(*stars).check().is_ok())
            .collect();
        assert_eq!(taken, [1, 2, 3, 4, 5]);
    }
}
