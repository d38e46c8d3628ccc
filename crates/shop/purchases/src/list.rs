//! The lists that the pages show: users, and products. The JSON API has none of them.

use headwater::Positions;
use uuid::Uuid;

/// A user, and what the user ordered, in two numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shopper {
    pub(crate) id: Uuid,
    /// The number of different products.
    pub(crate) products: u64,
    /// Milliseconds since 1970; `None` without an order.
    pub(crate) last_ordered_at: Option<i64>,
}

/// Where a page of the list of users begins: users with the newest orders first, then the others,
/// the newest user first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    Start,
    /// After a user whose newest order is of this time, in milliseconds since 1970.
    Ordered(i64, Uuid),
    /// After this user, among the others.
    Others(Uuid),
}

/// A page of a list, as of some positions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed<T, F = Uuid> {
    pub(crate) items: Vec<T>,
    /// Where the next page begins.
    pub(crate) next: Option<F>,
    pub(crate) as_of: Positions,
}

/// A product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Product {
    pub(crate) id: Uuid,
    /// Title and image; `None` while the product is known from an order only.
    pub(crate) look: Option<(String, String)>,
}

/// Who ordered a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sales {
    pub(crate) users: u64,
    /// Milliseconds since 1970.
    pub(crate) last_ordered_at: Option<i64>,
    /// If only the newest users were looked at: how many.
    pub(crate) of_newest: Option<u64>,
}
