//! Why something failed, in one line.

/// What failed and why, each cause once: the client library writes the cause of an error into the
/// error's own text, and gives it as its source as well.
pub fn causes(error: &anyhow::Error) -> String {
    let all = error.chain().map(ToString::to_string);
    let said = all.reduce(|said, cause| {
        if said.ends_with(&cause) {
            said
        } else {
            format!("{said}: {cause}")
        }
    });
    said.unwrap_or_default()
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
        assert_eq!(causes(&error), "reach the stream: request error: timed out");
        let plain = anyhow!("the disk is full").context("write");
        assert_eq!(causes(&plain), "write: the disk is full");
    }
}
