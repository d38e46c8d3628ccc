//! Everything that can be requested over NATS, and by whom.
//!
//! Who there is follows from the list of services; what each may do stands here, independent of what
//! writes the broker's configuration.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use async_nats::HeaderMap;
use e2e::Service;
use headwater::operator::Endpoint;
use serde_json::{Value, json};

/// The list of services.
static SHOP: LazyLock<Vec<shop::Service>> =
    LazyLock::new(|| shop::services(&e2e::installed::repository()).unwrap());

/// The services in all their styles, which are users of the broker.
pub(super) fn services() -> impl Iterator<Item = &'static str> {
    let services = Service::ALL.into_iter().chain(Service::STYLES);
    let services: BTreeSet<Service> = services.collect();
    services.into_iter().map(Service::name)
}

pub(super) fn sources() -> [&'static str; Service::SOURCES.len()] {
    Service::SOURCES.map(Service::name)
}

pub(super) fn streams() -> Vec<String> {
    let events = sources().map(str::to_uppercase).into_iter();
    events.chain(["KV_headwater-schemas".to_owned()]).collect()
}

/// The service that runs under this name, and whether in its usual style or in style request-reply.
fn service(user: &str) -> Option<(&'static shop::Service, bool, bool)> {
    SHOP.iter().find_map(|service| {
        let mut styles = service.styles.iter();
        let is_usual = service.name == user;
        let style = styles.find(|style| style.name == user);
        let asks = style.is_some_and(|style| style.style == "request-reply");
        (is_usual || style.is_some()).then_some((service, is_usual, asks))
    })
}

/// The questions that are not asked by style request-reply only.
fn questions() -> impl Iterator<Item = (&'static str, String)> {
    let all: BTreeSet<&str> = SHOP
        .iter()
        .flat_map(|it| &it.asks)
        .map(String::as_str)
        .collect();
    all.into_iter().map(|question| {
        let of = question.split('.').next().unwrap_or_default();
        (of, format!("inquiry.{question}"))
    })
}

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
    let reads = |sources: &[String]| sources.iter().any(|source| source.to_uppercase() == stream);
    let mut all = Vec::new();
    for service in SHOP.iter() {
        for (projection, _) in service.projections.iter().filter(|(_, it)| reads(it)) {
            all.extend(["", "-rebuild", "-verify"].map(|suffix| format!("{projection}{suffix}")));
        }
        // An effect is never rebuilt.
        let effects = service.effects.iter().filter(|(_, it)| reads(it));
        all.extend(effects.map(|(effect, _)| effect.clone()));
    }
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
    let streams = streams();
    let mut all: Vec<Subject> = streams.iter().flat_map(|it| of_stream(it)).collect();
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
        ("evil", Value::Null),
    ] {
        all.push(subject(name, &payload));
    }
    all.extend(questions().map(|(_, question)| subject(question, &Value::Null)));
    for service in services() {
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
    for source in sources() {
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
        for service in SHOP.iter() {
            let mut looks = vec!["dead-letters.list", "dead-letters.show"];
            looks.push("dead-letters.discarded");
            if service.source {
                looks.extend(["events", "backup.status"]);
            }
            if !service.projections.is_empty() {
                looks.extend(["verify", "fold"]);
            }
            let name = &service.name;
            may.extend(looks.iter().map(|it| format!("headwater.{name}.{it}")));
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
    let (service, is_usual, asks) = service(user).expect("a service");
    if is_usual && service.source {
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
        ]);
    }
    let all = ["", "-rebuild", "-verify"];
    let projections = service.projections.iter().map(|it| (it, &all[..]));
    // An effect is never rebuilt.
    let effects = service.effects.iter().map(|it| (it, &all[..1]));
    let reading = projections.chain(effects).filter(|_| is_usual);
    for ((reader, sources), suffixes) in reading {
        for source in sources {
            let stream = source.to_uppercase();
            may.push("$JS.API.INFO".to_owned());
            may.push(format!("$JS.API.STREAM.INFO.{stream}"));
            may.push(format!("headwater.{source}.events"));
            let consumers = suffixes
                .iter()
                .map(|suffix| format!("{stream}.{reader}{suffix}"));
            may.extend(consumers.flat_map(|consumer| {
                OF_A_READER.map(|verb| format!("$JS.API.CONSUMER.{verb}.{consumer}"))
            }));
        }
    }
    let answering = SHOP.iter().filter(|it| it.answers);
    let asked = answering.filter(|it| asks || it.name == user);
    may.extend(asked.map(|it| format!("inquiry.{}.v1.asked", it.name)));
    // Its own, and those of its manifest.
    may.extend(questions().filter_map(|(of, question)| {
        let is_own = service
            .asks
            .iter()
            .any(|it| question.ends_with(it.as_str()));
        ((is_own && (is_usual || asks)) || of == user).then_some(question)
    }));
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
    if SHOP.iter().any(|it| it.name == service && it.answers) {
        served.push(format!("inquiry.{service}.v1.asked"));
    }
    let asked = questions().filter(|(of, _)| *of == service);
    served.extend(asked.map(|(_, question)| question));
    served
}

/// What a user may hear from others, as patterns.
pub(super) fn heard(user: &str) -> Vec<String> {
    if user == "viewer" {
        let events = sources().map(|source| format!("{source}.*.>"));
        let questions = ["inquiry.*.v1.asked".to_owned()];
        return events.into_iter().chain(questions).collect();
    }
    // The events that its own consumers deliver.
    let (service, is_usual, _) = service(user).expect("a service");
    let reading = service.projections.values().chain(service.effects.values());
    let read = reading.filter(|_| is_usual).flatten();
    let read = read.map(|source| format!("{source}.>"));
    served(user).into_iter().chain(read).collect()
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
