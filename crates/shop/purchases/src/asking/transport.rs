//! The transport of a question to a source: HTTP or the bus.

use tokio::time::Instant;
use uuid::Uuid;

use super::composition::{self, Composition};
use super::failure::Answer;
use super::gathered::{Orders, Product};
use super::request_reply::{self, RequestReply};

/// The transport of questions. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) enum Transport {
    Http(Composition),
    Bus(RequestReply),
}

impl Transport {
    /// Whether the user exists.
    pub(super) async fn is_known(&self, user: Uuid, deadline: Instant) -> Answer<bool> {
        match self {
            Self::Http(composition) => composition.is_known(user, deadline).await,
            Self::Bus(request_reply) => request_reply.is_known(user, deadline).await,
        }
    }

    /// A page of a user's orders: those after the order `start_after`, or the first page.
    pub(super) async fn orders(
        &self,
        user: Uuid,
        start_after: Option<Uuid>,
        deadline: Instant,
    ) -> Answer<Orders> {
        match self {
            Self::Http(composition) => composition.orders(user, start_after, deadline).await,
            Self::Bus(request_reply) => request_reply.orders(user, start_after, deadline).await,
        }
    }

    /// The titles and images of products, at most [`products_max`](Self::products_max) of them.
    pub(super) async fn products(&self, ids: Vec<Uuid>, deadline: Instant) -> Answer<Vec<Product>> {
        match self {
            Self::Http(composition) => composition.products(&ids, deadline).await,
            Self::Bus(request_reply) => request_reply.products(&ids, deadline).await,
        }
    }

    /// The most products per question.
    pub(super) fn products_max(&self) -> usize {
        match self {
            Self::Http(_) => composition::PRODUCTS_MAX,
            Self::Bus(_) => request_reply::PRODUCTS_MAX,
        }
    }
}
