//! Personal fields in the JSON of an event.

use std::collections::BTreeSet;
use std::fmt;

use prost_reflect::{Kind, MessageDescriptor};
use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// What stands for the value of a personal field.
pub const MASK: &str = "(personal)";

/// The members of a JSON object in their order.
#[derive(Debug, Default)]
pub struct Members(pub Vec<(String, Box<RawValue>)>);

impl Members {
    /// `None` if the text is not an object.
    pub fn of(json: &str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }
}

/// Masks the values of personal fields in `json`, which is a `message` as the API writes it.
/// `personal` has the full names of the fields. Returns whether any was masked.
pub(crate) fn masked(
    message: &MessageDescriptor,
    json: &RawValue,
    personal: &BTreeSet<String>,
) -> (Box<RawValue>, bool) {
    let Some(mut members) = Members::of(json.get()) else {
        return (json.to_owned(), false);
    };
    let mut any = false;
    for (name, value) in &mut members.0 {
        let Some(field) = message.get_field_by_name(name) else {
            continue;
        };
        let is_personal = personal.contains(field.full_name());
        let kind = match field.kind() {
            Kind::Message(entry) if field.is_map() => entry.map_entry_value_field().kind(),
            kind => kind,
        };
        let inner = match kind {
            Kind::Message(inner) => Some(inner),
            _ => None,
        };
        if is_personal && value.get() != "null" {
            (*value, any) = (raw(&MASK), true);
        } else if let Some(inner) = inner {
            let is_one = !field.is_list() && !field.is_map();
            let (new, is_masked) = inside(&inner, value, is_one, personal);
            (*value, any) = (new, any | is_masked);
        }
    }
    if any {
        (raw(&members), true)
    } else {
        (json.to_owned(), false)
    }
}

/// Whether a message has a personal field, or one of the messages in it has. `seen`: the messages
/// that were looked at.
pub(crate) fn has_any(
    message: &MessageDescriptor,
    personal: &BTreeSet<String>,
    seen: &mut BTreeSet<String>,
) -> bool {
    seen.insert(message.full_name().to_owned())
        && message.fields().any(|field| {
            personal.contains(field.full_name())
                || matches!(field.kind(), Kind::Message(inner) if has_any(&inner, personal, seen))
        })
}

/// Masks one message, or each of a list or map of them.
fn inside(
    message: &MessageDescriptor,
    json: &RawValue,
    is_one: bool,
    personal: &BTreeSet<String>,
) -> (Box<RawValue>, bool) {
    if is_one {
        return masked(message, json, personal);
    }
    let mut any = false;
    let mut mask = |value: &mut Box<RawValue>| {
        let (new, is_masked) = masked(message, value, personal);
        any |= is_masked;
        *value = new;
    };
    let new = if let Ok(mut list) = serde_json::from_str::<Vec<Box<RawValue>>>(json.get()) {
        list.iter_mut().for_each(&mut mask);
        raw(&list)
    } else if let Some(mut members) = Members::of(json.get()) {
        members.0.iter_mut().for_each(|(_, value)| mask(value));
        raw(&members)
    } else {
        json.to_owned()
    };
    (new, any)
}

fn raw(value: &impl Serialize) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).expect("it is made of JSON")
}

impl Serialize for Members {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let mut map = out.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        input.deserialize_map(Object)
    }
}
