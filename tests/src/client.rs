//! An HTTP client for the tests.

use std::net::IpAddr;
use std::time::Duration;

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::Value;

use crate::eventually;

/// A client of one service.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
}

/// An answer, read to the end.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: StatusCode,
    /// `Content-Type`.
    pub content_type: String,
    /// `Headwater-Position`, if there was one.
    pub position: Option<String>,
    /// `Retry-After`, if there was one.
    pub retry_after: Option<String>,
    pub text: String,
    /// The body if it is JSON, else `null`.
    pub json: Value,
}

impl Client {
    pub(crate) fn new(base: String) -> Self {
        Self::build(base, None)
    }

    fn build(base: String, from: Option<IpAddr>) -> Self {
        // Services close a connection after 10 s idle, possibly just as a test reuses it.
        let http = reqwest::Client::builder()
            .no_proxy()
            .local_address(from)
            .pool_idle_timeout(Duration::from_secs(5))
            .build();
        Self {
            http: http.expect("a client with defaults"),
            base,
        }
    }

    /// A client of the same service that connects from another address of this machine, for example
    /// 127.0.0.2.
    #[must_use]
    pub fn from(&self, address: IpAddr) -> Self {
        Self::build(self.base.clone(), Some(address))
    }

    /// A client of the service at `address`.
    pub fn at(address: std::net::SocketAddr) -> Self {
        Self::new(format!("http://{address}"))
    }

    /// The service's address.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// A request to customise before sending it.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    pub async fn get(&self, path: &str) -> Reply {
        send(self.request(Method::GET, path)).await
    }

    /// Reads all pages of a list. Returns the first page with the items of all pages in `field`, or
    /// the first page with an error status.
    pub async fn get_all(&self, path: &str, field: &str) -> Reply {
        let mut reply = self.get(path).await;
        while let Some(next) = reply.json["next"].as_str().map(str::to_owned) {
            let mut page = self.get(&next).await;
            let items = page.json[field].as_array_mut().map(std::mem::take);
            let (Some(items), Some(all)) = (items, reply.json[field].as_array_mut()) else {
                return page;
            };
            all.extend(items);
            reply.json["next"] = page.json["next"].take();
        }
        reply
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        send(self.request(Method::POST, path).json(body)).await
    }

    /// Posts JSON and expects 201. Repeats the request after a 503, as its `Retry-After` says.
    pub async fn create(&self, path: &str, body: &Value) -> Reply {
        let reply = eventually("an answer other than 503", || async {
            let reply = self.post(path, body).await;
            match reply.status {
                StatusCode::SERVICE_UNAVAILABLE => Err(reply.text),
                _ => Ok(reply),
            }
        })
        .await;
        assert_eq!(
            reply.status,
            StatusCode::CREATED,
            "{path} {body}: {}",
            reply.text
        );
        reply
    }
}

pub async fn send(request: RequestBuilder) -> Reply {
    try_send(request).await.expect("an answer")
}

/// Sends a request; the connection may fail.
pub async fn try_send(request: RequestBuilder) -> reqwest::Result<Reply> {
    let response = request.send().await?;
    let header = |name: &str| {
        let value = response.headers().get(name)?;
        value.to_str().ok().map(str::to_owned)
    };
    let (content_type, position) = (header("content-type"), header("headwater-position"));
    let retry_after = header("retry-after");
    let status = response.status();
    let text = response.text().await?;
    Ok(Reply {
        status,
        content_type: content_type.unwrap_or_default(),
        position,
        retry_after,
        json: serde_json::from_str(&text).unwrap_or_default(),
        text,
    })
}

impl Reply {
    pub fn id(&self) -> String {
        self.json["id"].as_str().expect("an id").to_owned()
    }

    /// The `Headwater-Position` header.
    pub fn position(&self) -> &str {
        self.position.as_deref().expect("a Headwater-Position")
    }
}
