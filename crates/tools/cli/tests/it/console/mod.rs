//! `headwater console` over HTTP, against a real source and a real read store.

use std::process::Command;

use reqwest::{Client, RequestBuilder, Response, StatusCode, header, redirect};
use serde_json::Value;
use tempfile::TempDir;

use crate::source::{Source, eventually};
use crate::tool::{self, Tool};

mod access;
mod actions;
mod backup;
mod events;
mod letters;
mod overview;
mod personal;
mod replay;

/// A console, and a browser that was given its address.
struct Console {
    tool: Tool,
    /// `http://127.0.0.1:7777`.
    base: String,
    token: String,
    cookie: String,
    client: Client,
    folder: TempDir,
}

impl Console {
    async fn start(source: &Source, flags: &[&str], login: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let state = folder.path().to_str().expect("UTF-8").to_owned();
        let url = source.broker.url();
        let environment = [&[("NATS_URL", &*url), ("XDG_STATE_HOME", &*state)], login].concat();
        let line = [&["console", "--every=300ms"], flags].concat();
        let mut tool = tool::start(&line, &environment);
        let address = tool.says().await;
        let (base, token) = address.trim().split_once("/?token=").expect("a token");
        let client = Client::builder().redirect(redirect::Policy::none());
        let client = client.build().expect("a client");
        let mut console = Self {
            tool,
            base: base.to_owned(),
            token: token.to_owned(),
            cookie: String::new(),
            client,
            folder,
        };
        let entered = console.bare(&format!("/?token={token}")).send().await;
        let entered = entered.expect("an answer");
        assert_eq!(entered.status(), StatusCode::SEE_OTHER);
        assert_eq!(entered.headers()[header::LOCATION], "/");
        let cookie = entered.headers()[header::SET_COOKIE]
            .to_str()
            .expect("text");
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"));
        cookie
            .split(';')
            .next()
            .expect("a pair")
            .clone_into(&mut console.cookie);
        console
    }

    async fn as_operator(source: &Source) -> Self {
        Self::start(source, &["--as-operator"], &[]).await
    }

    /// A request without the cookie.
    fn bare(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.base))
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.bare(path).header(header::COOKIE, &self.cookie)
    }

    /// The status and the page.
    async fn page(&self, path: &str) -> (StatusCode, String) {
        let answer = self.get(path).send().await.expect("an answer");
        (answer.status(), answer.text().await.expect("text"))
    }

    /// The page, once it has all the texts.
    async fn shows(&self, path: &str, texts: &[&str]) -> String {
        let what = format!("{path} with {texts:?}");
        eventually(&what, async || {
            let (status, text) = self.page(path).await;
            let has_all = texts.iter().all(|it| text.contains(it));
            if status == StatusCode::OK && has_all {
                Ok(text)
            } else {
                Err(format!("{status}: {text}"))
            }
        })
        .await
    }

    fn post(&self, path: &str, body: String) -> RequestBuilder {
        let url = format!("{}{path}", self.base);
        let request = self.client.post(url).header(header::COOKIE, &self.cookie);
        let form = "application/x-www-form-urlencoded";
        let request = request.header(header::CONTENT_TYPE, form);
        request.header(header::ORIGIN, &self.base).body(body)
    }

    /// Confirms an action on its page, and does it; returns its page when it has ended.
    async fn does(&self, query: &str, reason: &str) -> (String, String) {
        let (status, confirm) = self.page(&format!("/confirm?{query}")).await;
        assert_eq!(status, StatusCode::OK, "{query}: {confirm}");
        let body = format!("{query}&reason={reason}");
        let begun = self.post("/actions", body).send().await.expect("an answer");
        assert_eq!(begun.status(), StatusCode::SEE_OTHER, "{query}");
        let path = begun.headers()[header::LOCATION].to_str().expect("text");
        let ended = eventually("the action to end", async || {
            let (_, text) = self.page(path).await;
            if text.contains("data-live") {
                Err(text)
            } else {
                Ok(text)
            }
        })
        .await;
        (confirm, ended)
    }

    /// The entries of the log's file, the oldest first: what and outcome.
    fn log(&self) -> Vec<(String, String)> {
        let file = self.folder.path().join("headwater/console.log");
        let text = std::fs::read_to_string(file).expect("the log");
        let entry = |line: &str| {
            let entry: Value = serde_json::from_str(line).expect("JSON");
            let text = |name: &str| entry[name].as_str().expect(name).to_owned();
            assert!(
                !text("user").is_empty() && !text("nats").is_empty(),
                "{entry}"
            );
            (text("what"), text("outcome"))
        };
        text.lines().map(entry).collect()
    }

    /// Ends it as Ctrl-C does.
    async fn close(self) {
        let id = self.tool.id().expect("it runs").to_string();
        let signalled = Command::new("kill").args(["-INT", &id]).status();
        assert!(signalled.expect("run kill").success());
        let ended = self.tool.end().await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
}

async fn status(request: RequestBuilder) -> StatusCode {
    request.send().await.expect("an answer").status()
}

/// Reads server-sent events until one has the text.
async fn hears(mut stream: Response, text: &str) -> String {
    let mut heard = String::new();
    let reading = async {
        while let Some(chunk) = stream.chunk().await.expect("a chunk") {
            heard.push_str(&String::from_utf8_lossy(&chunk));
            if heard.contains(text) {
                return;
            }
        }
        panic!("the stream ended");
    };
    let waited = tokio::time::timeout(headwater_testkit::PATIENCE, reading).await;
    assert!(waited.is_ok(), "{text} is not in {heard}");
    heard
}
