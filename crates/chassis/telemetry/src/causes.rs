//! An error and its causes in one line.

use std::error::Error;
use std::iter::successors;

/// The error and its causes, each cause once. The NATS client includes the cause of an error in
/// the error's text and also returns it as the source.
pub fn causes(error: &(dyn Error + 'static)) -> String {
    let all = chain(error).map(ToString::to_string);
    let text = all.reduce(|text, cause| {
        if text.ends_with(&cause) {
            text
        } else {
            format!("{text}: {cause}")
        }
    });
    text.unwrap_or_default()
}

/// The error and its causes.
pub(crate) fn chain<'e>(
    error: &'e (dyn Error + 'static),
) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    successors(Some(error), |&error| error.source())
}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, anyhow};
    use async_nats::jetstream::context::{
        GetStreamError, GetStreamErrorKind, RequestError, RequestErrorKind,
    };

    use super::*;

    #[test]
    fn a_cause_is_said_once() {
        let timed_out: RequestError = RequestErrorKind::TimedOut.into();
        let error = GetStreamError::with_source(GetStreamErrorKind::Request, timed_out);
        let error = Err::<(), _>(error).context("reach the stream").unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            "reach the stream: request error: timed out: timed out"
        );
        assert_eq!(
            causes(error.as_ref()),
            "reach the stream: request error: timed out"
        );
        let plain = anyhow!("the disk is full").context("write");
        assert_eq!(causes(plain.as_ref()), "write: the disk is full");
    }
}
