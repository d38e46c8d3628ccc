//! Asks the same question in all three styles, while people watch.

use std::time::Duration;

use reqwest::{Client, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::board::{Board, Style};
use super::heads::{Behind, Positions};
use super::track::{Answer, Sample};
use crate::http::cause;
use crate::ports::Ports;
use crate::service::Service;

/// How often each style is asked, unless an answer takes longer.
const EVERY: Duration = Duration::from_millis(100);

/// Longer than the services take to say that a source does not answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The question: what one user ordered.
#[derive(Clone, Debug)]
pub(super) struct Question {
    client: Client,
    urls: [(Style, String); 3],
}

/// The answer of `GET /users/{id}/purchases`.
#[derive(Deserialize)]
struct Page {
    purchases: Vec<Purchase>,
    as_of: Positions,
    next: Option<Value>,
}

#[derive(Deserialize)]
struct Purchase {
    title: Option<String>,
}

impl Question {
    pub(super) fn new(client: Client, ports: &Ports, user: &str) -> Self {
        let url = |style: Style| {
            let base = ports.url(Service::named(style.service()));
            (style, format!("{base}/users/{user}/purchases?limit=1000"))
        };
        Self {
            client,
            urls: Style::ALL.map(url),
        }
    }

    /// Asks again and again while there are viewers.
    pub(super) async fn keep_asking(self, board: Board, viewers: watch::Receiver<usize>) {
        let mut styles = JoinSet::new();
        for (style, url) in self.urls {
            let (client, board, mut viewers) =
                (self.client.clone(), board.clone(), viewers.clone());
            styles.spawn(async move {
                while viewers.wait_for(|viewers| *viewers > 0).await.is_ok() {
                    let asked = Instant::now();
                    ask(&client, style, &url, &board).await;
                    sleep_until(asked + EVERY).await;
                }
            });
        }
        while styles.join_next().await.is_some() {}
    }

    /// Asks once in each style.
    pub(super) async fn ask_once(&self, board: &Board) {
        let [a, b, c] = &self.urls;
        let ask = async |(style, url): &(Style, String)| {
            ask(&self.client, *style, url, board).await;
        };
        tokio::join!(ask(a), ask(b), ask(c));
    }
}

async fn ask(client: &Client, style: Style, url: &str, board: &Board) {
    let asked = Instant::now();
    board.known().asked(style, asked);
    let answer = answer(client, style, url).await;
    let sample = Sample {
        asked,
        took: asked.elapsed(),
        answer,
        behind: Behind::default(),
    };
    board.known().answered(style, sample);
}

async fn answer(client: &Client, style: Style, url: &str) -> Result<Answer, String> {
    let no_answer = |error: reqwest::Error| {
        let name = style.service();
        format!("{name} does not answer ({}).", cause(&error))
    };
    let answer = client.get(url).timeout(PATIENCE).send().await;
    let answer = answer.map_err(no_answer)?;
    let status = answer.status();
    if status != StatusCode::OK {
        let problem: Value = answer.json().await.unwrap_or_default();
        let detail = problem["detail"].as_str().unwrap_or("no reason given");
        return Err(format!("{} ({detail}).", status.as_u16()));
    }
    let page: Page = answer.json().await.map_err(no_answer)?;
    let more = if page.next.is_some() { "+" } else { "" };
    Ok(Answer {
        products: format!("{}{more}", page.purchases.len()),
        last: page
            .purchases
            .into_iter()
            .next_back()
            .and_then(|it| it.title),
        as_of: page.as_of,
    })
}
