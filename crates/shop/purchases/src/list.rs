//! The lists that the pages show: users, and products. The JSON API has none of them.

use std::fmt;

use headwater::Positions;
use uuid::Uuid;

/// A user's products are counted up to this number: counting reads each of them.
pub(crate) const COUNTED_MAX: u64 = 10_000;

/// A user, and what the user ordered, in two numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shopper {
    pub(crate) id: Uuid,
    pub(crate) products: Count,
    /// Milliseconds since 1970; `None` without an order. Also `None` if the user has more products
    /// than are counted, and is none of those with the newest orders.
    pub(crate) last_ordered_at: Option<i64>,
}

/// A number of different products; more than [`COUNTED_MAX`] stands for any such number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count(pub(crate) u64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 > COUNTED_MAX {
            f.write_str("more than ")?;
        }
        match self.0.min(COUNTED_MAX) {
            few @ ..1_000 => write!(f, "{few}"),
            many => write!(f, "{},{:03}", many / 1_000, many % 1_000),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_exact_as_far_as_is_counted() {
        let shown = [0, 999, 1_050, 10_000, 10_001].map(|count| Count(count).to_string());
        assert_eq!(shown, ["0", "999", "1,050", "10,000", "more than 10,000"]);
    }
}
