//! Versions of an event: which is newer, how an old one is read, and how two are one event.
//!
//! A change that the contract refuses needs a new version: a message of the same event in the next
//! package, such as `shop.orders.v2`, on the subject `orders.v2.placed`. Old events stay in outboxes
//! and streams for ever. They are read through a chain of [`Upcast`]s, so that projections name the
//! newest version only.
//!
//! While some readers know only the old version, a source may publish both as **one** event, at one
//! position: the old version's subject and fields, with the new version in a field that the old
//! message does not have ([`encode_both`]). Old readers skip that field, as protobuf does with every
//! unknown one. New readers take it instead of upcasting.

use bytes::Bytes;
use prost::Message;

use crate::event::{Event, Undecodable};

/// The number of the field with newer versions, in the payload of an older one. `headwater-build`
/// refuses events that have a field of this number. Never change.
pub const NEWER_FIELD: u32 = 57_183;

/// Makes the new version of an event from the version before.
///
/// `headwater-build` generates the rest: [`Event::decode_version`] reads an event of any older
/// version through this chain. The key must stay the same, and so must the result, for ever: a
/// rebuild years later reads the same old events.
///
/// ```
/// use headwater_event::Upcast;
///
/// struct PlacedV1 { user_id: String }
/// struct PlacedV2 { buyer_id: String, channel: String }
///
/// impl Upcast<PlacedV1> for PlacedV2 {
///     fn upcast(old: PlacedV1) -> Self {
///         Self { buyer_id: old.user_id, channel: "web".to_owned() }
///     }
/// }
/// # assert_eq!(PlacedV2::upcast(PlacedV1 { user_id: "7".to_owned() }).buyer_id, "7");
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is a newer version of `{Old}`, and does not say how to read old events",
    label = "needs `impl Upcast<{Old}> for {Self}`",
    note = "write it next to `include_events!()`; docs/changing-an-event.md has an example"
)]
pub trait Upcast<Old> {
    /// The same event in this version.
    fn upcast(old: Old) -> Self;
}

/// A kind of event, `<source>.v<version>.<name>`, in its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Parts<'a> {
    source: &'a str,
    version: u32,
    name: &'a str,
}

impl<'a> Parts<'a> {
    fn of(kind: &'a str) -> Option<Self> {
        let mut tokens = kind.splitn(3, '.');
        let (source, version, name) = (tokens.next()?, tokens.next()?, tokens.next()?);
        let digits = version.strip_prefix('v')?;
        let version = digits.parse().ok()?;
        let is_plain = !digits.starts_with(['0', '+']);
        is_plain.then_some(Self {
            source,
            version,
            name,
        })
    }

    fn is_same_event(&self, other: &Self) -> bool {
        (self.source, self.name) == (other.source, other.name)
    }
}

/// Whether the event `kind` is a newer version than any in `known`: the source and the name are
/// known, and the version is higher.
///
/// ```
/// use headwater_event::is_newer;
///
/// let known = ["orders.v1.placed", "orders.v2.placed"];
/// assert!(is_newer("orders.v3.placed", known));
/// assert!(!is_newer("orders.v1.placed", known));
/// assert!(!is_newer("orders.v1.shipped", known), "unknown, but not newer");
/// ```
pub fn is_newer<'a>(kind: &str, known: impl IntoIterator<Item = &'a str>) -> bool {
    let Some(kind) = Parts::of(kind) else {
        return false;
    };
    let known = known.into_iter().filter_map(Parts::of);
    let same = known.filter(|known| known.is_same_event(&kind));
    let newest = same.map(|known| known.version).max();
    newest.is_some_and(|newest| newest < kind.version)
}

/// The payload of an event that is published in two versions at once: a message of the older one,
/// with the newer one in the field [`NEWER_FIELD`]. `outbox::append_both` appends it.
///
/// ```
/// # use headwater_event::{Event, Upcast, version::encode_both};
/// # use prost::Message as _;
/// # #[derive(Clone, PartialEq, prost::Message)]
/// # struct PlacedV1 { #[prost(string, tag = "1")] user_id: String }
/// # impl Event for PlacedV1 {
/// #     const SUBJECT: &'static str = "orders.v1.placed";
/// #     fn key(&self) -> &str { &self.user_id }
/// # }
/// # #[derive(Clone, PartialEq, prost::Message)]
/// # struct PlacedV2 { #[prost(string, tag = "2")] buyer_id: String }
/// # impl Event for PlacedV2 {
/// #     const SUBJECT: &'static str = "orders.v2.placed";
/// #     fn key(&self) -> &str { &self.buyer_id }
/// # }
/// # impl Upcast<PlacedV1> for PlacedV2 {
/// #     fn upcast(old: PlacedV1) -> Self { Self { buyer_id: old.user_id } }
/// # }
/// let old = PlacedV1 { user_id: "7".to_owned() };
/// let both = encode_both(&old, &PlacedV2 { buyer_id: "7".to_owned() });
/// assert_eq!(PlacedV1::decode(&*both), Ok(old), "an old reader skips the new version");
/// ```
pub fn encode_both<Old: Event, New: Event + Upcast<Old>>(old: &Old, new: &New) -> Vec<u8> {
    let version = Parts::of(New::SUBJECT).map_or(0, |new| new.version);
    let newer = Newer {
        version,
        payload: new.encode_to_vec().into(),
    };
    let mut payload = old.encode_to_vec();
    payload.extend(Older { newer: vec![newer] }.encode_to_vec());
    payload
}

/// The payload of an older version, as far as it holds newer ones.
#[derive(Clone, PartialEq, Message)]
struct Older {
    #[prost(message, repeated, tag = "57183")]
    newer: Vec<Newer>,
}

/// A newer version in the payload of an older one.
#[derive(Clone, PartialEq, Message)]
struct Newer {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(bytes = "bytes", tag = "2")]
    payload: Bytes,
}

/// Reads an event of `kind` as `E`: of this version, or of an older one through the chain.
pub(crate) fn read<E: Event>(kind: &str, payload: &Bytes) -> Result<E, Undecodable> {
    let (version, payload) = match (kind != E::SUBJECT)
        .then(|| Parts::of(kind).zip(Parts::of(E::SUBJECT)))
        .flatten()
    {
        Some((own, wanted)) if own.is_same_event(&wanted) => {
            if own.version > wanted.version {
                return Err(Undecodable(newer_than(kind, E::SUBJECT)));
            }
            newest(own.version, payload, wanted.version)
        }
        // Another kind, published by hand: it may decode.
        _ => (u32::MAX, payload.clone()),
    };
    E::decode_version(version, payload)
        .map_err(|error| Undecodable(format!("{kind} does not decode: {error}")))
}

/// Why an event is no variant of a source's enumeration, which knows `known`.
///
/// For generated code.
#[doc(hidden)]
pub fn unknown(kind: &str, known: &[&str]) -> Undecodable {
    let same = |known: &&&str| is_newer(kind, [**known]);
    Undecodable(match known.iter().find(same) {
        Some(known) => newer_than(kind, known),
        None => format!("unknown event {kind}"),
    })
}

fn newer_than(kind: &str, known: &str) -> String {
    format!("{kind} is newer than {known}, which this program knows")
}

/// The newest version in `payload` that is not above `max`, with its payload.
fn newest(version: u32, payload: &Bytes, max: u32) -> (u32, Bytes) {
    // If it does not decode, the event does not either, and that error has the reason.
    let newer = Older::decode(payload.clone()).unwrap_or_default().newer;
    let fitting = newer
        .into_iter()
        .filter(|newer| newer.version > version && newer.version <= max);
    fitting
        .max_by_key(|newer| newer.version)
        .map_or((version, payload.clone()), |newer| {
            (newer.version, newer.payload)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::Envelope;
    use crate::event::subject_of;

    #[derive(Clone, PartialEq, Message)]
    struct V1 {
        #[prost(string, tag = "1")]
        id: String,
    }

    #[derive(Clone, PartialEq, Message)]
    struct V2 {
        #[prost(uint64, tag = "1")]
        count: u64,
        #[prost(string, tag = "2")]
        id: String,
    }

    #[derive(Clone, PartialEq, Message)]
    struct V3 {
        #[prost(string, tag = "1")]
        id: String,
        #[prost(string, tag = "2")]
        by: String,
    }

    impl Event for V1 {
        const SUBJECT: &'static str = "orders.v1.placed";
        fn key(&self) -> &str {
            &self.id
        }
    }

    impl Event for V2 {
        const SUBJECT: &'static str = "orders.v2.placed";
        fn key(&self) -> &str {
            &self.id
        }
        fn decode_version(version: u32, payload: Bytes) -> Result<Self, prost::DecodeError> {
            match version {
                1 => V1::decode_version(version, payload).map(Self::upcast),
                _ => Self::decode(payload),
            }
        }
    }

    impl Event for V3 {
        const SUBJECT: &'static str = "orders.v3.placed";
        fn key(&self) -> &str {
            &self.id
        }
        fn decode_version(version: u32, payload: Bytes) -> Result<Self, prost::DecodeError> {
            match version {
                1 | 2 => V2::decode_version(version, payload).map(Self::upcast),
                _ => Self::decode(payload),
            }
        }
    }

    impl Upcast<V1> for V2 {
        fn upcast(old: V1) -> Self {
            Self {
                count: 1,
                id: old.id,
            }
        }
    }

    impl Upcast<V2> for V3 {
        fn upcast(old: V2) -> Self {
            Self {
                by: format!("{} by V2", old.count),
                id: old.id,
            }
        }
    }

    fn envelope<E: Event>(event: &E, payload: Vec<u8>) -> Envelope {
        Envelope {
            source: "orders".into(),
            subject: subject_of(event).into(),
            id: None,
            sequence: None,
            payload: payload.into(),
            traceparent: None,
        }
    }

    fn v1() -> V1 {
        V1 { id: "7".to_owned() }
    }

    fn v2() -> V2 {
        V2 {
            count: 5,
            id: "7".to_owned(),
        }
    }

    fn by(text: &str) -> V3 {
        V3 {
            id: "7".to_owned(),
            by: text.to_owned(),
        }
    }

    #[test]
    fn an_old_event_is_read_through_the_chain() {
        let old = envelope(&v1(), v1().encode_to_vec());
        assert_eq!(old.decode::<V3>().unwrap(), by("1 by V2"));
        let newer = envelope(&v2(), v2().encode_to_vec());
        assert_eq!(newer.decode::<V3>().unwrap(), by("5 by V2"));
        let newest = envelope(&by("me"), by("me").encode_to_vec());
        assert_eq!(newest.decode::<V3>().unwrap(), by("me"));
    }

    #[test]
    fn a_newer_event_is_never_read_as_an_older_one() {
        let newest = envelope(&by("me"), by("me").encode_to_vec());
        assert_eq!(
            newest.decode::<V1>().unwrap_err().to_string(),
            "orders.v3.placed is newer than orders.v1.placed, which this program knows"
        );
    }

    #[test]
    fn an_event_in_two_versions_is_read_as_the_newest_that_the_reader_knows() {
        let both = envelope(&v1(), encode_both(&v1(), &v2()));
        assert_eq!(both.decode::<V1>().unwrap(), v1());
        assert_eq!(both.decode::<V2>().unwrap(), v2());
        assert_eq!(both.decode::<V3>().unwrap(), by("5 by V2"));
        let both = envelope(&v2(), encode_both(&v2(), &by("me")));
        assert_eq!(both.decode::<V2>().unwrap(), v2());
        assert_eq!(both.decode::<V3>().unwrap(), by("me"));
    }

    /// Such bytes are in outboxes and streams for ever.
    #[test]
    fn the_bytes_of_an_event_in_two_versions_never_change() {
        let golden = [
            0x0a, 0x01, 0x37, 0xfa, 0xf5, 0x1b, 0x09, 0x08, 0x02, 0x12, 0x05, 0x08, 0x05, 0x12,
            0x01, 0x37,
        ];
        assert_eq!(encode_both(&v1(), &v2()), golden);
    }

    #[test]
    fn only_a_higher_version_of_a_known_event_is_newer() {
        let known = ["orders.v1.placed", "orders.v2.placed", "users.v1.erased"];
        for (kind, expected) in [
            ("orders.v3.placed", true),
            ("orders.v10.placed", true),
            ("users.v2.erased", true),
            ("orders.v2.placed", false),
            ("orders.v1.placed", false),
            ("orders.v3.shipped", false),
            ("users.v2.placed", false),
            ("orders.v03.placed", false),
            ("orders.v+3.placed", false),
            ("orders.placed", false),
        ] {
            assert_eq!(is_newer(kind, known), expected, "{kind}");
        }
    }
}
