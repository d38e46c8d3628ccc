//! The shop's events, as its sources would create them.

use headwater::{Envelope, Event, subject_of};
use shop_events::{OrderPlaced, ProductCreated, UserRegistered};
use uuid::Uuid;

use crate::shop::{image, title};

/// The time of the first event, in milliseconds since 1970.
pub(crate) const FIRST_MS: i64 = 1_700_000_000_000;

/// A user registered.
pub(crate) fn registered(id: Uuid, at_ms: i64) -> UserRegistered {
    UserRegistered {
        user_id: id.to_string(),
        registered_at: Some(shop_events::timestamp(at_ms)),
    }
}

/// A product was created.
pub(crate) fn created(id: Uuid) -> ProductCreated {
    ProductCreated {
        product_id: id.to_string(),
        title: title(id),
        image: image(id),
    }
}

/// A user placed an order.
pub(crate) fn placed(
    id: Uuid,
    user: Uuid,
    products: impl IntoIterator<Item = Uuid>,
    at_ms: i64,
) -> OrderPlaced {
    OrderPlaced {
        order_id: id.to_string(),
        user_id: user.to_string(),
        product_ids: products.into_iter().map(|id| id.to_string()).collect(),
        placed_at: Some(shop_events::timestamp(at_ms)),
    }
}

/// An event as the outbox would deliver it.
pub(crate) fn envelope<E: Event>(source: &str, event: &E) -> Envelope {
    Envelope {
        source: source.into(),
        subject: subject_of(event).into(),
        id: None,
        sequence: None,
        payload: event.encode_to_vec().into(),
        traceparent: None,
    }
}
