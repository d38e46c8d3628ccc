//! The envelope of an event: its payload, identity and origin.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;

use crate::event::{Event, Undecodable};
use crate::version::{self, is_newer};

/// The identity of an event that was appended to an outbox.
///
/// On the bus it is the `Nats-Msg-Id` header: `<source>.<epoch>.<position>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventId {
    /// The source.
    pub source: Arc<str>,
    /// The epoch of the source's database.
    pub epoch: Arc<str>,
    /// The position in the outbox of that epoch.
    pub position: u64,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.source, self.epoch, self.position)
    }
}

/// The `Nats-Msg-Id` was not written by a relay.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not an event id")]
pub struct NotAnEventId;

impl FromStr for EventId {
    type Err = NotAnEventId;

    fn from_str(text: &str) -> Result<Self, NotAnEventId> {
        let (source, epoch, position) = parts(text).ok_or(NotAnEventId)?;
        Ok(Self {
            source: source.into(),
            epoch: epoch.into(),
            position,
        })
    }
}

impl EventId {
    /// Parses `text`, reusing the source and epoch of `before` where they are equal.
    /// In a stream, consecutive ids nearly always differ only in the position.
    pub fn read(text: &str, before: Option<&Self>) -> Option<Self> {
        let shared = before.and_then(|before| {
            let rest = text.strip_prefix(&*before.source)?.strip_prefix('.')?;
            let rest = rest.strip_prefix(&*before.epoch)?.strip_prefix('.')?;
            Some(Self {
                source: Arc::clone(&before.source),
                epoch: Arc::clone(&before.epoch),
                position: position(rest)?,
            })
        });
        shared.or_else(|| text.parse().ok())
    }
}

/// Splits the text of an id into source, epoch and position.
fn parts(text: &str) -> Option<(&str, &str, u64)> {
    let mut parts = text.splitn(3, '.');
    let (source, epoch, rest) = (parts.next()?, parts.next()?, parts.next()?);
    let position = position(rest)?;
    (!source.is_empty() && !epoch.is_empty()).then_some((source, epoch, position))
}

/// Parses a position; positions start at 1.
fn position(text: &str) -> Option<u64> {
    let number = text.parse().ok()?;
    (number > 0 && i64::try_from(number).is_ok() && !text.starts_with('+')).then_some(number)
}

/// The event type of a subject: its first three tokens.
pub fn kind_of(subject: &str) -> &str {
    let end = subject.match_indices('.').nth(2);
    end.map_or(subject, |(end, _)| &subject[..end])
}

/// An event and its origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The source whose stream or outbox it came from.
    pub source: Arc<str>,
    /// `<source>.v<version>.<event>.<partition>`.
    pub subject: Arc<str>,
    /// Its identity; `None` if it was published by hand.
    pub id: Option<EventId>,
    /// Its sequence in the stream; `None` if it was fetched from the outbox.
    pub sequence: Option<u64>,
    /// The protobuf message.
    pub payload: Bytes,
    /// W3C trace context of the command that caused it, if it was traced.
    pub traceparent: Option<String>,
}

impl Envelope {
    /// The event type, to match with [`Event::SUBJECT`](crate::Event::SUBJECT): the subject's
    /// first three tokens.
    pub fn kind(&self) -> &str {
        kind_of(&self.subject)
    }

    /// The partition token; empty if the event was published by hand without one.
    pub fn partition(&self) -> &str {
        self.subject.split('.').nth(3).unwrap_or_default()
    }

    /// Whether this is an `E`, in its version or an older one, which [`decode`](Self::decode)
    /// upcasts. For projections that need only some events of a source.
    ///
    /// ```
    /// # use headwater_event::{Envelope, Event};
    /// # #[derive(Clone, PartialEq, prost::Message)]
    /// # struct OrderPlaced { #[prost(string, tag = "1")] user_id: String }
    /// # impl Event for OrderPlaced {
    /// #     const SUBJECT: &'static str = "orders.v2.placed";
    /// #     fn key(&self) -> &str { &self.user_id }
    /// # }
    /// # let envelope = |subject: &str| Envelope {
    /// #     source: "orders".into(), subject: subject.into(), id: None, sequence: None,
    /// #     payload: Default::default(), traceparent: None,
    /// # };
    /// assert!(envelope("orders.v2.placed.17").is::<OrderPlaced>());
    /// assert!(envelope("orders.v1.placed.17").is::<OrderPlaced>());
    /// assert!(!envelope("orders.v3.placed.17").is::<OrderPlaced>());
    /// assert!(!envelope("orders.v1.shipped.17").is::<OrderPlaced>());
    /// ```
    pub fn is<E: Event>(&self) -> bool {
        self.kind() == E::SUBJECT || is_newer(E::SUBJECT, [self.kind()])
    }

    /// Decodes the payload as `E`. An older version of `E` is upcast ([`version`]).
    ///
    /// # Errors
    /// The payload is not a valid `E`, or the event is a newer version than `E`.
    pub fn decode<E: Event>(&self) -> Result<E, Undecodable> {
        version::read(self.kind(), &self.payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written() {
        let id = EventId {
            source: "orders".into(),
            epoch: "x7".into(),
            position: 12,
        };
        assert_eq!(id.to_string(), "orders.x7.12");
        assert_eq!("orders.x7.12".parse(), Ok(id));
    }

    #[test]
    fn an_id_is_read_the_same_whatever_came_before() {
        let before = "orders.x7.12".parse().unwrap();
        for text in [
            "orders.x7.13",
            "orders.x70.13",
            "orders.y.1",
            "users.x7.1",
            "orders.x7.1.3",
        ] {
            assert_eq!(
                EventId::read(text, Some(&before)),
                text.parse().ok(),
                "{text}"
            );
        }
    }

    #[test]
    fn other_peoples_ids_are_not_ours() {
        for wrong in [
            "",
            "orders",
            "orders.x7",
            "orders.x7.0",
            "orders.x7.+1",
            "orders.x7.-1",
            "a.b.1.2",
            "..1",
            "orders.x7.x",
            "orders.x7.9223372036854775808",
        ] {
            assert_eq!(wrong.parse::<EventId>(), Err(NotAnEventId), "{wrong:?}");
        }
    }
}
