//! Maps ids of the source system to UUIDs.

use std::fmt;

use serde::Serialize;
use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};
use uuid::Uuid;

/// The namespace of all mapped ids. Never change it: a repeated import would duplicate everything.
const NAMESPACE: Uuid = uuid::uuid!("accceded-f3e8-4bc9-a273-96ee8f474ee6");

/// The kind of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Users,
    Products,
    Orders,
}

impl Kind {
    /// Part of mapped ids and idempotency keys: never rename. Also the service's URL path and
    /// source.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::Products => "products",
            Self::Orders => "orders",
        }
    }
}

/// The UUID for an id of the source system, always the same for the same kind and text.
///
/// A text that already is a hyphenated UUID is kept. Other spellings of UUIDs are mapped: 32
/// hexadecimal digits may be a number of the source system.
pub fn mapped(kind: Kind, foreign: &str) -> Uuid {
    const HYPHENATED_LENGTH: usize = 36;
    match Uuid::try_parse(foreign) {
        Ok(uuid) if foreign.len() == HYPHENATED_LENGTH => uuid,
        _ => Uuid::new_v5(&NAMESPACE, format!("{}/{foreign}", kind.name()).as_bytes()),
    }
}

/// An id as it stands in a file: `1` and `"1"` map to the same UUID.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum ForeignId {
    Number(i128),
    Text(String),
}

impl ForeignId {
    pub(crate) fn mapped(&self, kind: Kind) -> Uuid {
        match self {
            Self::Number(number) => mapped(kind, &number.to_string()),
            Self::Text(text) => mapped(kind, text),
        }
    }

    /// The number that it is, or that its text spells.
    pub(crate) fn number(&self) -> Option<i128> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(text) => text.parse().ok().filter(|n: &i128| n.to_string() == *text),
        }
    }
}

/// `id 1000 (number)`, `id "1000" (text)`.
impl fmt::Display for ForeignId {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "id {number} (number)"),
            Self::Text(text) => write!(f, "id {text:?} (text)"),
        }
    }
}

impl<'de> Deserialize<'de> for ForeignId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ForeignIdVisitor)
    }
}

/// Refuses fractions: JSON numbers beyond 64 bits arrive as rounded fractions, and two ids could
/// become one.
struct ForeignIdVisitor;

impl Visitor<'_> for ForeignIdVisitor {
    type Value = ForeignId;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an id (a text, or a whole number of up to 64 bits)")
    }

    fn visit_u64<E>(self, number: u64) -> Result<ForeignId, E> {
        Ok(ForeignId::Number(number.into()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<ForeignId, E> {
        Ok(ForeignId::Number(number.into()))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<ForeignId, E> {
        if text.is_empty() {
            return Err(E::invalid_value(Unexpected::Str(text), &self));
        }
        Ok(ForeignId::Text(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(json: &str) -> ForeignId {
        serde_json::from_str(json).expect(json)
    }

    /// Ids that have been handed out: if this test fails, fix the code, not the test.
    #[test]
    fn mapped_ids_never_change() {
        let known = [
            (Kind::Users, "1", "0cdadbf4-7cd1-54cd-8650-52d9c41fbff4"),
            (Kind::Products, "1", "242376d4-29a4-5af6-a76b-eac6c0a6c2e0"),
            (Kind::Orders, "1", "cc8660af-2840-5f74-add2-b185053e93c9"),
            (
                Kind::Users,
                "ann@example.org",
                "602bb517-c9ce-531a-85d6-a207005a4314",
            ),
        ];
        for (kind, foreign, expected) in known {
            assert_eq!(
                mapped(kind, foreign).to_string(),
                expected,
                "{kind:?} {foreign}"
            );
        }
    }

    #[test]
    fn a_uuid_is_kept_whatever_its_case() {
        let text = "0198C0DE-0000-7000-8000-00000000ABCD";
        for kind in [Kind::Users, Kind::Orders] {
            assert_eq!(mapped(kind, text).to_string(), text.to_lowercase());
        }
    }

    #[test]
    fn thirty_two_digits_are_no_uuid() {
        let text = "01234567890123456789012345678901";
        assert_ne!(mapped(Kind::Users, text).simple().to_string(), text);
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for json in [
            "1.5",
            "1.0",
            "18446744073709551616",
            "\"\"",
            "true",
            "null",
            "[1]",
            "{}",
        ] {
            assert!(serde_json::from_str::<ForeignId>(json).is_err(), "{json}");
        }
    }

    proptest! {
        #[test]
        fn a_number_and_its_text_are_the_same_id(number: i64) {
            let (number, text) = (id(&number.to_string()), id(&format!("\"{number}\"")));
            prop_assert_eq!(number.mapped(Kind::Users), text.mapped(Kind::Users));
            prop_assert_eq!(number.number(), text.number());
            prop_assert_ne!(number, text);
        }

        #[test]
        fn different_ids_stay_different(a in ".{1,40}", b in ".{1,40}") {
            prop_assume!(a != b);
            prop_assert_ne!(mapped(Kind::Users, &a), mapped(Kind::Users, &b));
            prop_assert_ne!(mapped(Kind::Users, &a), mapped(Kind::Orders, &a));
        }
    }
}
