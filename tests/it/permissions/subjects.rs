//! Everything that can be requested over NATS, and by whom.

use async_nats::HeaderMap;
use headwater::operator::Endpoint;
use serde_json::{Value, json};

/// The services, which are users of the broker.
pub(super) const SERVICES: [&str; 6] = [
    "users",
    "products",
    "orders",
    "purchases",
    "purchases-composition",
    "purchases-inquiry",
];

pub(super) const SOURCES: [&str; 3] = ["users", "products", "orders"];

/// The questions for names.
const NAMES: [&str; 2] = ["inquiry.users.v1.names", "inquiry.users.v1.search"];

pub(super) const STREAMS: [&str; 4] = ["USERS", "PRODUCTS", "ORDERS", "KV_headwater-schemas"];

/// What a projection may request from its own consumers.
const OF_A_READER: [&str; 4] = ["INFO", "RESET", "LEADER.STEPDOWN", "MSG.NEXT"];

/// A subject to request.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    pub(super) name: String,
    /// A valid request for it.
    pub(super) payload: String,
}

fn subject(name: impl Into<String>, payload: &Value) -> Subject {
    let payload = match payload {
        Value::Null => String::new(),
        payload => payload.to_string(),
    };
    Subject {
        name: name.into(),
        payload,
    }
}

/// The durable consumers of `stream`.
fn consumers(stream: &str) -> Vec<String> {
    let projections: &[&str] = match stream {
        "USERS" | "PRODUCTS" => &["purchases", "orders-catalogue"],
        "ORDERS" => &["purchases"],
        _ => &[],
    };
    let all = projections.iter().flat_map(|projection| {
        ["", "-rebuild", "-verify"].map(|suffix| format!("{projection}{suffix}"))
    });
    let mut all: Vec<String> = all.collect();
    // An effect is never rebuilt.
    all.extend((stream == "ORDERS").then(|| "orders-webhook".to_owned()));
    all
}

/// A consumer that delivers to any subject of its creator.
pub(super) fn pushing(stream: &str, to: &str) -> Value {
    json!({"stream_name": stream, "config": {
        "name": "evil", "deliver_subject": to, "ack_policy": "none", "deliver_policy": "all",
    }})
}

fn of_stream(stream: &str) -> Vec<Subject> {
    let api = |verb: &str, payload: Value| subject(format!("$JS.API.{verb}.{stream}"), &payload);
    let config = json!({"name": stream, "subjects": ["evil.>"], "max_msgs": 1});
    let mut all = vec![
        api("STREAM.CREATE", config.clone()),
        api("STREAM.UPDATE", config),
        api("STREAM.DELETE", Value::Null),
        api("STREAM.PURGE", Value::Null),
        api("STREAM.INFO", Value::Null),
        api("STREAM.MSG.GET", json!({"seq": 1})),
        api("STREAM.MSG.DELETE", json!({"seq": 1})),
        api("STREAM.SNAPSHOT", json!({"deliver_subject": "evil"})),
        api("STREAM.RESTORE", json!({})),
        api("STREAM.LEADER.STEPDOWN", Value::Null),
        api("STREAM.PEER.REMOVE", json!({"peer": "nats"})),
        api(
            "DIRECT.GET",
            json!({"seq": 1, "batch": 3, "next_by_subj": ">"}),
        ),
        api("CONSUMER.NAMES", Value::Null),
        api("CONSUMER.LIST", Value::Null),
        api("CONSUMER.CREATE", pushing(stream, "evil")),
    ];
    all.push(subject(
        format!("$JS.API.DIRECT.GET.{stream}.users.v1.forged.1"),
        &Value::Null,
    ));
    for consumer in consumers(stream).iter().map(String::as_str).chain(["evil"]) {
        let later = json!({"pause_until": "2100-01-01T00:00:00Z"});
        for (verb, payload) in [
            ("CREATE", pushing(stream, "evil")),
            ("DURABLE.CREATE", pushing(stream, "evil")),
            ("DELETE", Value::Null),
            ("INFO", Value::Null),
            ("MSG.NEXT", json!({"batch": 2, "no_wait": true})),
            ("RESET", json!({"seq": 1})),
            ("PAUSE", later),
            ("LEADER.STEPDOWN", Value::Null),
            ("UNPIN", json!({"group": "evil"})),
        ] {
            let name = format!("$JS.API.CONSUMER.{verb}.{stream}.{consumer}");
            all.push(subject(name, &payload));
        }
    }
    all
}

/// All subjects.
pub(super) fn all() -> Vec<Subject> {
    let mut all: Vec<Subject> = STREAMS.into_iter().flat_map(of_stream).collect();
    let evil = json!({"name": "EVIL", "subjects": ["evil.>"]});
    for (name, payload) in [
        ("$JS.API.INFO", Value::Null),
        ("$JS.API.STREAM.NAMES", Value::Null),
        ("$JS.API.STREAM.LIST", Value::Null),
        ("$JS.API.STREAM.CREATE.EVIL", evil),
        ("$JS.API.ACCOUNT.PURGE.BUS", Value::Null),
        ("$JS.API.META.LEADER.STEPDOWN", Value::Null),
        ("$JS.API.SERVER.REMOVE", json!({"peer": "nats"})),
        ("$JS.ACK.ORDERS.purchases.1.1.1.1.1", Value::Null),
        ("$JS.FC.ORDERS.purchases.1", Value::Null),
        ("$SYS.REQ.SERVER.PING", Value::Null),
        ("$SYS.REQ.SERVER.PING.STATSZ", Value::Null),
        ("$SYS.REQ.SERVER.PING.VARZ", Value::Null),
        ("$SRV.PING", Value::Null),
        ("$KV.headwater-schemas.evil", Value::Null),
        ("inquiry.answers.another.1", Value::Null),
        (NAMES[0], Value::Null),
        (NAMES[1], Value::Null),
        ("evil", Value::Null),
    ] {
        all.push(subject(name, &payload));
    }
    for service in SERVICES {
        let endpoints = Endpoint::ALL.map(|endpoint| endpoint.subject(service));
        let others = [
            format!("headwater.{service}.evil"),
            format!("$SRV.INFO.{service}"),
            format!("$SRV.STATS.{service}.someone"),
            format!("_INBOX_{service}.1.1"),
        ];
        let named = endpoints.into_iter().chain(others);
        all.extend(named.map(|name| subject(name, &json!({}))));
    }
    for source in SOURCES {
        // The stored message is a valid request for a consumer, so that it can be sent to that API.
        let payload = pushing("ORDERS", "orders.v1.placed.1");
        for name in [
            format!("{source}.v1.forged.1"),
            format!("{source}.forged"),
            format!("$KV.headwater-schemas.{source}"),
            format!("inquiry.{source}.v1.asked"),
        ] {
            all.push(subject(name, &payload));
        }
    }
    all
}

/// Headers that would make the server do more than store a message.
pub(super) fn headers() -> Vec<HeaderMap> {
    let all: [&[(&str, &str)]; 8] = [
        &[("Nats-Rollup", "all")],
        &[("Nats-Rollup", "sub")],
        &[
            ("Nats-Schedule", "@every 1s"),
            ("Nats-Schedule-Target", "orders.v1.placed.1"),
        ],
        &[("Nats-TTL", "1s")],
        &[("Nats-Marker-Reason", "Purge")],
        &[("KV-Operation", "PURGE"), ("Nats-Rollup", "sub")],
        &[
            ("Nats-Batch-Id", "evil"),
            ("Nats-Batch-Sequence", "1"),
            ("Nats-Batch-Commit", "1"),
        ],
        &[("Nats-Incr", "+1")],
    ];
    let read = |pairs: &[(&str, &str)]| {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, *value);
        }
        headers
    };
    all.into_iter().map(read).collect()
}

/// The projection of a user, and its sources.
fn read(user: &str) -> (&'static str, &'static [&'static str]) {
    match user {
        "orders" => ("orders-catalogue", &["users", "products"]),
        "purchases" => ("purchases", &SOURCES),
        _ => ("", &[]),
    }
}

/// What a user may request, as patterns; independent of the broker's configuration.
pub(super) fn allowed(user: &str) -> Vec<String> {
    let mut may: Vec<String> = Vec::new();
    let mut add = |patterns: &[&str]| may.extend(patterns.iter().map(|&one| one.to_owned()));
    let upper = user.to_uppercase();
    if user == "viewer" {
        add(&[
            "$JS.API.INFO",
            "$JS.API.STREAM.NAMES",
            "$JS.API.STREAM.LIST",
            "$JS.API.STREAM.INFO.*",
            "$JS.API.STREAM.MSG.GET.*",
            "$JS.API.DIRECT.GET.>",
            "$JS.API.CONSUMER.NAMES.*",
            "$JS.API.CONSUMER.LIST.*",
            "$JS.API.CONSUMER.INFO.*.*",
            "$SYS.REQ.SERVER.PING.STATSZ",
            "$SRV.>",
            "headwater.*.status",
        ]);
        for source in SOURCES {
            may.extend(
                ["events", "backup.status"].map(|name| format!("headwater.{source}.{name}")),
            );
            may.extend(
                ["list", "show", "discarded"]
                    .map(|name| format!("headwater.{source}.dead-letters.{name}")),
            );
        }
        may.extend(
            ["list", "show", "discarded"]
                .map(|name| format!("headwater.purchases.dead-letters.{name}")),
        );
        for service in ["orders", "purchases"] {
            may.extend(["verify", "fold"].map(|name| format!("headwater.{service}.{name}")));
        }
        return may;
    }
    // Its own account, where it is alone.
    may.extend([
        format!("headwater.{user}.>"),
        "$SRV.PING".to_owned(),
        format!("$SRV.*.{user}"),
        format!("$SRV.*.{user}.*"),
    ]);
    if SOURCES.contains(&user) {
        may.extend([
            "$JS.API.INFO".to_owned(),
            "$SYS.REQ.SERVER.PING.STATSZ".to_owned(),
            format!("{user}.>"),
            format!("$JS.API.STREAM.INFO.{upper}"),
            format!("$JS.API.STREAM.MSG.GET.{upper}"),
            format!("$JS.API.DIRECT.GET.{upper}"),
            format!("$JS.API.DIRECT.GET.{upper}.>"),
            format!("$KV.headwater-schemas.{user}"),
            "$JS.API.STREAM.INFO.KV_headwater-schemas".to_owned(),
            "$JS.API.STREAM.MSG.GET.KV_headwater-schemas".to_owned(),
            "$JS.API.DIRECT.GET.KV_headwater-schemas.>".to_owned(),
            format!("inquiry.{user}.v1.asked"),
        ]);
    }
    let reads = read(user);
    for source in reads.1 {
        let stream = source.to_uppercase();
        may.push("$JS.API.INFO".to_owned());
        may.push(format!("$JS.API.STREAM.INFO.{stream}"));
        may.push(format!("headwater.{source}.events"));
        for suffix in ["", "-rebuild", "-verify"] {
            may.extend(
                OF_A_READER
                    .map(|verb| format!("$JS.API.CONSUMER.{verb}.{stream}.{}{suffix}", reads.0)),
            );
        }
    }
    if user == "orders" {
        may.extend(
            OF_A_READER.map(|verb| format!("$JS.API.CONSUMER.{verb}.ORDERS.orders-webhook")),
        );
    }
    if user == "purchases-inquiry" {
        may.extend(SOURCES.map(|source| format!("inquiry.{source}.v1.asked")));
    }
    if ["users", "purchases", "purchases-inquiry"].contains(&user) {
        may.extend(NAMES.map(str::to_owned));
    }
    may
}

/// What other users may request from a service, as patterns.
pub(super) fn served(service: &str) -> Vec<String> {
    let mut served = vec![
        format!("headwater.{service}.>"),
        "$SRV.*".to_owned(),
        format!("$SRV.*.{service}"),
        format!("$SRV.*.{service}.*"),
    ];
    if SOURCES.contains(&service) {
        served.push(format!("inquiry.{service}.v1.asked"));
    }
    if service == "users" {
        served.extend(NAMES.map(str::to_owned));
    }
    served
}

/// What a user may hear from others, as patterns.
pub(super) fn heard(user: &str) -> Vec<String> {
    if user == "viewer" {
        let events = SOURCES.map(|source| format!("{source}.*.>"));
        let questions = ["inquiry.*.v1.asked".to_owned()];
        return events.into_iter().chain(questions).collect();
    }
    // The events that its own consumers deliver.
    let read = read(user).1.iter().map(|source| format!("{source}.>"));
    let own = (user == "orders").then(|| "orders.>".to_owned());
    served(user).into_iter().chain(read).chain(own).collect()
}

/// Whether one of `patterns` matches the subject.
pub(super) fn is_one_of(patterns: &[String], subject: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern, subject))
}

fn matches(pattern: &str, subject: &str) -> bool {
    let mut rest = subject.split('.');
    for token in pattern.split('.') {
        match (token, rest.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (token, Some(given)) if token == given => {}
            _ => return false,
        }
    }
    rest.next().is_none()
}
