//! Requests without a pause on raw connections, which never retry: a connection that is refused,
//! reset, or closed without an answer fails the test.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long a connection is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// For one request.
    Once,
    /// Until the server closes it.
    Kept,
}

/// Clients that send requests until the test stops them.
#[derive(Debug)]
pub struct Hammer {
    clients: JoinSet<()>,
    stop: CancellationToken,
    answered: Arc<AtomicUsize>,
}

impl Hammer {
    /// Starts `clients` clients per kind of connection for each of the `targets`.
    pub fn begin(clients: usize, targets: Vec<Target>) -> Self {
        let mut hammer = Self {
            clients: JoinSet::new(),
            stop: CancellationToken::new(),
            answered: Arc::default(),
        };
        for target in targets {
            for client in 0..clients {
                for kind in [Use::Once, Use::Kept] {
                    let (stop, answered) = (hammer.stop.clone(), Arc::clone(&hammer.answered));
                    hammer
                        .clients
                        .spawn(requests(target.clone(), kind, client, stop, answered));
                }
            }
        }
        hammer
    }

    pub fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// Stops in the middle of requests.
    pub async fn abandon(mut self) {
        self.clients.shutdown().await;
    }

    /// Stops, and returns how many requests were answered.
    pub async fn end(mut self) -> usize {
        self.stop.cancel();
        while let Some(ended) = self.clients.join_next().await {
            ended.expect("every request is answered");
        }
        self.answered.load(Ordering::Relaxed)
    }
}

/// A request and its destination.
#[derive(Debug, Clone)]
pub struct Target {
    pub address: SocketAddr,
    /// Method and path.
    pub line: &'static str,
    /// The body; each `#` becomes a new text for each request.
    pub body: &'static str,
}

async fn requests(
    target: Target,
    kind: Use,
    client: usize,
    stop: CancellationToken,
    answered: Arc<AtomicUsize>,
) {
    let mut kept = None;
    let mut count = 0;
    while !stop.is_cancelled() {
        count += 1;
        let body = target
            .body
            .replace('#', &format!("{kind:?}-{client}-{count}"));
        let mut stream = match kept.take() {
            Some(stream) => stream,
            None => TcpStream::connect(target.address)
                .await
                .unwrap_or_else(|error| panic!("{target:?}, to connect: {error}")),
        };
        let is_open = request(&mut stream, &target, &body, kind)
            .await
            .unwrap_or_else(|error| panic!("{target:?} {kind:?} {count}: {error}"));
        if is_open && kind == Use::Kept {
            kept = Some(stream);
        }
        answered.fetch_add(1, Ordering::Relaxed);
        // Leave some processor time to the services.
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}

/// Sends a request and reads the answer; returns whether the connection stays open.
async fn request(
    stream: &mut TcpStream,
    target: &Target,
    body: &str,
    kind: Use,
) -> Result<bool, String> {
    let close = if kind == Use::Once {
        "connection: close\r\n"
    } else {
        ""
    };
    let request = format!(
        "{} HTTP/1.1\r\nhost: localhost\r\n{close}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        target.line,
        body.len()
    );
    let failed = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(failed("to send"))?;
    let (mut answer, mut head_len) = (Vec::new(), None);
    loop {
        if head_len.is_none() {
            head_len = answer
                .windows(4)
                .position(|four| four == b"\r\n\r\n")
                .map(|at| at + 4);
        }
        if let Some(head_len) = head_len {
            let head = String::from_utf8_lossy(&answer[..head_len]).to_ascii_lowercase();
            let value = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
            let length = value("content-length:").and_then(|text| text.trim().parse().ok());
            let length: usize = length.ok_or_else(|| format!("no length: {head}"))?;
            if answer.len() >= head_len + length {
                let status = head.split(' ').nth(1).unwrap_or_default();
                if !status.starts_with('2') {
                    return Err(String::from_utf8_lossy(&answer).into_owned());
                }
                return Ok(value("connection:").is_none_or(|value| value.trim() != "close"));
            }
        }
        let read = stream.read_buf(&mut answer).await;
        if read.map_err(failed("to read the answer"))? == 0 {
            return Err(format!("closed without an answer ({} bytes)", answer.len()));
        }
    }
}
