//! A kept-alive HTTP/1.1 connection, for this benchmark only.
//!
//! The load shares the machine with the measured service, so it must be cheap: a general client
//! used as much processor time as the service.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures_util::future::try_join_all;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The pause before a retry.
const PAUSE: Duration = Duration::from_millis(20);

/// A kept-alive connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

/// A 2xx answer.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    head: &'a str,
    pub(crate) body: &'a [u8],
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.context("connect")?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            request: Vec::with_capacity(1024),
            answer: Vec::with_capacity(32 * 1024),
        })
    }

    /// `count` connections to the same address.
    pub(crate) async fn several(address: SocketAddr, count: usize) -> anyhow::Result<Vec<Self>> {
        try_join_all((0..count).map(|_| Self::open(address))).await
    }

    pub(crate) async fn get(&mut self, path: &str) -> anyhow::Result<Answer<'_>> {
        let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        self.send(head.as_bytes(), &[]).await
    }

    /// Retries until the answer is 2xx, at most for `within`; returns its JSON.
    pub(crate) async fn get_within(
        &mut self,
        path: &str,
        within: Duration,
    ) -> anyhow::Result<Value> {
        let began = Instant::now();
        loop {
            match self.get(path).await {
                Ok(answer) => return answer.json(),
                Err(error) if began.elapsed() > within => return Err(error),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    pub(crate) async fn post(&mut self, path: &str, json: &str) -> anyhow::Result<Answer<'_>> {
        self.post_as(path, "application/json", json.as_bytes())
            .await
    }

    /// POSTs a body of any type.
    pub(crate) async fn post_as(
        &mut self,
        path: &str,
        kind: &str,
        body: &[u8],
    ) -> anyhow::Result<Answer<'_>> {
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\n\
             content-length: {length}\r\n\r\n"
        );
        self.send(head.as_bytes(), body).await
    }

    /// Sends a request, in one packet, and reads the answer, which must be 2xx.
    async fn send(&mut self, head: &[u8], body: &[u8]) -> anyhow::Result<Answer<'_>> {
        self.request.clear();
        self.request.extend_from_slice(head);
        self.request.extend_from_slice(body);
        self.stream.write_all(&self.request).await?;
        self.answer.clear();
        let (head, body) = loop {
            self.read().await?;
            if let Some(lengths) = answer_lengths(&self.answer)? {
                break lengths;
            }
        };
        while self.answer.len() < head + body {
            self.read().await?;
        }
        answer(&self.answer, head)
    }

    async fn read(&mut self) -> anyhow::Result<()> {
        let read = self.stream.read_buf(&mut self.answer).await?;
        ensure!(read > 0, "the connection was closed");
        Ok(())
    }
}

fn answer(bytes: &[u8], head: usize) -> anyhow::Result<Answer<'_>> {
    let (head, body) = bytes.split_at(head);
    let head = std::str::from_utf8(head).context("read the head")?;
    ensure!(
        head.starts_with("HTTP/1.1 2"),
        "answered {}: {}",
        head.lines().next().unwrap_or_default(),
        String::from_utf8_lossy(body)
    );
    Ok(Answer { head, body })
}

/// The lengths of the answer's head and body, once the head is complete.
fn answer_lengths(answer: &[u8]) -> anyhow::Result<Option<(usize, usize)>> {
    let Some(head) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&answer[..head]).context("read the head")?;
    let body = header(text, "content-length").context("no content-length")?;
    Ok(Some((
        head + 4,
        body.parse().context("read the content-length")?,
    )))
}

/// The value of a header; `name` in lower case, as hyper writes it.
fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(key, _)| *key == name).map(|(_, value)| value)
}

impl Answer<'_> {
    /// The position of a written event.
    pub(crate) fn position(&self) -> anyhow::Result<u64> {
        let value = header(self.head, "headwater-position").context("no Headwater-Position")?;
        let number = value.rsplit(':').next().unwrap_or_default();
        number.parse().context("read the Headwater-Position")
    }

    pub(crate) fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(self.body).context("read the body")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_where_its_content_length_says() {
        let bytes =
            b"HTTP/1.1 201 Created\r\nheadwater-position: orders:7\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(answer_lengths(&bytes[..30]).unwrap(), None);
        let (head, body) = answer_lengths(bytes).unwrap().unwrap();
        assert_eq!((head + body, body), (bytes.len(), 2));
        let answer = answer(bytes, head).unwrap();
        assert_eq!(answer.position().unwrap(), 7);
        assert!(answer.json().unwrap().is_object());
    }

    #[test]
    fn an_answer_that_is_not_2xx_is_an_error_with_its_text() {
        let bytes = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy";
        let (head, _) = answer_lengths(bytes).unwrap().unwrap();
        let error = answer(bytes, head).unwrap_err().to_string();
        assert!(error.contains("503") && error.contains("busy"), "{error}");
    }
}
