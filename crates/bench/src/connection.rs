//! One HTTP/1.1 connection that sends the same POST again and again.
//!
//! The load shares the machine with what is measured, so it has to be cheap: a general client
//! took as much of the processor as the service. Not for anything else.

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A kept-alive connection and the request that it sends.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Connection {
    /// Connects to `address` (`host:port`).
    pub(crate) async fn open(address: &str, path: &str, json: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.context("connect")?;
        stream.set_nodelay(true)?;
        let length = json.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n{json}"
        );
        Ok(Self {
            stream,
            request: request.into_bytes(),
            answer: Vec::with_capacity(4096),
        })
    }

    /// Sends the request and reads the answer, which must be 201.
    pub(crate) async fn post(&mut self) -> anyhow::Result<()> {
        self.stream.write_all(&self.request).await?;
        self.answer.clear();
        loop {
            if self.stream.read_buf(&mut self.answer).await? == 0 {
                bail!("the connection was closed");
            }
            if let Some(length) = answer_length(&self.answer)?
                && self.answer.len() >= length
            {
                break;
            }
        }
        let line = self.answer.split(|byte| *byte == b'\r').next();
        let line = String::from_utf8_lossy(line.unwrap_or_default());
        ensure!(line.starts_with("HTTP/1.1 201"), "answered {line}");
        Ok(())
    }
}

/// How long the answer is, head and body, once the head is there.
fn answer_length(answer: &[u8]) -> anyhow::Result<Option<usize>> {
    let Some(head) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&answer[..head]).context("read the head")?;
    let body = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .context("no content-length")?;
    let body: usize = body.parse().context("read the content-length")?;
    Ok(Some(head + 4 + body))
}
