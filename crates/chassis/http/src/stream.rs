//! A client's connection, which is closed if the client does not take its answer.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use crate::clients::Client;

/// The bytes per second that a client must take of its answer. A slower client uses up its
/// patience.
const RATE_MIN: u32 = 16 * 1024;

/// A connection whose client may keep us waiting for a limited time in all. The client earns time
/// back with the bytes that it takes.
#[derive(Debug)]
pub(super) struct Stream {
    inner: TcpStream,
    client: Arc<Client>,
    /// The most time that a client may have.
    patience: Duration,
    /// The time that is left.
    left: Duration,
    /// Since when the client takes nothing, if it does not now.
    waiting_since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stream {
    pub(super) fn new(inner: TcpStream, client: Arc<Client>, patience: Duration) -> Self {
        Self {
            inner,
            client,
            patience,
            left: patience,
            waiting_since: None,
            timer: None,
        }
    }

    /// Whether the client has closed its end. hyper, which flushes whenever it runs, sees that only
    /// if nothing came after the request.
    fn is_closed(&self) -> bool {
        let ready = pin!(self.inner.ready(Interest::READABLE));
        let ready = ready.poll(&mut Context::from_waker(Waker::noop()));
        matches!(ready, Poll::Ready(Ok(ready)) if ready.is_read_closed())
    }

    fn wrote(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(bytes)) => {
                self.took(bytes);
                written
            }
            Poll::Ready(Err(_)) => written,
            Poll::Pending => self.wait(context),
        }
    }

    fn took(&mut self, bytes: usize) {
        let Some(since) = self.waiting_since.take() else {
            return;
        };
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let earned = Duration::from_secs(1) * bytes / RATE_MIN;
        let left = self.left.saturating_sub(since.elapsed());
        self.left = left.saturating_add(earned).min(self.patience);
        self.client.takes();
    }

    fn wait(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.waiting_since.is_none() {
            let now = Instant::now();
            let end = now + self.left;
            self.waiting_since = Some(now);
            self.client.stalls(self.patience.saturating_sub(self.left));
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(end),
                None => self.timer = Some(Box::pin(tokio::time::sleep_until(end))),
            }
        }
        if let Some(timer) = &mut self.timer {
            ready!(timer.as_mut().poll(context));
        }
        self.client.give_up();
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client does not take its answer",
        )))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.wrote(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, buffers);
        self.wrote(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_closed() {
            self.client.leaves();
        }
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.client.is_aborted() {
            // Otherwise the kernel would keep the unsent data and continue to offer it.
            let _ = self.inner.set_zero_linger();
        }
    }
}
