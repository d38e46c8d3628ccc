//! A simulated service whose answers to operators are set by the test.

use std::sync::{Arc, Mutex};

use async_nats::{Client, HeaderMap};
use broker::Broker;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// An answer of an endpoint: a value, or a code and a reason.
pub(crate) type Answer = Result<Value, (u16, &'static str)>;

/// Answers until it is dropped.
pub(crate) struct Played {
    asked: Arc<Mutex<Vec<(String, Value)>>>,
    _tasks: JoinSet<()>,
}

impl Played {
    /// Simulates the service `name`. `answer` gets the endpoint, the request, and the number of
    /// earlier requests to this endpoint.
    pub(crate) async fn start(
        broker: &Broker,
        name: &'static str,
        answer: impl Fn(&str, &Value, usize) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let client = async_nats::connect(broker.url()).await.expect("connect");
        let subject = format!("headwater.{name}.>");
        let mut requests = client.subscribe(subject).await.expect("subscribe");
        let mut calls = client.subscribe("$SRV.INFO").await.expect("subscribe");
        client.flush().await.expect("flush");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        let (noted, caller) = (Arc::clone(&asked), client.clone());
        tasks.spawn(async move {
            while let Some(call) = calls.next().await {
                respond(&caller, call.reply, Ok(info(name))).await;
            }
        });
        tasks.spawn(async move {
            while let Some(request) = requests.next().await {
                let prefix = format!("headwater.{name}.");
                let endpoint = request.subject.strip_prefix(&prefix).expect("ours");
                let value: Value = serde_json::from_slice(&request.payload).expect("JSON");
                let before = note(&noted, endpoint, &value);
                let given = answer(endpoint, &value, before);
                respond(&client, request.reply, given).await;
            }
        });
        Self {
            asked,
            _tasks: tasks,
        }
    }

    /// The requests to an endpoint, in order.
    pub(crate) fn requests(&self, endpoint: &str) -> Vec<Value> {
        let asked = self.asked.lock().expect("requests");
        let of_endpoint = asked.iter().filter(|(name, _)| name == endpoint);
        of_endpoint.map(|(_, request)| request.clone()).collect()
    }
}

/// Notes a request; returns the number of earlier requests to the same endpoint.
fn note(asked: &Mutex<Vec<(String, Value)>>, endpoint: &str, request: &Value) -> usize {
    let mut asked = asked.lock().expect("requests");
    let before = asked.iter().filter(|(name, _)| name == endpoint).count();
    asked.push((endpoint.to_owned(), request.clone()));
    before
}

async fn respond(client: &Client, reply: Option<async_nats::Subject>, answer: Answer) {
    let reply = reply.expect("a reply subject");
    let (headers, body) = match answer {
        Ok(value) => (HeaderMap::new(), value.to_string()),
        Err((code, reason)) => {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Service-Error", reason);
            headers.insert("Nats-Service-Error-Code", code.to_string().as_str());
            (headers, String::new())
        }
    };
    let sent = client.publish_with_headers(reply, headers, body.into());
    sent.await.expect("answered");
}

fn info(name: &str) -> Value {
    let endpoints = ["status", "dead-letters.list", "dead-letters.discarded"].map(|endpoint| {
        json!({
            "name": endpoint.replace('.', "-"), "subject": format!("headwater.{name}.{endpoint}"),
            "queue_group": "q", "metadata": {},
        })
    });
    json!({
        "type": "io.nats.micro.v1.info_response", "name": name, "id": name, "version": "0.1.0",
        "description": "", "metadata": {}, "endpoints": endpoints,
    })
}

/// The status of a service without an outbox and with one projection.
pub(crate) fn status(service: &str, projection: &Value) -> Value {
    json!({
        "service": service, "epoch": "x7", "head": 0, "parts": {}, "projections": [projection],
    })
}

/// The status of a rebuild.
pub(crate) fn rebuild(state: &str, more: &Value) -> Value {
    let mut status = json!({
        "state": state, "then": "compare", "reason": "by hand",
        "positions": {"sensors": 3}, "live": {"sensors": 3},
        "differences": null, "message": null, "held_us": null,
    });
    for (name, value) in more.as_object().expect("an object") {
        status[name] = value.clone();
    }
    status
}
