//! A receiver of webhooks that keeps all deliveries in memory.

use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use headwater::http;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The secret of the deliveries.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A delivery.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Delivery {
    /// Its `webhook-id`.
    pub id: String,
    /// The order in its body.
    pub order: String,
}

/// Listens until it is dropped.
#[derive(Debug)]
pub struct Receiver {
    deliveries: Arc<Mutex<Vec<Delivery>>>,
    url: String,
    folder: TempDir,
    _serving: JoinSet<Result<(), http::Error>>,
}

impl Receiver {
    pub async fn start() -> Self {
        let deliveries = Arc::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let app = Router::new()
            .route("/orders", post(take))
            .with_state(Arc::clone(&deliveries));
        let config = http::Config::default();
        let mut serving = JoinSet::new();
        serving.spawn(http::serve(listener, app, config, CancellationToken::new()));
        let folder = TempDir::new().expect("make a folder");
        std::fs::write(folder.path().join("secret"), SECRET).expect("write the secret");
        Self {
            deliveries,
            url: format!("http://{address}/orders"),
            folder,
            _serving: serving,
        }
    }

    /// Makes `orders` send its orders here.
    pub fn of(&self) -> impl Fn(&mut Command) {
        let (url, secret) = (self.url.clone(), self.folder.path().join("secret"));
        move |command| {
            command
                .env("HEADWATER_WEBHOOK_URL", &url)
                .env("HEADWATER_WEBHOOK_SECRET_FILE", &secret)
                .env("HEADWATER_WEBHOOK_PRIVATE_NETWORKS", "1");
        }
    }

    /// All deliveries so far, in their order.
    pub fn deliveries(&self) -> Vec<Delivery> {
        let deliveries = self.deliveries.lock();
        deliveries.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn take(
    State(deliveries): State<Arc<Mutex<Vec<Delivery>>>>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> StatusCode {
    let id = headers
        .get("webhook-id")
        .and_then(|value| value.to_str().ok());
    let order = body["data"]["order_id"].as_str();
    let is_signed = headers.contains_key("webhook-signature");
    let (Some(id), Some(order), true) = (id, order, is_signed) else {
        return StatusCode::BAD_REQUEST;
    };
    let delivery = Delivery {
        id: id.to_owned(),
        order: order.to_owned(),
    };
    let mut deliveries = deliveries.lock().unwrap_or_else(PoisonError::into_inner);
    deliveries.push(delivery);
    StatusCode::NO_CONTENT
}
