//! Finding an event that an operator names: `orders:17` or `orders@23`.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use anyhow::Context as _;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{RawMessageErrorKind, Stream};
use client::{Nats, Tail};
use headwater::EventId;

/// How many messages of a stream are read to find the one at a position.
const LOOKS_MAX: usize = 64;

/// Where an event is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// `orders:17`: its position in the outbox of the source's present epoch.
    Position(String, u64),
    /// `orders@17`: its sequence in the stream.
    Sequence(String, u64),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let number = |text: &str| text.parse().ok().filter(|number| *number > 0);
            if let Some((source, position)) = text.split_once(':') {
                let source = crate::source(source).ok()?;
                return Some(Self::Position(source, number(position)?));
            }
            let (source, sequence) = text.split_once('@')?;
            let source = crate::source(source).ok()?;
            Some(Self::Sequence(source, number(sequence)?))
        };
        parse().ok_or_else(|| {
            format!(
                "`{text}` is not an event: write source:position, such as orders:17, or \
                 source@sequence"
            )
        })
    }
}

impl Display for Place {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            Self::Position(source, position) => write!(f, "{source}:{position}"),
            Self::Sequence(source, sequence) => write!(f, "{source}@{sequence}"),
        }
    }
}

impl Place {
    /// The source.
    pub fn source(&self) -> &str {
        let (Self::Position(source, _) | Self::Sequence(source, _)) = self;
        source
    }

    /// The event in its stream, if it is there. `epoch`: the source's present one, if known.
    pub async fn message(
        &self,
        nats: &Nats,
        epoch: Option<&str>,
    ) -> anyhow::Result<Option<StreamMessage>> {
        let name = headwater::stream::name(self.source());
        let Some(stream) = nats.stream(&name).await? else {
            return Ok(None);
        };
        match self {
            Self::Sequence(_, sequence) => message(&stream, *sequence).await,
            Self::Position(source, position) => {
                let own = |id: &EventId| {
                    *id.source == **source && epoch.is_none_or(|epoch| *epoch == *id.epoch)
                };
                let tail = Tail::read(nats, stream.cached_info(), source, epoch).await?;
                let Some(tail) = tail.filter(|tail| tail.position >= *position) else {
                    return Ok(None);
                };
                let guess = tail.sequence.saturating_sub(tail.position - position);
                at_position(&stream, guess, *position, own).await
            }
        }
    }
}

/// The event at a position: looked up at the sequence `guess`, where it must be if no foreign event
/// lies behind it, and from there on.
async fn at_position(
    stream: &Stream,
    guess: u64,
    position: u64,
    is_own: impl Fn(&EventId) -> bool,
) -> anyhow::Result<Option<StreamMessage>> {
    let mut sequence = guess;
    for _ in 0..LOOKS_MAX {
        if sequence < stream.cached_info().state.first_sequence.max(1) {
            return Ok(None);
        }
        let Some(message) = message(stream, sequence).await? else {
            sequence -= 1;
            continue;
        };
        match id(&message).filter(&is_own).map(|id| id.position) {
            Some(at) if at == position => return Ok(Some(message)),
            Some(at) if at > position => sequence = sequence.saturating_sub(at - position),
            Some(at) => sequence += position - at,
            None => sequence -= 1,
        }
    }
    Ok(None)
}

/// The id in a message's headers; `None` if the event was published by hand.
pub fn id(message: &StreamMessage) -> Option<EventId> {
    message.headers.get("Nats-Msg-Id")?.as_str().parse().ok()
}

/// The sequence of the last message before `sequence`; 0 if there is none.
///
/// # Errors
/// Too many messages there were deleted.
pub async fn before(stream: &Stream, sequence: u64) -> anyhow::Result<u64> {
    let first = stream.cached_info().state.first_sequence.max(1);
    let mut looks = 0;
    for before in (first..sequence).rev() {
        if message(stream, before).await?.is_some() {
            return Ok(before);
        }
        looks += 1;
        anyhow::ensure!(
            looks < LOOKS_MAX,
            "more than {LOOKS_MAX} messages before sequence {sequence} were deleted"
        );
    }
    Ok(0)
}

async fn message(stream: &Stream, sequence: u64) -> anyhow::Result<Option<StreamMessage>> {
    match stream.get_raw_message(sequence).await {
        Ok(message) => Ok(Some(message)),
        Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(error).context("read a message of the stream"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_a_place() {
        let position = Place::Position("orders".to_owned(), 17);
        assert_eq!("orders:17".parse(), Ok(position));
        let sequence = Place::Sequence("order-lines".to_owned(), 3);
        assert_eq!("order-lines@3".parse(), Ok(sequence));
        for wrong in [
            "",
            "orders",
            "orders:",
            "orders:0",
            "orders:-1",
            "a.b:1",
            "*:1",
            "orders@x",
            "ORDERS:1",
        ] {
            wrong.parse::<Place>().expect_err(wrong);
        }
    }
}
