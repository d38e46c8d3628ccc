//! The readers: threads with a read-only connection each. A connection cannot change threads.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};

use anyhow::Context as _;
use headwater_telemetry::trace::{self, SpanKind};
use rusqlite::Connection;
use sea_orm::{ConnAcquireErr, ConnectionTrait as _, DbErr};
use tokio::sync::{oneshot, watch};

use crate::config::Config;
use crate::connection::{Damage, Mode, connect, connect_raw, one_at_a_time};
use crate::fair::{self, Queue};
use crate::identity::Identity;
use crate::keys::Keys;
use crate::opening::Opened;
use crate::raw::RawSnapshot;
use crate::read_limit::ReadLimit;
use crate::transaction::Snapshot;

/// A type-erased read. Returns whether to keep the connections.
type Read = Box<dyn FnOnce(&mut Connections) -> bool + Send>;

/// The reads that wait for a free reader; the clients take turns. A connection has one request
/// under way, so the limit of connections bounds the queue.
struct Jobs {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

struct Waiting {
    reads: Queue<Read>,
    /// Whether new reads are refused; the threads end after the waiting ones.
    is_closed: bool,
}

impl Jobs {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, read: Read) -> Result<(), DbErr> {
        let mut waiting = self.lock();
        if waiting.is_closed {
            return Err(closed());
        }
        // The queue is unbounded, so it displaces no read.
        let _ = waiting.reads.push(fair::client(), read);
        self.changed.notify_one();
        Ok(())
    }

    /// The next read; `None` if there will be none.
    fn next(&self) -> Option<Read> {
        let mut waiting = self.lock();
        loop {
            if let Some(read) = waiting.reads.pop() {
                return Some(read);
            }
            if waiting.is_closed {
                return None;
            }
            let changed = self.changed.wait(waiting);
            waiting = changed.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }
}

/// The handle. Cheap to clone; the threads end when the last one is dropped.
#[derive(Clone)]
pub(super) struct Readers {
    jobs: Arc<Handle>,
    /// Its sender is dropped when all threads have closed the file.
    closed: watch::Receiver<()>,
}

struct Handle(Arc<Jobs>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readers").finish_non_exhaustive()
    }
}

impl Readers {
    /// Starts the threads. Each read holds `checkpoint_lock` shared.
    pub(super) fn start(
        owner: &str,
        config: &Config,
        checkpoint_lock: &Arc<RwLock<()>>,
        damage: &Damage,
        opened: &Opened,
    ) -> anyhow::Result<Self> {
        let (closed_sender, closed) = watch::channel(());
        let closed_sender = Arc::new(closed_sender);
        let jobs = Arc::new(Jobs {
            waiting: Mutex::new(Waiting {
                reads: Queue::new(usize::MAX),
                is_closed: false,
            }),
            changed: Condvar::new(),
        });
        for number in 1..=config.readers {
            let thread = Thread {
                config: config.clone(),
                jobs: Arc::clone(&jobs),
                checkpoint_lock: Arc::clone(checkpoint_lock),
                damage: damage.clone(),
                identity: opened.identity.clone(),
                keys: opened.keys.clone(),
            };
            let closed_sender = Arc::clone(&closed_sender);
            std::thread::Builder::new()
                .name(format!("{owner}-reader-{number}"))
                .spawn(move || {
                    thread.run();
                    drop(closed_sender);
                })
                .context("start a reader thread")?;
        }
        Ok(Self {
            jobs: Arc::new(Handle(jobs)),
            closed,
        })
    }

    /// Ends the threads after the waiting reads, and waits until they have closed the file.
    pub(super) async fn close(mut self) {
        self.jobs.0.close();
        while self.closed.changed().await.is_ok() {}
    }

    pub(super) async fn read<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: FnOnce(&Snapshot) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<DbErr> + Send + 'static,
    {
        let read = |connections: &mut Connections| {
            let snapshot = connections.snapshot()?;
            snapshot.execute_unprepared("BEGIN")?;
            let result = work(snapshot);
            snapshot.execute_unprepared("ROLLBACK")?;
            result
        };
        self.run(read).await
    }

    pub(super) async fn read_raw<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: FnOnce(&RawSnapshot) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<DbErr> + Send + 'static,
    {
        let read = |connections: &mut Connections| {
            let snapshot = connections.raw()?;
            snapshot.control("BEGIN")?;
            let result = work(snapshot);
            snapshot.control("ROLLBACK")?;
            result
        };
        self.run(read).await
    }

    async fn run<T, E, F>(&self, read: F) -> Result<T, E>
    where
        F: FnOnce(&mut Connections) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<DbErr> + Send + 'static,
    {
        let span = trace::part(SpanKind::Internal, || "read");
        span.set("db.system.name", "sqlite");
        let (reply, answer) = oneshot::channel();
        let read: Read = Box::new(move |connections| {
            if reply.is_closed() {
                // The caller has gone away.
                return true;
            }
            let result = catch_unwind(AssertUnwindSafe(|| read(connections)));
            let keep = result.is_ok();
            // The caller may have gone away.
            let _ = reply.send(result);
            keep
        });
        self.jobs.0.push(read)?;
        match answer.await {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => resume_unwind(panic),
            Err(_) => Err(closed().into()),
        }
    }
}

fn closed() -> DbErr {
    DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed)
}

/// One reader.
struct Thread {
    config: Config,
    jobs: Arc<Jobs>,
    checkpoint_lock: Arc<RwLock<()>>,
    damage: Damage,
    /// The identity of the file, if it must stay where it was opened.
    identity: Option<Arc<Identity>>,
    keys: Keys,
}

impl Thread {
    fn run(&self) {
        let mut connections = Connections::new(self);
        if self.identity.is_some() {
            // Opened now, it stays readable if the file is renamed. Reads return the error, if any.
            let _ = connections.snapshot();
        }
        while let Some(read) = self.jobs.next() {
            let _reading = self
                .checkpoint_lock
                .read()
                .unwrap_or_else(PoisonError::into_inner);
            connections.limit.restart();
            if !read(&mut connections) {
                connections = Connections::new(self);
            }
        }
    }
}

/// A reader's connections. Each is opened on first use, and both are replaced after a panic.
struct Connections {
    config: Config,
    damage: Damage,
    identity: Option<Arc<Identity>>,
    keys: Keys,
    limit: ReadLimit,
    snapshot: Option<Snapshot>,
    raw: Option<RawSnapshot>,
}

impl Connections {
    fn new(thread: &Thread) -> Self {
        Self {
            config: thread.config.clone(),
            damage: thread.damage.clone(),
            identity: thread.identity.clone(),
            keys: thread.keys.clone(),
            limit: ReadLimit::new(thread.config.read_timeout),
            snapshot: None,
            raw: None,
        }
    }

    fn snapshot(&mut self) -> Result<&Snapshot, DbErr> {
        let snapshot = match self.snapshot.take() {
            Some(snapshot) => snapshot,
            None => Snapshot::new(
                self.connect(connect)?,
                self.damage.clone(),
                self.keys.clone(),
            ),
        };
        Ok(self.snapshot.insert(snapshot))
    }

    fn raw(&mut self) -> Result<&RawSnapshot, DbErr> {
        let raw = match self.raw.take() {
            Some(raw) => raw,
            None => RawSnapshot::new(
                self.connect(connect_raw)?,
                self.damage.clone(),
                self.limit.clone(),
            ),
        };
        Ok(self.raw.insert(raw))
    }

    /// Opens a connection for reading with `connect`.
    fn connect<C>(
        &self,
        connect: impl FnOnce(&Path, Mode, Prepare) -> Result<C, DbErr>,
    ) -> Result<C, DbErr> {
        let _alone = one_at_a_time();
        let limit = self.limit.clone();
        let prepare = move |connection: &Connection| {
            connection.execute_batch(
                "PRAGMA query_only = ON; PRAGMA busy_timeout = 5000; PRAGMA cache_size = -8000;
                 SELECT 1 FROM sqlite_schema",
            )?;
            limit.watch(connection)
        };
        let connected = connect(&self.config.path, Mode::Read, Box::new(prepare));
        self.damage.note(&connected);
        let identity = self.identity.as_ref();
        match identity.and_then(|identity| identity.moved_itself()) {
            // The connection may be to another file.
            Some(what) => Err(DbErr::Custom(what)),
            None => connected,
        }
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        let _alone = one_at_a_time();
        drop((self.snapshot.take(), self.raw.take()));
    }
}

/// Sets up a connection.
type Prepare = Box<dyn FnOnce(&Connection) -> rusqlite::Result<()>>;
