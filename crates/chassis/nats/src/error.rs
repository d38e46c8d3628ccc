//! Why something did not work over NATS.

use std::error::Error as StdError;

use async_nats::jetstream::context::{ConsumerInfoError, ConsumerInfoErrorKind};
use async_nats::jetstream::stream::{ConsumerResetError, ConsumerResetErrorKind};
use async_nats::{client, jetstream};
use headwater_telemetry::BoxError;

use crate::replicas::is_no_quorum;

/// Why something did not work over NATS. Each variant holds the text, which says what to do, and
/// its causes. Why a question to another service was not answered is a
/// [`NoAnswer`](crate::request::NoAnswer).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The URL, the login or a certificate is invalid or cannot be read: the operator corrects the
    /// setting or the file. At a reload, the old ones stay in force.
    #[error(transparent)]
    Setting(BoxError),
    /// The broker did not answer in time, or does not allow the request, which a client cannot tell
    /// apart: try again. The outcome of the request is unknown.
    #[error(transparent)]
    TimedOut(BoxError),
    /// Nobody listens on the subject of the request: the service is down, or the broker has no
    /// JetStream.
    #[error(transparent)]
    NoResponders(BoxError),
    /// Too few brokers of the cluster are reachable: try again when they are back.
    #[error(transparent)]
    NoQuorum(BoxError),
    /// A stream or consumer is missing or unusable, and could not be created: if services may not,
    /// the operator runs `headwater provision`.
    #[error(transparent)]
    NotProvisioned(BoxError),
    /// The stream has a setting that keeps the relay from publishing, and that the broker never
    /// changes. Has what the operator does.
    #[error(transparent)]
    UnusableStream(BoxError),
    /// An operator paused the consumer at the broker: it goes on at the end of the pause, or when
    /// the operator resumes it.
    #[error(transparent)]
    Paused(BoxError),
    /// The service that was asked refused the request. Has its text.
    #[error(transparent)]
    Refused(BoxError),
    /// The server's `handshake_first` has changed: restart the process.
    #[error(transparent)]
    HandshakeChanged(BoxError),
    /// Any other error of the client or the broker.
    #[error(transparent)]
    Other(BoxError),
}

impl Error {
    /// The variant for `error`, with all its causes.
    pub(crate) fn of(error: anyhow::Error) -> Self {
        let variant = match error.chain().find_map(variant) {
            _ if is_no_quorum(error.as_ref()) => Self::NoQuorum,
            Some(variant) => variant,
            None => Self::Other,
        };
        variant(error.into())
    }
}

/// The variant of an error with this cause.
fn variant(cause: &(dyn StdError + 'static)) -> Option<fn(BoxError) -> Error> {
    use client::RequestErrorKind as Core;
    use jetstream::context::RequestErrorKind as JetStream;

    let core = cause.downcast_ref().map(client::RequestError::kind);
    let jetstream = cause
        .downcast_ref()
        .map(jetstream::context::RequestError::kind);
    match (core, jetstream) {
        (Some(Core::TimedOut), _) | (_, Some(JetStream::TimedOut)) => return Some(Error::TimedOut),
        (Some(Core::NoResponders), _) | (_, Some(JetStream::NoResponders)) => {
            return Some(Error::NoResponders);
        }
        _ => {}
    }
    // These have no cause.
    let inspected = cause.downcast_ref().map(ConsumerInfoError::kind);
    let reset = cause.downcast_ref().map(ConsumerResetError::kind);
    match (inspected, reset) {
        (Some(ConsumerInfoErrorKind::TimedOut), _)
        | (_, Some(ConsumerResetErrorKind::TimedOut)) => {
            return Some(Error::TimedOut);
        }
        (Some(ConsumerInfoErrorKind::NoResponders), _) => return Some(Error::NoResponders),
        _ => {}
    }
    Some(match cause.downcast_ref()? {
        Error::Setting(_) => Error::Setting,
        Error::TimedOut(_) => Error::TimedOut,
        Error::NoResponders(_) => Error::NoResponders,
        Error::NoQuorum(_) => Error::NoQuorum,
        Error::NotProvisioned(_) => Error::NotProvisioned,
        Error::UnusableStream(_) => Error::UnusableStream,
        Error::Paused(_) => Error::Paused,
        Error::Refused(_) => Error::Refused,
        Error::HandshakeChanged(_) => Error::HandshakeChanged,
        Error::Other(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, anyhow};
    use async_nats::jetstream::context::{GetStreamError, GetStreamErrorKind};
    use headwater_telemetry::causes;

    use super::*;

    #[test]
    fn a_reason_decides_below_any_context_and_the_text_keeps_all_causes() {
        let paused = anyhow!(Error::Paused("it is paused".into()));
        let error = Error::of(paused.context("place the consumer"));
        assert!(matches!(error, Error::Paused(_)), "{error:?}");
        assert_eq!(causes(&error), "place the consumer: it is paused");

        let timed_out: jetstream::context::RequestError =
            jetstream::context::RequestErrorKind::TimedOut.into();
        let found = GetStreamError::with_source(GetStreamErrorKind::Request, timed_out);
        let error = Error::of(Err::<(), _>(found).context("reach the stream").unwrap_err());
        assert!(matches!(error, Error::TimedOut(_)), "{error:?}");
        assert_eq!(causes(&error), "reach the stream: request error: timed out");

        let nobody: client::RequestError = client::RequestErrorKind::NoResponders.into();
        let error = Error::of(nobody.into());
        assert!(matches!(error, Error::NoResponders(_)), "{error:?}");

        // The code of JetStream without a leader is in the text of the client's errors.
        let why = "JetStream system temporarily unavailable, error code 10008";
        let missing = Error::NotProvisioned(anyhow!(why).context("create the stream").into());
        let error = Error::of(missing.into());
        assert!(matches!(error, Error::NoQuorum(_)), "{error:?}");
        let error = Error::of(anyhow!("something else"));
        assert!(matches!(error, Error::Other(_)), "{error:?}");
    }
}
