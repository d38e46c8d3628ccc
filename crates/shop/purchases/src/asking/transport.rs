//! By which way the sources are asked.
//!
//! Each question gives what was said, and what that is as of.

use headwater::Positions;
use tokio::time::Instant;
use uuid::Uuid;

use super::failure::Why;
use super::gathered::{Orders, Product};
use super::{Composition, Inquiry, composition, inquiry};

/// By which way the sources are asked. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) enum Way {
    Http(Composition),
    Bus(Inquiry),
}

impl Way {
    /// Whether there is a user.
    pub(super) async fn is_known(
        &self,
        user: Uuid,
        deadline: Instant,
    ) -> Result<(bool, Positions), Why> {
        match self {
            Self::Http(composition) => composition.is_known(user, deadline).await,
            Self::Bus(inquiry) => inquiry.is_known(user, deadline).await,
        }
    }

    /// A page of a user's orders, those after the order `start_after`; `None` is the first page.
    pub(super) async fn orders(
        &self,
        user: Uuid,
        start_after: Option<Uuid>,
        deadline: Instant,
    ) -> Result<(Orders, Positions), Why> {
        match self {
            Self::Http(composition) => composition.orders(user, start_after, deadline).await,
            Self::Bus(inquiry) => inquiry.orders(user, start_after, deadline).await,
        }
    }

    /// What products look like, at most [`products_max`](Self::products_max) of them.
    pub(super) async fn products(
        &self,
        ids: Vec<Uuid>,
        deadline: Instant,
    ) -> Result<(Vec<Product>, Positions), Why> {
        match self {
            Self::Http(composition) => composition.products(&ids, deadline).await,
            Self::Bus(inquiry) => inquiry.products(&ids, deadline).await,
        }
    }

    /// How many products one question may be about.
    pub(super) fn products_max(&self) -> usize {
        match self {
            Self::Http(_) => composition::PRODUCTS_MAX,
            Self::Bus(_) => inquiry::PRODUCTS_MAX,
        }
    }
}
