//! Clients that send commands to the shop during faults, and a record of the answers.
//!
//! Each command has its own `Idempotency-Key` and is repeated until it gets a definite answer. So
//! the [`Ledger`] has every command exactly once. A service, a stream or a read store with more or
//! less than the ledger is wrong.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headwater::Clock;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::client::{Client, Reply, try_send};
use crate::data::Random;
use crate::eventually_within;
use crate::world::{Service, World};

/// How long a client waits for an answer before it repeats the command.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The pause before a command is repeated.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// How long a command may take to get its definite answer, faults included.
const PATIENCE: Duration = Duration::from_mins(3);

/// The most time that each of many commands takes on a slow machine.
const SLOWEST: Duration = Duration::from_millis(50);

/// How many users and products exist before a load begins. Orders name only these, unless the load
/// is `fresh`.
const FIRST: usize = 4;

/// A command that was answered with 201.
#[derive(Debug, Clone)]
pub struct Command {
    /// The service that received it.
    pub service: Service,
    /// Its `Idempotency-Key`.
    pub key: String,
    /// The request body.
    pub body: Value,
    /// The id of the created resource.
    pub id: String,
    /// The position of its event in the outbox of `service`.
    pub position: u64,
    /// The time of the answer, in milliseconds since 1970.
    pub answered_ms: i64,
}

/// All acknowledged commands.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// In the order of their answers.
    pub commands: Vec<Command>,
    /// The reason for each repetition of a command.
    pub repeats: Vec<String>,
}

impl Ledger {
    /// The commands of one service, by position.
    pub fn of(&self, service: Service) -> BTreeMap<u64, &Command> {
        let mut commands = BTreeMap::new();
        for command in self.commands.iter().filter(|c| c.service == service) {
            let before = commands.insert(command.position, command);
            assert!(
                before.is_none(),
                "{command:?} has the position of {before:?}"
            );
        }
        commands
    }

    /// Asserts that every command was accepted the first time it was sent.
    pub fn assert_taken_at_once(&self) {
        let repeats = &self.repeats;
        assert!(
            repeats.is_empty(),
            "commands had to be repeated: {repeats:?}"
        );
    }

    /// How many commands a service has acknowledged.
    pub fn count(&self, service: Service) -> usize {
        let of_it = |command: &&Command| command.service == service;
        self.commands.iter().filter(of_it).count()
    }
}

/// Clients of the shop. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Customers {
    clients: BTreeMap<Service, Client>,
    ledger: Arc<Mutex<Ledger>>,
}

/// The composition of a load.
#[derive(Debug, Clone, Copy)]
pub struct Mix {
    /// The services that get commands, in turns.
    pub services: &'static [Service],
    /// How many clients, each with one command in flight.
    pub clients: usize,
    /// The pause of a client between two commands.
    pub pause: Duration,
    /// Whether orders also name users and products that were just made. While the broker is away,
    /// such orders wait until `orders` knows them.
    pub fresh: bool,
}

impl Mix {
    /// A small steady load on one service.
    pub const fn on(services: &'static [Service]) -> Self {
        Self {
            services,
            clients: 4,
            pause: Duration::from_millis(10),
            fresh: false,
        }
    }
}

impl Customers {
    /// Customers of the running sources. Makes a few users and products and waits until `orders`
    /// knows them.
    pub async fn of(world: &World) -> Self {
        let sources = Service::SOURCES.into_iter().filter(|one| world.runs(*one));
        let customers = Self {
            clients: sources.map(|of| (of, world.client(of))).collect(),
            ledger: Arc::default(),
        };
        for source in customers.clients.keys() {
            let count = if *source == Service::Orders { 1 } else { FIRST };
            for _ in 0..count {
                customers.send(*source, true, &mut Random(0)).await;
            }
        }
        // Waiting until `orders` knows the products does not count as a refusal.
        customers.locked().repeats.clear();
        customers
    }

    /// The commands acknowledged so far.
    pub fn ledger(&self) -> Ledger {
        self.locked().clone()
    }

    fn locked(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends `count` commands to one service, one after another.
    pub async fn send_some(&self, service: Service, count: usize) {
        let mut random = Random(self.locked().commands.len() as u64);
        for _ in 0..count {
            self.send(service, false, &mut random).await;
        }
    }

    /// Waits until a service has acknowledged `count` more commands.
    pub async fn more(&self, service: Service, count: usize) {
        let wanted = self.locked().count(service) + count;
        let patience = crate::PATIENCE + SLOWEST * u32::try_from(count).expect("a small number");
        eventually_within(patience, "more commands to be acknowledged", || async {
            let now = self.locked().count(service);
            if now >= wanted {
                Ok(())
            } else {
                Err(format!("{} of {wanted} of {}", now, service.name()))
            }
        })
        .await;
    }

    pub fn begin(&self, mix: Mix) -> Load {
        let (stop, mut clients) = (CancellationToken::new(), JoinSet::new());
        for number in 0..mix.clients {
            let (customers, stop) = (self.clone(), stop.clone());
            clients.spawn(async move {
                let mut random = Random(number as u64);
                for service in mix.services.iter().cycle().skip(number) {
                    if stop.is_cancelled() {
                        break;
                    }
                    customers.send(*service, mix.fresh, &mut random).await;
                    sleep(mix.pause).await;
                }
            });
        }
        Load { stop, clients }
    }

    /// Sends a new command until it is acknowledged.
    async fn send(&self, service: Service, fresh: bool, random: &mut Random) {
        let key = Uuid::now_v7().to_string();
        let (path, body) = self.command(service, fresh, random);
        self.send_as(service, &path, key, body).await;
    }

    /// A body for a new order.
    pub fn new_order(&self) -> Value {
        self.order(false, &mut Random(0)).1
    }

    /// Sends a command under the given key until it is acknowledged.
    pub async fn send_as(&self, service: Service, path: &str, key: String, body: Value) {
        let command = self.answered(service, path, key, body).await;
        self.locked().commands.push(command);
    }

    /// Repeats the commands that were answered since `since_ms`. In a simulated power cut the
    /// programs run on for a moment and give answers that a real one would prevent. Returns how
    /// many of these commands were lost.
    pub async fn ask_again(&self, since_ms: i64) -> usize {
        let mut lost = 0;
        for before in self.ledger().commands {
            if before.answered_ms >= since_ms {
                let path = format!("/{}", before.service.name());
                let (key, body) = (before.key.clone(), before.body);
                let again = self.answered(before.service, &path, key, body).await;
                lost += usize::from(again.id != before.id);
                let mut ledger = self.locked();
                let mut all = ledger.commands.iter_mut();
                let entry = all.find(|command| command.key == before.key);
                *entry.expect("a ledger only grows") = again;
            }
        }
        lost
    }

    async fn answered(&self, service: Service, path: &str, key: String, body: Value) -> Command {
        let reply = self.insist(service, path, &key, &body).await;
        let position = reply.position().rsplit(':').next().unwrap_or_default();
        Command {
            service,
            key,
            body,
            id: reply.id(),
            position: position.parse().expect("a position"),
            answered_ms: Clock::system().now_ms(),
        }
    }

    fn command(&self, service: Service, fresh: bool, random: &mut Random) -> (String, Value) {
        let name = Uuid::now_v7();
        match service {
            Service::Users => {
                let body = json!({ "name": name, "email": format!("{name}@example.com") });
                ("/users".to_owned(), body)
            }
            Service::Products => {
                let image = format!("https://example.com/{name}.png");
                (
                    "/products".to_owned(),
                    json!({ "title": name, "image": image }),
                )
            }
            _ => self.order(fresh, random),
        }
    }

    fn order(&self, fresh: bool, random: &mut Random) -> (String, Value) {
        let ledger = self.locked();
        let mut pick = |service| {
            let made = ledger.commands.iter().filter(|c| c.service == service);
            let upto = if fresh { made.clone().count() } else { FIRST };
            let nth = usize::try_from(random.below(upto as u64)).unwrap_or(0);
            made.clone()
                .nth(nth)
                .expect("a command below the count")
                .clone()
        };
        let user = pick(Service::Users);
        let products = [pick(Service::Products), pick(Service::Products)];
        let heard_of = products.iter().map(|product| product.position).max();
        let after = format!(
            "users:{},products:{}",
            user.position,
            heard_of.unwrap_or_default()
        );
        let ids: Vec<_> = products.map(|product| product.id).into();
        let path = if fresh {
            format!("/orders?after={after}")
        } else {
            "/orders".to_owned()
        };
        (path, json!({ "user_id": user.id, "product_ids": ids }))
    }

    /// Repeats a command under its key until there is a definite answer, which must be 201.
    pub async fn insist(&self, service: Service, path: &str, key: &str, body: &Value) -> Reply {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let request = self.clients[&service]
                .request(Method::POST, path)
                .header("idempotency-key", key)
                .timeout(ANSWER_WITHIN)
                .json(body);
            let seen = match try_send(request).await {
                Ok(reply) if reply.status == 201 => return reply,
                Ok(reply) if reply.status.is_server_error() => reply.text,
                Ok(reply) => panic!("{path} {body}: {} {}", reply.status, reply.text),
                Err(error) => format!("{error:?}"),
            };
            assert!(Instant::now() < deadline, "{path} {body}: {seen}");
            self.locked().repeats.push(format!("{path}: {seen}"));
            sleep(AGAIN_AFTER).await;
        }
    }
}

/// A load under way.
#[derive(Debug)]
pub struct Load {
    stop: CancellationToken,
    clients: JoinSet<()>,
}

impl Load {
    /// Stops the load after each client has got its current answer.
    pub async fn end(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.clients.join_next().await {
            ended.expect("a client that was refused nothing");
        }
    }
}
