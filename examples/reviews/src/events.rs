//! The events. Services of the shop have theirs in `crates/shop/shop-events`.

use headwater::Event;
use headwater::schema::{Kind, Schema};

#[expect(
    unreachable_pub,
    clippy::doc_markdown,
    reason = "generated; the documentation is in proto/"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/mod.rs"));
}

pub(crate) use generated::shop::reviews::v1::ReviewWritten;

/// The event schema, published for readers.
pub(crate) const SCHEMA: Schema = Schema {
    events: &[Kind {
        subject: ReviewWritten::SUBJECT,
        message: "shop.reviews.v1.ReviewWritten",
        key: "product_id",
    }],
    questions: &[],
    descriptors: include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin")),
};

impl Event for ReviewWritten {
    const SUBJECT: &'static str = "reviews.v1.written"; // never rename

    fn key(&self) -> &str {
        &self.product_id
    }
}
