//! Parts of the list of what a user ordered: its order, and places in it, the same in all styles.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};
use uuid::Uuid;

/// The place of a purchase in the list: by the time of the first order of the product, and among
/// those of the same millisecond by the product's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cursor {
    /// Milliseconds since 1970.
    pub(crate) first_ordered_at: i64,
    pub(crate) product_id: Uuid,
}

/// Which part of the list is wanted: the purchases after `from` in the direction of `order`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) limit: usize,
    /// Exclusive; `None` is the beginning.
    pub(crate) from: Option<Cursor>,
    pub(crate) order: Order,
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

/// A text that is no cursor.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no cursor; take one from an answer's `next`")]
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
