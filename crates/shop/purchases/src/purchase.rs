//! What a user ordered, in all styles: the products, their order, and pages of the list.

use std::fmt;
use std::str::FromStr;

use headwater::Positions;
use headwater::http::Limit;
use serde::{Deserialize, Deserializer, Serialize, de};
use utoipa::ToSchema;
use uuid::Uuid;

/// The page size that a client may ask for: 1 to 1,000, by default 100.
pub(crate) type PurchaseLimit = Limit<100, 1000>;

/// A product that a user ordered.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, ToSchema)]
pub(crate) struct Purchase {
    pub(crate) product_id: Uuid,
    /// `null` while the order is known here and the product is not yet.
    #[schema(example = "Enamel mug, river green")]
    pub(crate) title: Option<String>,
    /// An http(s) URL, or a path of the service `products`.
    #[schema(example = "https://example.com/mug.webp")]
    pub(crate) image: Option<String>,
    /// When the user first ordered the product, RFC 3339.
    #[schema(example = "2026-11-22T10:30:00Z")]
    pub(crate) first_ordered_at: String,
    /// When the user last ordered the product, RFC 3339.
    #[schema(example = "2026-11-25T08:15:00Z")]
    pub(crate) last_ordered_at: String,
    /// How many orders of the user have the product.
    #[schema(example = 2)]
    pub(crate) times: u64,
}

impl Purchase {
    /// `look`: title and image, if they are known.
    pub(crate) fn new(cursor: Cursor, again: Again, look: Option<(String, String)>) -> Self {
        let (title, image) = look.unzip();
        let first_ordered_at = shop_events::timestamp(cursor.first_ordered_at).to_string();
        let last_ordered_at = if again.span == 0 {
            first_ordered_at.clone()
        } else {
            let last = cursor.first_ordered_at.saturating_add(again.span);
            shop_events::timestamp(last).to_string()
        };
        Self {
            product_id: cursor.product_id,
            title,
            image,
            first_ordered_at,
            last_ordered_at,
            times: again.times,
        }
    }
}

/// The later orders of a purchase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Again {
    /// Milliseconds from the first order to the last; 0 if there is one.
    pub(crate) span: i64,
    /// The number of orders, with the first.
    pub(crate) times: u64,
}

/// A part of what a user ever ordered, as of some positions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Each product once, with its cursor.
    pub(crate) purchases: Vec<(Cursor, Purchase)>,
    /// Whether more purchases follow.
    pub(crate) more: bool,
    /// The first product of the list from its newest end, if [`Part::with_newest`].
    pub(crate) newest: Option<Uuid>,
    pub(crate) as_of: Positions,
    /// The first dead letter of each source.
    pub(crate) parked: Positions,
}

/// The place of a purchase in the list, which is sorted by the time of the product's first order,
/// then by the product's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cursor {
    /// Milliseconds since 1970.
    pub(crate) first_ordered_at: i64,
    pub(crate) product_id: Uuid,
}

/// A part of the list: the purchases after `from` in the direction of `order`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) limit: usize,
    /// Exclusive; `None` is the start of the list.
    pub(crate) from: Option<Cursor>,
    pub(crate) order: Order,
    /// Whether to find [`Found::newest`] too. Only the copy does.
    pub(crate) with_newest: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    OldestFirst,
    NewestFirst,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:016x}{}",
            self.first_ordered_at,
            self.product_id.simple()
        )
    }
}

/// A text that is not a cursor.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not a cursor; take one from an answer's `next`")]
pub(crate) struct NotACursor;

impl FromStr for Cursor {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Self, NotACursor> {
        let is_hex = text.len() == 48 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_hex {
            return Err(NotACursor);
        }
        let (time, id) = text.split_at(16);
        let time = u64::from_str_radix(time, 16).map_err(|_| NotACursor)?;
        Ok(Self {
            first_ordered_at: time.cast_signed(),
            product_id: Uuid::try_parse(id).map_err(|_| NotACursor)?,
        })
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_is_written() {
        for first_ordered_at in [i64::MIN, -1, 0, 1_764_000_000_000, i64::MAX] {
            let cursor = Cursor {
                first_ordered_at,
                product_id: Uuid::from_u128(7),
            };
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        let long = "é".repeat(24);
        for wrong in ["", "7", &"g".repeat(48), &"0".repeat(49), &long] {
            assert_eq!(wrong.parse::<Cursor>(), Err(NotACursor), "{wrong}");
        }
    }
}
