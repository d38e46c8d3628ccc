//! The clients of one listener: places, limits per address, and the memory of their answers.
//!
//! No client is refused while another connection can be closed: an idle one, or else one whose
//! client does not take its answer. The address with most connections, or most memory, loses one
//! first. An address whose clients do not take their answers gets no further ones computed until
//! they do.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use metrics::{Counter, Gauge};
use tokio::sync::{Notify, Semaphore};

use crate::address::{ADDRESS_SHARE, Address, SLOW, TURN_MAX, TURN_PAUSE, UNTAKEN, millis};
use crate::config::Config;
use crate::extract::network;

/// A client that has taken nothing for this long loses its connection if places or memory are
/// short. Otherwise it has [`Config::write_timeout`].
const STALLED: Duration = Duration::from_secs(1);

/// Answers of at least this size are large: they leave a [share](LARGE_SHARE) of the memory to
/// small ones, and are counted once, however many clients they go to.
const LARGE: usize = 64 * 1024;

/// Large answers use at most three quarters of the memory.
const LARGE_SHARE: (usize, usize) = (3, 4);

/// The most answers that wait for memory at the same time; they are in memory already.
const WAITING_MAX: usize = 4;

/// How long an answer waits for memory before it becomes a 503.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// All clients of a listener. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Clients(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limits: Limits,
    began: Instant,
    open: Mutex<Open>,
    memory: Memory,
    closed: Closed,
}

#[derive(Debug)]
struct Limits {
    connections: usize,
    /// No limits per address if `None`.
    per_address: Option<usize>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    connections: HashMap<u64, Arc<Connection>>,
    addresses: HashMap<IpAddr, Arc<Address>>,
}

/// The memory of answers until the kernel has taken them.
#[derive(Debug)]
struct Memory {
    max: usize,
    used: AtomicUsize,
    /// Large answers by their address in memory.
    large: Mutex<HashMap<usize, Large>>,
    released: Notify,
    waiting: Semaphore,
    gauge: Gauge,
}

#[derive(Debug)]
struct Large {
    bytes: usize,
    /// How many connections it goes to.
    uses: usize,
}

/// How often connections were closed, by reason.
#[derive(Debug)]
struct Closed {
    idle: Counter,
    stalled: Counter,
    slow: Counter,
    refused: Counter,
}

/// One client.
#[derive(Debug)]
struct Connection {
    address: IpAddr,
    of: Arc<Address>,
    requests: AtomicUsize,
    /// When its last request finished, in milliseconds since `Shared::began`.
    idle_since: AtomicU64,
    /// When it stopped taking its answer, plus one; 0 while it takes it.
    stalled_since: AtomicU64,
    /// The bytes of its answers.
    bytes: AtomicUsize,
    /// When its client last took something of its answer after a pause, plus one; 0 if it has not.
    took_at: AtomicU64,
    /// Where its latest answer is in memory. The same large answer may go to many connections.
    latest: AtomicUsize,
    /// The part of `Address::waiting` that is this connection's.
    waiting: AtomicUsize,
    evicted: Notify,
    /// Whether its client has closed its end.
    is_gone: AtomicBool,
    /// Whether the kernel discards unsent data when the connection closes.
    is_aborted: AtomicBool,
}

/// What happens with a client that has connected.
pub(super) enum Admission {
    Admitted(Client),
    /// All places are taken, and none can be freed; try again.
    Wait,
    /// Its address has all connections that an address may have.
    Refused,
}

/// A client's place, freed when dropped.
#[derive(Debug)]
pub(super) struct Client {
    clients: Clients,
    id: u64,
    connection: Arc<Connection>,
}

/// A request in progress until this and all its clones are dropped. Clones in its answer are
/// dropped when the kernel has taken the answer.
#[derive(Debug, Clone)]
pub(super) struct UnderWay(Arc<Counted>);

#[derive(Debug)]
struct Counted {
    clients: Clients,
    connection: Arc<Connection>,
}

impl Memory {
    /// Takes `bytes` if the total stays within `room`.
    fn take(&self, bytes: usize, room: usize) -> bool {
        let more = |used: usize| used.checked_add(bytes).filter(|used| *used <= room);
        let order = Ordering::Relaxed;
        let taken = self.used.fetch_update(order, order, more).is_ok();
        if taken {
            self.gauge.increment(float(bytes));
        }
        taken
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        self.gauge.decrement(float(bytes));
    }

    /// Counts one more connection for `answer`, if it already goes to another.
    fn share(&self, answer: &Bytes) -> bool {
        let mut all = self.large();
        let found = all.get_mut(&answer.as_ptr().addr());
        found.map(|large| large.uses += 1).is_some()
    }

    /// Records a large answer whose memory was taken, unless another call did so meanwhile.
    fn enter(&self, answer: &Bytes) {
        let bytes = answer.len();
        let mut all = self.large();
        let fresh = Large { bytes, uses: 0 };
        let large = all.entry(answer.as_ptr().addr()).or_insert(fresh);
        if large.uses > 0 {
            self.give_back(bytes);
        }
        large.uses += 1;
    }

    fn release(&self, answer: &Bytes) {
        if answer.len() < LARGE {
            self.give_back(answer.len());
        } else {
            let mut all = self.large();
            let start = answer.as_ptr().addr();
            if let Some(large) = all.get_mut(&start) {
                large.uses -= 1;
                if large.uses == 0 {
                    self.give_back(large.bytes);
                    all.remove(&start);
                }
            }
        }
        self.released.notify_waiters();
    }

    fn large(&self) -> MutexGuard<'_, HashMap<usize, Large>> {
        self.large.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
fn float(bytes: usize) -> f64 {
    bytes as f64
}

impl Clients {
    pub(super) fn new(config: &Config) -> Self {
        let closed = |reason: &'static str| {
            let closed =
                metrics::counter!("headwater_http_connections_closed_total", "reason" => reason);
            closed.increment(0);
            closed
        };
        let per_address = config.connections_per_address;
        Self(Arc::new(Shared {
            limits: Limits {
                connections: config.connections,
                per_address: (per_address > 0).then_some(per_address),
            },
            began: Instant::now(),
            open: Mutex::default(),
            memory: Memory {
                max: config.buffer_mib * 1024 * 1024,
                used: AtomicUsize::new(0),
                large: Mutex::default(),
                released: Notify::new(),
                waiting: Semaphore::new(WAITING_MAX),
                gauge: metrics::gauge!("headwater_http_buffered_bytes"),
            },
            closed: Closed {
                idle: closed("idle"),
                stalled: closed("stalled"),
                slow: closed("slow"),
                refused: closed("refused"),
            },
        }))
    }

    /// A place for a client at `peer`; if all are taken, closes another connection.
    pub(super) fn admit(&self, peer: IpAddr) -> Admission {
        let address = network(peer);
        let mut open = self.open();
        let of = open.address(address, self.now(), self.0.limits.connections);
        let of_address = of.connections.load(Ordering::Relaxed);
        let limits = &self.0.limits;
        if limits.per_address.is_some_and(|most| of_address >= most) {
            let Some(victim) = self.spared(&open, Some(address)) else {
                self.0.closed.refused.increment(1);
                return Admission::Refused;
            };
            self.evict(&mut open, victim);
        }
        if open.connections.len() >= limits.connections {
            let Some(victim) = self.spared(&open, None) else {
                return Admission::Wait;
            };
            self.evict(&mut open, victim);
        }
        let id = open.next;
        open.next += 1;
        let connection = Arc::new(Connection {
            address,
            of: Arc::clone(&of),
            requests: AtomicUsize::new(0),
            idle_since: AtomicU64::new(self.now()),
            stalled_since: AtomicU64::new(0),
            bytes: AtomicUsize::new(0),
            took_at: AtomicU64::new(0),
            latest: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            evicted: Notify::new(),
            is_gone: AtomicBool::new(false),
            is_aborted: AtomicBool::new(false),
        });
        open.connections.insert(id, Arc::clone(&connection));
        of.connections.fetch_add(1, Ordering::Relaxed);
        Admission::Admitted(Client {
            clients: self.clone(),
            id,
            connection,
        })
    }

    /// The connection to close: of the address that has most, an idle one before one whose client
    /// does not take its answer, for the longest time.
    fn spared(&self, open: &Open, of: Option<IpAddr>) -> Option<u64> {
        let now = self.now();
        let candidates = open.connections.iter().filter_map(|(id, connection)| {
            if of.is_some_and(|of| of != connection.address) {
                return None;
            }
            let is_idle = connection.requests.load(Ordering::Relaxed) == 0;
            let spared_for = if is_idle {
                now.saturating_sub(connection.idle_since.load(Ordering::Relaxed))
            } else {
                connection.stalled_for(now)?
            };
            // Equal for all if only one address is considered.
            let of_address = of
                .is_none()
                .then(|| connection.of.connections.load(Ordering::Relaxed));
            Some(((of_address, is_idle, spared_for), *id))
        });
        candidates.max_by_key(|(key, _)| *key).map(|(_, id)| id)
    }

    /// The connection of a client that does not take its answer, at the address with most memory.
    fn hoarder(&self, open: &Open) -> Option<u64> {
        let now = self.now();
        let mut by_address: HashMap<IpAddr, usize> = HashMap::new();
        for connection in open.connections.values() {
            *by_address.entry(connection.address).or_default() +=
                connection.bytes.load(Ordering::Relaxed);
        }
        let candidates = open.connections.iter().filter_map(|(id, connection)| {
            let stalled = connection.stalled_for(now)?;
            let bytes = connection.bytes.load(Ordering::Relaxed);
            (bytes > 0).then(|| ((by_address.get(&connection.address), stalled), *id))
        });
        candidates.max_by_key(|(key, _)| *key).map(|(_, id)| id)
    }

    /// Closes a connection. Its place is free at once; its task ends at its next turn.
    fn evict(&self, open: &mut Open, id: u64) {
        let Some(connection) = open.remove(id) else {
            return;
        };
        let is_idle = connection.requests.load(Ordering::Relaxed) == 0;
        let closed = &self.0.closed;
        if is_idle {
            closed.idle.increment(1);
        } else {
            closed.stalled.increment(1);
            connection.owe(self.now());
        }
        connection.is_aborted.store(!is_idle, Ordering::Relaxed);
        connection.evicted.notify_one();
    }

    /// Closes connections whose clients delay a stop: those that have taken nothing for [`STALLED`]
    /// and, if it `is_late`, those that have not taken a complete answer.
    pub(super) fn evict_slow(&self, is_late: bool) {
        let now = self.now();
        let mut open = self.open();
        let slow = open.connections.iter().filter(|(_, connection)| {
            let has_answer = connection.bytes.load(Ordering::Relaxed) > 0;
            connection.stalled_for(now).is_some() || (is_late && has_answer)
        });
        let slow: Vec<u64> = slow.map(|(id, _)| *id).collect();
        for id in slow {
            self.evict(&mut open, id);
        }
    }

    /// Whether the untaken answers and the debt of the connection's address are within its share.
    fn takes_enough(&self, connection: &Connection) -> bool {
        if self.0.limits.per_address.is_none() {
            return true;
        }
        let (now, of) = (self.now(), &connection.of);
        let share = self.0.memory.max / ADDRESS_SHARE;
        let Some(share) = share.checked_sub(of.debt(now)) else {
            return false;
        };
        // Most often, and without a look at all connections.
        if of.waiting.load(Ordering::Relaxed) <= share {
            return true;
        }
        let open = self.open();
        let untaken = open.connections.values().filter_map(|other| {
            let is_untaken = Arc::ptr_eq(&other.of, of) && other.is_untaken(now);
            is_untaken.then(|| {
                let latest = other.latest.load(Ordering::Relaxed);
                (latest, other.bytes.load(Ordering::Relaxed))
            })
        });
        let untaken: HashMap<usize, usize> = untaken.collect();
        untaken.values().sum::<usize>() <= share
    }

    /// Takes memory for `bytes`; `is_large` leaves some of it to others.
    fn take(&self, bytes: usize, is_large: bool) -> bool {
        let memory = &self.0.memory;
        let room = if is_large {
            memory.max / LARGE_SHARE.1 * LARGE_SHARE.0
        } else {
            memory.max
        };
        memory.take(bytes, room)
    }

    /// Takes memory for `bytes`. If necessary, closes connections of clients that do not take their
    /// answers.
    async fn take_from_others(&self, bytes: usize, is_large: bool) -> bool {
        let memory = &self.0.memory;
        let Ok(_waiting) = memory.waiting.try_acquire() else {
            return false;
        };
        let taking = async {
            loop {
                let released = memory.released.notified();
                if self.take(bytes, is_large) {
                    return true;
                }
                {
                    let mut open = self.open();
                    let Some(hoarder) = self.hoarder(&open) else {
                        return false;
                    };
                    self.evict(&mut open, hoarder);
                }
                released.await;
            }
        };
        tokio::time::timeout(WAIT_MAX, taking)
            .await
            .unwrap_or(false)
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Milliseconds since the listener started.
    fn now(&self) -> u64 {
        u64::try_from(self.0.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Open {
    fn remove(&mut self, id: u64) -> Option<Arc<Connection>> {
        let connection = self.connections.remove(&id)?;
        connection.of.connections.fetch_sub(1, Ordering::Relaxed);
        Some(connection)
    }

    /// What is known of `address`. Forgets others first if more than twice as many as there are
    /// places are known.
    fn address(&mut self, address: IpAddr, now: u64, places: usize) -> Arc<Address> {
        if self.addresses.len() > 2 * places {
            self.addresses
                .retain(|_, of| of.connections.load(Ordering::Relaxed) > 0 || of.debt_ms(now) > 0);
        }
        Arc::clone(self.addresses.entry(address).or_default())
    }
}

impl Connection {
    /// For how many milliseconds the client has taken nothing of its answer, if that is long enough
    /// to count.
    fn stalled_for(&self, now: u64) -> Option<u64> {
        self.taken_nothing_for(STALLED, now)
    }

    fn taken_nothing_for(&self, least: Duration, now: u64) -> Option<u64> {
        let since = self.stalled_since.load(Ordering::Relaxed).checked_sub(1)?;
        let waited = now.saturating_sub(since);
        (u128::from(waited) >= least.as_millis()).then_some(waited)
    }

    /// Whether its client does not take its answer. One that takes a little now and then is slow.
    fn is_untaken(&self, now: u64) -> bool {
        let took_at = self.took_at.load(Ordering::Relaxed);
        let is_slow = took_at > 0 && now.saturating_sub(took_at) < millis(SLOW);
        !is_slow && self.taken_nothing_for(UNTAKEN, now).is_some()
    }

    /// Adds what its client has not taken to its address's debt.
    fn owe(&self, now: u64) {
        let bytes = self.bytes.load(Ordering::Relaxed);
        self.of.owe(bytes, now);
    }
}

impl Client {
    /// Records a new request.
    pub(super) fn request(&self) -> UnderWay {
        self.connection.requests.fetch_add(1, Ordering::Relaxed);
        UnderWay(Arc::new(Counted {
            clients: self.clients.clone(),
            connection: Arc::clone(&self.connection),
        }))
    }

    /// Whether a request, or its answer, is in progress.
    pub(super) fn is_at_work(&self) -> bool {
        self.connection.requests.load(Ordering::Relaxed) > 0
            || self.connection.stalled_since.load(Ordering::Relaxed) > 0
    }

    /// Resolves when the connection is to be closed, to free its place or memory.
    pub(super) async fn evicted(&self) {
        self.connection.evicted.notified().await;
    }

    /// Records that the client takes nothing at the moment, after keeping us waiting for `waited`.
    pub(super) fn stalls(&self, waited: Duration) {
        let since = self.clients.now().saturating_sub(millis(waited));
        let connection = &self.connection;
        connection.stalled_since.store(since + 1, Ordering::Relaxed);
        let bytes = connection.bytes.load(Ordering::Relaxed);
        let before = connection.waiting.swap(bytes, Ordering::Relaxed);
        let waiting = &connection.of.waiting;
        waiting.fetch_add(bytes, Ordering::Relaxed);
        waiting.fetch_sub(before, Ordering::Relaxed);
    }

    /// Records that the client has taken something.
    pub(super) fn takes(&self) {
        let connection = &self.connection;
        connection.stalled_since.store(0, Ordering::Relaxed);
        let took_at = self.clients.now() + 1;
        connection.took_at.store(took_at, Ordering::Relaxed);
        let waiting = connection.waiting.swap(0, Ordering::Relaxed);
        connection.of.waiting.fetch_sub(waiting, Ordering::Relaxed);
    }

    /// Records that the client has closed its end. As for hyper, one that only sends no more counts
    /// as gone.
    pub(super) fn leaves(&self) {
        self.connection.is_gone.store(true, Ordering::Relaxed);
    }

    /// Records that the client's time is used up: the kernel discards unsent data.
    pub(super) fn give_up(&self) {
        self.clients.0.closed.slow.increment(1);
        self.connection.owe(self.clients.now());
        self.connection.is_aborted.store(true, Ordering::Relaxed);
    }

    /// Whether the kernel is to discard unsent data.
    pub(super) fn is_aborted(&self) -> bool {
        self.connection.is_aborted.load(Ordering::Relaxed)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.takes();
        self.clients.open().remove(self.id);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let idle_since = &self.connection.idle_since;
        idle_since.store(self.clients.now(), Ordering::Relaxed);
        self.connection.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

impl UnderWay {
    /// Waits until the clients at this address have taken enough of their answers for another one
    /// to be computed; false if they have not for up to [`TURN_MAX`], or the client is gone.
    ///
    /// Otherwise clients that read nothing, and connect again when they are closed, would keep all
    /// cores busy with answers that nobody takes.
    pub(super) async fn may_begin(&self) -> bool {
        let Counted {
            clients,
            connection,
        } = &*self.0;
        if !clients.takes_enough(connection) {
            connection.of.slow_turns();
        } else if connection.of.has_no_turns(clients.now()) {
            return true;
        }
        let until = Instant::now() + turn_max();
        while Instant::now() < until {
            tokio::time::sleep(TURN_PAUSE).await;
            if connection.is_gone.load(Ordering::Relaxed) {
                return false;
            }
            if !clients.takes_enough(connection) {
                connection.of.slow_turns();
            } else if connection.of.take_turn(clients.now()) {
                return true;
            }
        }
        false
    }

    /// `answer`, counted until the kernel has taken it; `None` if there is no memory for it.
    pub(super) async fn buffer(&self, answer: Bytes) -> Option<Bytes> {
        let (clients, bytes) = (&self.0.clients, answer.len());
        let is_large = bytes >= LARGE;
        let memory = &clients.0.memory;
        if !(is_large && memory.share(&answer)) {
            if !clients.take(bytes, is_large) && !clients.take_from_others(bytes, is_large).await {
                return None;
            }
            if is_large {
                memory.enter(&answer);
            }
        }
        let connection = &self.0.connection;
        let latest = answer.as_ptr().addr();
        if connection.latest.swap(latest, Ordering::Relaxed) != latest {
            connection.took_at.store(0, Ordering::Relaxed);
        }
        connection.bytes.fetch_add(bytes, Ordering::Relaxed);
        Some(Bytes::from_owner(Unsent {
            answer,
            under_way: self.clone(),
        }))
    }
}

/// [`TURN_MAX`] or less: requests that came at the same moment are not refused at the same moment,
/// since all of their clients would come again at once.
fn turn_max() -> Duration {
    let random = RandomState::new().hash_one(()) % (millis(TURN_MAX) / 2);
    TURN_MAX.saturating_sub(Duration::from_millis(random))
}

/// An answer on its way to the kernel.
struct Unsent {
    answer: Bytes,
    under_way: UnderWay,
}

impl AsRef<[u8]> for Unsent {
    fn as_ref(&self) -> &[u8] {
        &self.answer
    }
}

impl Drop for Unsent {
    fn drop(&mut self) {
        let Counted {
            clients,
            connection,
        } = &*self.under_way.0;
        connection
            .bytes
            .fetch_sub(self.answer.len(), Ordering::Relaxed);
        clients.0.memory.release(&self.answer);
    }
}
