//! The events of the shop: types generated from `proto/`, each with its subject and key.
//!
//! [`inquiry`] has the questions that services may ask each other over the bus.
//!
//! The services share nothing else. `tests/contract.txt` lists every subject and field number; a
//! test allows only additions.

#![warn(missing_docs)]

use std::time::{Duration, SystemTime};

use headwater_event::schema::{Kind, Schema};
use headwater_event::{Envelope, Event, Undecodable};
use uuid::Uuid;

#[expect(
    missing_docs,
    unreachable_pub,
    clippy::doc_markdown,
    reason = "generated; the documentation is in proto/"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/mod.rs"));
}

pub mod inquiry;

pub use generated::shop::orders::v1::OrderPlaced;
pub use generated::shop::products::v1::{ProductCreated, ProductUpdated};
pub use generated::shop::users::v1::{UserErased, UserRegistered};
pub use prost_types::Timestamp;

/// The compiled `proto/`, a serialized `FileDescriptorSet`: decodes any event without these types.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Every event's subject (without the partition), its protobuf message and its key. Never rename.
pub const CATALOGUE: [Kind; 5] = [
    Kind {
        subject: UserRegistered::SUBJECT,
        message: "shop.users.v1.UserRegistered",
        key: "user_id",
    },
    Kind {
        subject: UserErased::SUBJECT,
        message: "shop.users.v1.UserErased",
        key: "user_id",
    },
    Kind {
        subject: ProductCreated::SUBJECT,
        message: "shop.products.v1.ProductCreated",
        key: "product_id",
    },
    Kind {
        subject: ProductUpdated::SUBJECT,
        message: "shop.products.v1.ProductUpdated",
        key: "product_id",
    },
    Kind {
        subject: OrderPlaced::SUBJECT,
        message: "shop.orders.v1.OrderPlaced",
        key: "user_id",
    },
];

/// The schema of the whole shop, for `Service::describe`: each source takes its own part.
pub const SCHEMA: Schema = Schema {
    events: &CATALOGUE,
    questions: &inquiry::CATALOGUE,
    descriptors: DESCRIPTORS,
};

impl Event for UserRegistered {
    const SUBJECT: &'static str = "users.v1.registered";

    fn key(&self) -> &str {
        &self.user_id
    }
}

impl Event for UserErased {
    const SUBJECT: &'static str = "users.v1.erased";

    fn key(&self) -> &str {
        &self.user_id
    }
}

impl Event for ProductCreated {
    const SUBJECT: &'static str = "products.v1.created";

    fn key(&self) -> &str {
        &self.product_id
    }
}

impl Event for ProductUpdated {
    const SUBJECT: &'static str = "products.v1.updated";

    fn key(&self) -> &str {
        &self.product_id
    }
}

impl Event for OrderPlaced {
    const SUBJECT: &'static str = "orders.v1.placed";

    fn key(&self) -> &str {
        &self.user_id
    }
}

/// The key of any event of the shop, for `Projection::key`. `None` if the event is of an unknown
/// kind or does not decode.
pub fn key(event: &Envelope) -> Option<String> {
    fn of<E: Event>(event: &Envelope) -> Option<String> {
        event.decode::<E>().ok().map(|event| event.key().to_owned())
    }
    match event.kind() {
        UserRegistered::SUBJECT => of::<UserRegistered>(event),
        UserErased::SUBJECT => of::<UserErased>(event),
        ProductCreated::SUBJECT => of::<ProductCreated>(event),
        ProductUpdated::SUBJECT => of::<ProductUpdated>(event),
        OrderPlaced::SUBJECT => of::<OrderPlaced>(event),
        _ => None,
    }
}

/// Parses an id of an event.
///
/// # Errors
/// The text is not a UUID: the event's publisher made a mistake.
pub fn id(text: &str) -> Result<Uuid, Undecodable> {
    text.parse()
        .map_err(|_| Undecodable(format!("`{text}` is not a UUID")))
}

/// Milliseconds since 1970 as a protobuf timestamp, whose text is RFC 3339. Earlier times become 0.
pub fn timestamp(ms: i64) -> Timestamp {
    let since_1970 = Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    Timestamp::from(SystemTime::UNIX_EPOCH + since_1970)
}

/// The inverse of [`timestamp`]: milliseconds since 1970, rounded down.
pub fn millis(timestamp: &Timestamp) -> i64 {
    timestamp
        .seconds
        .saturating_mul(1000)
        .saturating_add(i64::from(timestamp.nanos) / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_milliseconds_here_and_rfc_3339_as_text() {
        assert_eq!(timestamp(0).to_string(), "1970-01-01T00:00:00Z");
        let then = timestamp(1_700_000_000_123);
        assert_eq!(then.to_string(), "2023-11-14T22:13:20.123Z");
        assert_eq!(millis(&then), 1_700_000_000_123);
    }
}
