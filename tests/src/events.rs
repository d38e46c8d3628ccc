//! A client of a stream of server-sent events.

use std::time::Duration;

use reqwest::{Method, Response, StatusCode};
use serde_json::Value;
use tokio::time::timeout;

use crate::{Client, PATIENCE};

/// An open stream.
#[derive(Debug)]
pub struct Events {
    response: Response,
    text: String,
}

/// An event with data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub name: String,
    /// Empty if it has none.
    pub id: String,
    pub data: Value,
}

impl Events {
    /// Opens the stream at `path`; `last` is the id of the last event of an earlier stream.
    pub async fn open(client: &Client, path: &str, last: Option<&str>) -> Self {
        let response = Self::ask(client, path, last).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let kind = response.headers()["content-type"].to_str();
        assert_eq!(kind.expect("text"), "text/event-stream", "{path}");
        Self {
            response,
            text: String::new(),
        }
    }

    /// The answer to a request for a stream.
    pub async fn ask(client: &Client, path: &str, last: Option<&str>) -> Response {
        let mut request = client.request(Method::GET, path);
        request = request.header("accept", "text/event-stream");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        request.send().await.expect("an answer")
    }

    /// The next event; `None` at the end of the stream, in order or not.
    pub async fn next(&mut self) -> Option<Event> {
        let next = timeout(PATIENCE, self.read()).await;
        next.unwrap_or_else(|_| panic!("no event came; {:?}", self.text))
    }

    /// The next event, if one comes `within` this time.
    pub async fn next_within(&mut self, within: Duration) -> Option<Event> {
        timeout(within, self.read()).await.ok().flatten()
    }

    async fn read(&mut self) -> Option<Event> {
        loop {
            while let Some(end) = self.text.find("\n\n") {
                let block: String = self.text.drain(..end + 2).collect();
                let event = event(&block);
                if event.is_some() {
                    return event;
                }
            }
            let chunk = self.response.chunk().await.ok().flatten()?;
            let chunk = std::str::from_utf8(&chunk).expect("whole characters");
            self.text.push_str(chunk);
        }
    }
}

/// An event, unless it only says when to reconnect or that the stream is alive.
fn event(block: &str) -> Option<Event> {
    let field = |name: &str| {
        let mut lines = block.lines();
        lines.find_map(|line| Some(line.strip_prefix(name)?.trim_start_matches([':', ' '])))
    };
    let data = field("data")?;
    Some(Event {
        name: field("event").unwrap_or("message").to_owned(),
        id: field("id").unwrap_or_default().to_owned(),
        data: serde_json::from_str(data).unwrap_or_else(|error| panic!("{data}: {error}")),
    })
}
