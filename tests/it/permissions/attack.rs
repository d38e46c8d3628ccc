//! Every user tries everything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::jetstream::{self, stream::Stream};
use async_nats::{Client, HeaderMap, Message, StatusCode};
use e2e::accounts::{self, Passwords};
use futures_util::{StreamExt as _, TryStreamExt as _};
use headwater::projection::Consumer;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::subjects::{self, Subject, is_one_of, services, sources, streams};

/// How long an expected message may take.
const COMES_WITHIN: Duration = Duration::from_secs(10);

/// The end of a subject that the test itself requests, to know that all earlier requests were
/// recorded.
const SETTLED: &str = ".settled";

/// How long to wait for a message that must not come.
const DOES_NOT_COME: Duration = Duration::from_millis(250);

/// A broker with the accounts, a responder for each service, and the operator, which sees its state.
struct Bus {
    _folder: TempDir,
    _broker: broker::Broker,
    url: String,
    passwords: Passwords,
    operator: Client,
    /// The requests that reached the services.
    calls: Arc<Mutex<Vec<String>>>,
    _services: JoinSet<()>,
}

impl Bus {
    async fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let (broker, passwords) = accounts::one(folder.path());
        let url = broker.url();
        passwords.provision(&url, 1).await;
        let operator = passwords.connect(&url, "operator").await;
        // Planned only in a shop that has a webhook.
        let orders = jetstream::new(operator.clone()).get_stream("ORDERS").await;
        let webhook = Consumer::new("orders-webhook", "orders", "orders-webhook");
        let created = orders.unwrap().create_consumer(webhook.settings()).await;
        created.unwrap();
        let calls = Arc::new(Mutex::new(Vec::new()));
        let mut serving = JoinSet::new();
        for service in services() {
            let client = passwords.connect(&url, service).await;
            let mut asked = Vec::new();
            for subject in subjects::served(service) {
                asked.push(client.subscribe(subject).await.unwrap());
            }
            client.flush().await.unwrap();
            let (calls, mut asked) = (Arc::clone(&calls), futures_util::stream::select_all(asked));
            serving.spawn(async move {
                while let Some(message) = asked.next().await {
                    note(&calls, service, &message);
                    if let Some(reply) = message.reply {
                        let _ = client.publish(reply, "answered".into()).await;
                    }
                }
            });
        }
        let bus = Self {
            _folder: folder,
            _broker: broker,
            url,
            passwords,
            operator,
            calls,
            _services: serving,
        };
        bus.fill().await;
        bus
    }

    /// Stores events and schemas, to be stolen, deleted or forged.
    async fn fill(&self) {
        let jetstream = jetstream::new(self.operator.clone());
        for source in sources() {
            for nth in 1..=5 {
                let subject = format!("{source}.v1.forged.{nth}");
                let stored = jetstream.publish(subject, "an event".into()).await.unwrap();
                stored.await.unwrap();
            }
            let client = self.user(source).await;
            let key = format!("$KV.headwater-schemas.{source}");
            client.request(key, "a schema".into()).await.unwrap();
        }
    }

    async fn user(&self, user: &str) -> Client {
        self.passwords.connect(&self.url, user).await
    }

    async fn stream(&self, name: &str) -> Stream {
        let jetstream = jetstream::new(self.operator.clone());
        jetstream.get_stream(name).await.expect("a stream")
    }

    /// The state that only the operator and the owner of `but` may change.
    async fn state(&self, but: &str) -> BTreeMap<String, String> {
        let jetstream = jetstream::new(self.operator.clone());
        let names: Vec<String> = jetstream.stream_names().try_collect().await.unwrap();
        let names: BTreeSet<String> = names.into_iter().collect();
        let mut state = BTreeMap::from([("streams".to_owned(), format!("{names:?}"))]);
        for name in streams() {
            let stream = self.stream(&name).await;
            let info = stream.cached_info();
            let config = serde_json::to_string(&json!(info.config)).unwrap();
            state.insert(format!("{name} config"), config);
            let mut consumers = stream.consumers();
            while let Some(consumer) = consumers.try_next().await.unwrap() {
                let is = json!([consumer.config, consumer.paused]).to_string();
                state.insert(format!("{name} {}", consumer.name), is);
            }
            let (first, last) = (info.state.first_sequence, info.state.last_sequence);
            if name == but.to_uppercase() {
                // Existing events must stay.
                state.insert(format!("{name} events"), format!("from {first} on"));
            } else if name != "KV_headwater-schemas" {
                state.insert(format!("{name} events"), format!("{first} to {last}"));
            }
        }
        for source in sources().into_iter().filter(|source| *source != but) {
            let stream = self.stream("KV_headwater-schemas").await;
            let key = format!("$KV.headwater-schemas.{source}");
            let entry = stream.get_last_raw_message_by_subject(&key).await;
            state.insert(key, format!("{:?}", entry.map(|entry| entry.sequence).ok()));
        }
        state
    }

    async fn expect_unchanged(&self, user: &str, before: &BTreeMap<String, String>) {
        let now = self.state(user).await;
        let names: BTreeSet<&String> = now.keys().chain(before.keys()).collect();
        let changed: Vec<_> = names
            .into_iter()
            .filter(|name| now.get(*name) != before.get(*name))
            .map(|name| (name, before.get(name), now.get(name)))
            .collect();
        assert!(changed.is_empty(), "{user} changed {changed:#?}");
    }

    /// The requests that reached services other than `user`, and that `user` may not send.
    fn strange_calls(&self, user: &str, allowed: &[String]) -> BTreeSet<String> {
        let calls = std::mem::take(&mut *self.calls.lock().unwrap());
        let strange = calls.into_iter().filter(|call| {
            let (service, subject) = call.split_once(' ').unwrap();
            service != user && !is_one_of(allowed, subject)
        });
        strange.collect()
    }
}

fn note(calls: &Mutex<Vec<String>>, service: &str, message: &Message) {
    if message.subject.ends_with(SETTLED) {
        return;
    }
    let call = format!("{service} {}", message.subject);
    calls.lock().unwrap().push(call);
}

/// The answer to a request, or none after a timeout.
async fn answer(
    client: &Client,
    subject: &Subject,
    headers: HeaderMap,
    within: Duration,
) -> Option<Message> {
    // An event comes with its own subject, which a client's request does not accept.
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.unwrap();
    let (name, payload) = (subject.name.clone(), subject.payload.clone().into_bytes());
    let sent = client.publish_with_reply_and_headers(name, inbox, headers, payload.into());
    sent.await.unwrap();
    let answer = tokio::time::timeout(within, answers.next()).await;
    answer.ok().flatten()
}

/// Whether the request had no responders.
fn is_refusal(answer: &Message) -> bool {
    answer.status == Some(StatusCode::NO_RESPONDERS)
}

/// Whether the server returns an error. An account without streams has its own empty API.
fn is_error(answer: &Message) -> bool {
    let answer: Value = serde_json::from_slice(&answer.payload).unwrap_or_default();
    answer["error"].is_object()
}

fn users() -> impl Iterator<Item = &'static str> {
    services().chain(["viewer"])
}

#[tokio::test(flavor = "multi_thread")]
async fn no_user_may_ask_for_anything_beyond_its_list() {
    let bus = Bus::start().await;
    for user in users() {
        let client = bus.user(user).await;
        let allowed = subjects::allowed(user);
        let before = bus.state(user).await;
        let has_streams = is_one_of(&allowed, "$JS.API.INFO");
        let mut wrong = Vec::new();
        for subject in subjects::all() {
            let may = is_one_of(&allowed, &subject.name);
            let within = if may { COMES_WITHIN } else { DOES_NOT_COME };
            let answer = answer(&client, &subject, HeaderMap::new(), within).await;
            let is_right = match answer {
                Some(answer) if may => !is_refusal(&answer),
                Some(answer) => is_refusal(&answer) || (!has_streams && is_error(&answer)),
                None => !may,
            };
            if !is_right {
                wrong.push((subject.name, may));
            }
        }
        assert!(wrong.is_empty(), "{user} (may it?): {wrong:#?}");
        bus.expect_unchanged(user, &before).await;
        let strange = bus.strange_calls(user, &allowed);
        assert!(strange.is_empty(), "{user}: {strange:#?}");
    }
    let anonymous = async_nats::connect(&bus.url).await;
    assert!(anonymous.is_err(), "without a password");
}

/// The server answers to any reply subject that the user may publish to, and to no other.
#[tokio::test(flavor = "multi_thread")]
async fn no_answer_can_be_aimed_at_what_the_user_may_not_ask_for() {
    let bus = Bus::start().await;
    let everything = subjects::all();
    for user in users() {
        let client = bus.user(user).await;
        let allowed = subjects::allowed(user);
        let (may, may_not): (Vec<&Subject>, Vec<&Subject>) = everything
            .iter()
            .partition(|subject| is_one_of(&allowed, &subject.name));
        let before = bus.state(user).await;
        for ask in &may {
            for aim in &may_not {
                let payload = ask.payload.clone().into_bytes().into();
                let (ask, aim) = (ask.name.clone(), aim.name.clone());
                let sent = client.publish_with_reply(ask, aim, payload).await;
                sent.unwrap();
            }
        }
        settled(&bus, &client, user).await;
        bus.expect_unchanged(user, &before).await;
        let strange = bus.strange_calls(user, &allowed);
        assert!(strange.is_empty(), "{user}: {strange:#?}");
    }
}

/// Waits until all earlier requests are done: the requests of one connection are served in order.
async fn settled(bus: &Bus, client: &Client, user: &str) {
    let name = match user {
        "viewer" => "$JS.API.INFO".to_owned(),
        service => format!("headwater.{service}.status"),
    };
    let payload = String::new();
    let last = Subject { name, payload };
    let answered = answer(client, &last, HeaderMap::new(), e2e::PATIENCE).await;
    assert!(answered.is_some(), "{}", last.name);
    // A service records its requests in order.
    for service in services() {
        let subject = format!("headwater.{service}{SETTLED}");
        let answered = bus.operator.request(subject, "".into()).await;
        answered.unwrap_or_else(|error| panic!("{service}: {error}"));
    }
}

/// A user's own message is only stored, whatever its headers say.
#[tokio::test(flavor = "multi_thread")]
async fn no_header_reaches_what_is_not_ones_own() {
    let bus = Bus::start().await;
    for user in sources() {
        let client = bus.user(user).await;
        let before = bus.state(user).await;
        for headers in subjects::headers() {
            for name in [
                format!("{user}.v1.forged.1"),
                format!("$KV.headwater-schemas.{user}"),
            ] {
                let own = Subject {
                    name,
                    payload: "x".to_owned(),
                };
                answer(&client, &own, headers.clone(), DOES_NOT_COME).await;
            }
        }
        bus.expect_unchanged(user, &before).await;
    }
}

/// No user hears the requests or answers of others.
#[tokio::test(flavor = "multi_thread")]
async fn no_user_hears_anything_beyond_its_list() {
    let bus = Bus::start().await;
    let mut ears = Vec::new();
    for user in users() {
        let client = bus.user(user).await;
        let heard = client.subscribe(">").await.unwrap();
        client.flush().await.unwrap();
        ears.push((user, client, heard));
    }
    for subject in subjects::all() {
        let first = subject.name.split('.').next().unwrap_or_default();
        if ["headwater", "$SRV", "inquiry"].contains(&first) || sources().contains(&first) {
            let payload = subject.payload.clone().into_bytes().into();
            // An answer is not needed.
            let _ = bus.operator.request(subject.name, payload).await;
        }
    }
    for asker in ["purchases", "orders", "purchases-inquiry", "users"] {
        let allowed = subjects::allowed(asker);
        let client = bus.user(asker).await;
        for subject in subjects::all() {
            if is_one_of(&allowed, &subject.name) {
                let (reply, payload) = (client.new_inbox(), subject.payload.into_bytes().into());
                let sent = client.publish_with_reply(subject.name, reply, payload);
                sent.await.unwrap();
            }
        }
        settled(&bus, &client, asker).await;
    }
    for (user, client, mut heard) in ears {
        client.flush().await.unwrap();
        let patterns = subjects::heard(user);
        // The user hears its own requests and answers in its own account.
        let own = [subjects::allowed(user), vec![format!("_INBOX_{user}.>")]].concat();
        let mut strange = BTreeSet::new();
        while let Ok(Some(message)) =
            tokio::time::timeout(Duration::from_millis(200), heard.next()).await
        {
            let subject = message.subject.to_string();
            // The server's subjects for answers that it forwards.
            let is_passed_on = subject.starts_with("_R_.");
            if !is_one_of(&patterns, &subject) && !is_one_of(&own, &subject) && !is_passed_on {
                strange.insert(subject);
            }
        }
        assert!(strange.is_empty(), "{user}: {strange:#?}");
    }
}
