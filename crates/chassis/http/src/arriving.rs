//! Requests that have not fully arrived when the service stops: it does not wait for the rest.

use std::future::{Future, pending};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::Request;
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::io::AsyncWriteExt as _;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::problem::Problem;
use crate::stream::Stream;

/// A request's body that can be cut off.
pub(super) struct Arriving {
    inner: Incoming,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    missing: CancellationToken,
}

impl Arriving {
    /// Returns `request`, and a future that resolves once the app waits for more of its body after
    /// `cut`. An app that does not wait for the body is at work, and may finish.
    pub(super) fn watch(
        request: Request<Incoming>,
        cut: &CancellationToken,
    ) -> (Request<Body>, impl Future<Output = ()> + Send + use<>) {
        let mut missing = None;
        let request = request.map(|inner| {
            if inner.is_end_stream() {
                return Body::empty();
            }
            Body::new(Self {
                inner,
                cut: Box::pin(cut.clone().cancelled_owned()),
                missing: missing.insert(CancellationToken::new()).clone(),
            })
        });
        let is_missing = async {
            match missing {
                Some(missing) => missing.cancelled_owned().await,
                None => pending().await,
            }
        };
        (request, is_missing)
    }
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(context);
        if frame.is_pending() && self.cut.as_mut().poll(context).is_ready() {
            self.missing.cancel();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The answer to a request that was cut off.
pub(super) fn problem() -> Problem {
    Problem::unavailable(
        "the service stops, and the request had not fully arrived; nothing was done; send it again",
        Duration::from_secs(1),
    )
}

/// Answers `head`, the beginning of a request's head, if any of it has arrived, and closes.
pub(super) async fn refuse(mut stream: Stream, head: &[u8]) {
    if !head.is_empty() {
        let body = serde_json::to_string(&problem()).unwrap_or_default();
        let answer = format!(
            "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\n\
             retry-after: 1\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        // A client that is gone needs no answer.
        let _ = stream.write_all(answer.as_bytes()).await;
    }
    let _ = stream.shutdown().await;
}
