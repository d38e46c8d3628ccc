//! The writer thread: closures run in groups, with one commit per group.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};
use headwater_telemetry::causes;
use headwater_telemetry::crash;
use headwater_telemetry::trace::{self, SpanKind};
use rusqlite::ErrorCode;
use sea_orm::DbErr;
use tokio::sync::{mpsc, oneshot, watch};

use crate::config::Config;
use crate::connection::{Damage, code, one_at_a_time};
use crate::error::Error;
use crate::generation;
use crate::identity::Identity;
use crate::opening::{Opened, Opening};
use crate::room::Room;
use crate::transaction::Tx;
use crate::write_error::WriteError;

/// A group takes no further closures after this long, so that its first one does not wait forever
/// on a busy queue.
const GROUP_TIME_MAX: Duration = Duration::from_millis(20);

/// The pause after a failed attempt to empty the WAL.
const TRUNCATION_PAUSE: Duration = Duration::from_secs(10);

/// The pause between checks whether the writer has made a step.
const STEP_PAUSE: Duration = Duration::from_millis(50);

/// The handle. Cheap to clone; the thread ends when the last one is dropped.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    owner: &'static str,
    queue: mpsc::Sender<Box<dyn Work>>,
    head: watch::Receiver<u64>,
    failure: watch::Receiver<Option<Arc<str>>>,
    /// The number of steps that the thread has made: closures, commits, emptied logs.
    steps: Arc<AtomicU64>,
    /// Its sender is dropped when the thread has closed the file.
    closed: watch::Receiver<()>,
    room: Arc<Room>,
}

impl Writer {
    /// Starts the thread, which opens the database and migrates its tables. Reads hold
    /// `checkpoint_lock` shared.
    pub(super) async fn start(
        opening: Opening,
        checkpoint_lock: Arc<RwLock<()>>,
        damage: Damage,
    ) -> anyhow::Result<(Self, Opened)> {
        let owner = opening.owner;
        let (queue, jobs) = mpsc::channel(opening.config.queue);
        let (head_sender, head) = watch::channel(0);
        let (failure_sender, failure) = watch::channel(None);
        let (closed_sender, closed) = watch::channel(());
        let (opened_sender, opened) = oneshot::channel();
        let writer = Self {
            owner,
            queue,
            head,
            failure,
            steps: Arc::default(),
            closed,
            room: Arc::new(Room::of(&opening.config.path)),
        };
        let ends = Ends {
            jobs,
            head: head_sender,
            checkpoint_lock,
            steps: Arc::clone(&writer.steps),
            room: Arc::clone(&writer.room),
        };
        let run = move || {
            // The caller may be gone. Its queue is then closed, and the thread ends.
            match Thread::open(opening, ends, damage) {
                Ok((thread, found)) => {
                    let _ = opened_sender.send(Ok(found));
                    thread.run_to_end(&failure_sender);
                }
                Err(error) => drop(opened_sender.send(Err(error))),
            }
            drop(closed_sender);
        };
        let thread = std::thread::Builder::new().name(format!("{owner}-writer"));
        thread.spawn(run).context("start the writer thread")?;
        let found = opened.await.context("open the database")??;
        // Counters that alerts use exist from the start.
        metrics::counter!("headwater_database_refused_total", "service" => owner).increment(0);
        Ok((writer, found))
    }

    /// Runs `work`; with `is_exclusive`, in a separate transaction.
    ///
    /// If the current task is traced, so are this write and the events that it appends.
    pub(super) async fn write<T, E, F>(&self, work: F, is_exclusive: bool) -> Written<T, E>
    where
        F: FnOnce(&Tx) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let span = trace::part(SpanKind::Internal, || "write");
        span.set("db.system.name", "sqlite");
        span.set("code.function.name", name_of::<F>());
        let job = Job {
            work: Some(work),
            traceparent: span.kept_traceparent(),
            result: None,
            reply,
            is_exclusive,
        };
        self.queue
            .try_send(Box::new(job))
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => {
                    metrics::counter!("headwater_database_refused_total", "service" => self.owner)
                        .increment(1);
                    WriteError::Busy
                }
                mpsc::error::TrySendError::Closed(_) => WriteError::Unknown,
            })?;
        let written = answer.await.unwrap_or(Err(WriteError::Unknown));
        if let Err(error) = &written {
            span.set("headwater.outcome", error.kind());
        }
        written
    }

    /// The number of waiting writes.
    pub(super) fn waiting(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }

    pub(super) fn head(&self) -> watch::Receiver<u64> {
        self.head.clone()
    }

    /// See [`Database::shortage`](crate::database::Database::shortage).
    pub(super) fn shortage(&self) -> Option<String> {
        self.room.shortage()
    }

    /// Resolves when the thread has made a step: an empty write, or one queued before it.
    /// Also resolves if the thread has ended, which [`stopped`](Self::stopped) reports.
    pub(super) async fn ping(&self) {
        let before = self.steps.load(Ordering::Relaxed);
        // Waits if the queue is full. An empty write sends no reply.
        let ended = async {
            let has_ended = self
                .queue
                .send(Box::new(Empty { is_last: false }))
                .await
                .is_err();
            if !has_ended {
                std::future::pending::<()>().await;
            }
        };
        let stepped = async {
            while self.steps.load(Ordering::Relaxed) == before {
                tokio::time::sleep(STEP_PAUSE).await;
            }
        };
        tokio::select! {
            () = ended => {}
            () = stepped => {}
        }
    }

    /// Ends the thread after the waiting writes, and waits until it has closed the file.
    pub(super) async fn close(mut self) {
        // If this fails, the thread has already ended.
        let _ = self.queue.send(Box::new(Empty { is_last: true })).await;
        while self.closed.changed().await.is_ok() {}
    }

    /// Resolves with [`Error::WriterStopped`].
    pub(super) async fn stopped(&self) -> Error {
        let mut failure = self.failure.clone();
        let why = match failure.wait_for(Option::is_some).await {
            Ok(why) => why.as_deref().unwrap_or_default().to_owned(),
            Err(_) => "its thread ended".to_owned(),
        };
        Error::WriterStopped(anyhow!(why).context("database writer").into())
    }
}

/// Closures that share one transaction.
#[derive(Default)]
struct Group {
    jobs: Vec<Box<dyn Work>>,
    /// The last position that one of them appended.
    appended: Option<u64>,
    /// Whether this is a refused exclusive closure: none of its changes are kept.
    is_rolled_back: bool,
}

/// What the thread shares with its handles and with the readers.
struct Ends {
    jobs: mpsc::Receiver<Box<dyn Work>>,
    head: watch::Sender<u64>,
    /// Reads hold it shared.
    checkpoint_lock: Arc<RwLock<()>>,
    steps: Arc<AtomicU64>,
    room: Arc<Room>,
}

struct Thread {
    tx: Tx,
    /// The identity of the file, if it must stay where it was opened.
    identity: Option<Arc<Identity>>,
    config: Config,
    ends: Ends,
    /// A job taken out of the queue that must not share the current transaction.
    waiting: Option<Box<dyn Work>>,
    /// The size of the WAL when the transaction began, in bytes.
    wal_before: u64,
    /// The earliest time to empty the WAL again after an attempt failed.
    next_truncation: Instant,
}

impl Thread {
    fn open(opening: Opening, ends: Ends, damage: Damage) -> anyhow::Result<(Self, Opened)> {
        let (db, found) = opening.open()?;
        ends.head.send_replace(found.head);
        let keys = found.keys.clone();
        let thread = Self {
            tx: Tx::new(db, opening.owner, opening.clock, damage, keys),
            identity: found.identity.clone(),
            config: opening.config,
            ends,
            waiting: None,
            wal_before: 0,
            next_truncation: Instant::now(),
        };
        Ok((thread, found))
    }

    /// Runs, and closes the file. If it ended with an error, sends the error to `failure`.
    fn run_to_end(mut self, failure: &watch::Sender<Option<Arc<str>>>) {
        if let Err(error) = self.run() {
            let error = causes(error.as_ref());
            tracing::error!(error, "database writer stopped");
            failure.send_replace(Some(error.into()));
        }
        let _alone = one_at_a_time();
        drop(self);
    }

    /// Runs until it is closed, every handle is dropped, or a transaction fails.
    fn run(&mut self) -> anyhow::Result<()> {
        while let Some(first) = self
            .waiting
            .take()
            .or_else(|| self.ends.jobs.blocking_recv())
        {
            // Needs no transaction, so nothing can keep the thread from ending.
            if first.is_last() {
                break;
            }
            if let Err(refusal) = self.begin() {
                self.note_step();
                first.answer(refusal);
                continue;
            }
            let group = if first.is_exclusive() {
                self.run_alone(first)?
            } else {
                self.run_group(first)?
            };
            self.end(group)?;
        }
        Ok(())
    }

    /// Ends the transaction of `group`, and answers its closures.
    ///
    /// # Errors
    /// It is unknown whether the group is on the disk; or the log could not be emptied or cut.
    fn end(&mut self, group: Group) -> anyhow::Result<()> {
        let committing = Instant::now();
        let mut ended = Ok(());
        if !self.tx.is_full() {
            crash::point("commit.before");
            ended = self.sql(if group.is_rolled_back {
                "ROLLBACK"
            } else {
                "COMMIT"
            });
        }
        if self.tx.is_full() {
            return self.refuse_full(group.jobs);
        }
        ended.context("commit: the outcome of its writes is unknown")?;
        self.note_step();
        crash::point("commit.after");
        self.note_commit(committing, group.jobs.len());
        if let Some(position) = group.appended {
            self.ends.head.send_replace(position);
        }
        // If the file was just renamed, it has the writes, but the next start may not find it.
        let outcome = match self.moved() {
            None => Outcome::Committed,
            Some(_) => Outcome::Unknown,
        };
        for job in group.jobs {
            job.answer(outcome);
        }
        self.bound_wal()
    }

    fn note_commit(&self, began: Instant, writes: usize) {
        let service = self.tx.owner();
        metrics::histogram!("headwater_database_commit_seconds", "service" => service)
            .record(began.elapsed());
        #[expect(clippy::cast_precision_loss, reason = "a group is small")]
        metrics::histogram!("headwater_database_group_size", "service" => service)
            .record(writes as f64);
    }

    /// Begins a transaction. If it cannot, returns the answer for the write, which was not run.
    fn begin(&mut self) -> Result<(), Outcome> {
        if self.moved().is_some() {
            return Err(Outcome::Moved);
        }
        if self.ends.room.is_short() {
            return Err(Outcome::Full);
        }
        self.wal_before = generation::wal_bytes(&self.config.path);
        let begun = self.sql("BEGIN IMMEDIATE");
        begun.map_err(|error| {
            if self.tx.take_full() {
                self.ends.room.note_refusal();
                return Outcome::Full;
            }
            if code(&error) == Some(ErrorCode::DatabaseBusy) {
                tracing::warn!(
                    "refused a write: another process has held the database's write lock for 5 s"
                );
            } else {
                tracing::warn!(%error, "refused a write: cannot begin a transaction");
            }
            Outcome::Busy
        })
    }

    /// Rolls back the transaction that found the disk full, and refuses its writes.
    ///
    /// # Errors
    /// A transaction is still open, or the log cannot be cut.
    fn refuse_full(&self, jobs: Vec<Box<dyn Work>>) -> anyhow::Result<()> {
        // SQLite may have rolled back already. If a new one can begin, none is left open.
        let _ = self.sql("ROLLBACK");
        self.sql("BEGIN")
            .and_then(|()| self.sql("ROLLBACK"))
            .context("roll back the transaction that found the disk full")?;
        // The frames that it appended to the log are unused, and take space that others need.
        generation::cut_wal(&self.config.path, self.wal_before)
            .context("cut the log of the transaction that found the disk full")?;
        self.tx.take_full();
        self.ends.room.note_refusal();
        self.note_step();
        for job in jobs {
            job.answer(Outcome::Full);
        }
        Ok(())
    }

    /// What happened to the file, if it is no longer where it was opened.
    fn moved(&self) -> Option<String> {
        self.identity.as_ref().and_then(|identity| identity.moved())
    }

    /// Counts a step, for [`Writer::ping`].
    fn note_step(&self) {
        self.ends.steps.fetch_add(1, Ordering::Relaxed);
    }

    /// Empties the WAL if it is too large. SQLite does this at every thousandth page, but only in a
    /// moment without readers, which never comes if reads overlap.
    fn bound_wal(&mut self) -> anyhow::Result<()> {
        if generation::wal_bytes(&self.config.path) < self.config.wal_mib * 1024 * 1024
            || Instant::now() < self.next_truncation
        {
            return Ok(());
        }
        // New reads wait, and running reads finish first: their time is bounded.
        let _alone = self
            .ends
            .checkpoint_lock
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        self.note_step();
        // Do not wait for readers outside of this process, such as an operator with the shell.
        self.sql("PRAGMA busy_timeout = 0")?;
        let emptied = self.sql("PRAGMA wal_checkpoint(TRUNCATE)");
        self.sql("PRAGMA busy_timeout = 5000")?;
        if self.tx.take_full() {
            // The WAL keeps the pages that the file has no space for.
            self.next_truncation = Instant::now() + TRUNCATION_PAUSE;
            return Ok(());
        }
        emptied.context("empty the write-ahead log")?;
        self.note_step();
        let left = generation::wal_bytes(&self.config.path);
        if left > 0 {
            self.next_truncation = Instant::now() + TRUNCATION_PAUSE;
            tracing::warn!(
                bytes = left,
                "the write-ahead log grows: a long-running reader, perhaps in another process, \
                 keeps it from being emptied; end that reader"
            );
        }
        Ok(())
    }

    /// Runs closures until the queue is empty or the group is full, each in its own savepoint.
    /// Returns the closures that ran and the last position that they appended. Ends early if one
    /// finds the disk full.
    ///
    /// # Errors
    /// The transaction is gone (SQLite rolls it back on some I/O errors): no change of the group
    /// was kept, and its callers get [`WriteError::Unknown`].
    fn run_group(&mut self, first: Box<dyn Work>) -> anyhow::Result<Group> {
        let started = Instant::now();
        let mut group = Group::default();
        let mut next = Some(first);
        while let Some(mut job) = next.take() {
            group.appended = self.run_one(job.as_mut())?.or(group.appended);
            group.jobs.push(job);
            self.note_step();
            crash::point("commit.group");
            let has_room = !self.tx.is_full() && group.jobs.len() < self.config.group;
            if has_room && started.elapsed() < GROUP_TIME_MAX {
                match self.ends.jobs.try_recv() {
                    Ok(job) if job.is_exclusive() || job.is_last() => self.waiting = Some(job),
                    Ok(job) => next = Some(job),
                    Err(_) => {}
                }
            }
        }
        Ok(group)
    }

    /// Runs an exclusive closure, without a savepoint.
    ///
    /// # Errors
    /// See [`run_group`](Self::run_group).
    fn run_alone(&self, mut job: Box<dyn Work>) -> anyhow::Result<Group> {
        let started = Instant::now();
        let kept = job.run(&self.tx);
        let appended = self.tx.take_appended();
        ensure!(
            self.tx.is_full() || !self.tx.is_lost(),
            "the transaction of one write is gone"
        );
        self.warn_if_slow(job.as_ref(), started);
        Ok(Group {
            jobs: vec![job],
            appended: appended.filter(|_| kept),
            is_rolled_back: !kept,
        })
    }

    /// Runs one closure; returns the last position that it appended, if its changes are kept.
    fn run_one(&self, job: &mut dyn Work) -> anyhow::Result<Option<u64>> {
        let started = Instant::now();
        self.sql("SAVEPOINT job")?;
        let kept = job.run(&self.tx);
        let appended = self.tx.take_appended();
        if self.tx.is_full() {
            return Ok(None);
        }
        if !kept {
            self.sql("ROLLBACK TO job").context("roll back one write")?;
        }
        self.sql("RELEASE job").context("end one write")?;
        self.warn_if_slow(job, started);
        Ok(appended.filter(|_| kept))
    }

    fn warn_if_slow(&self, job: &dyn Work, started: Instant) {
        let took = started.elapsed();
        if took > self.config.slow_write {
            tracing::warn!(
                write = job.name(),
                took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                "slow write"
            );
        }
    }

    fn sql(&self, sql: &str) -> Result<(), DbErr> {
        self.tx.control(sql)
    }
}

/// The outcome of a group's transaction.
#[derive(Clone, Copy)]
enum Outcome {
    Committed,
    Unknown,
    /// It could not begin.
    Busy,
    /// It was rolled back or did not begin: the disk is full.
    Full,
    /// It did not begin: the file is no longer where it was opened.
    Moved,
}

/// A type-erased closure in the queue.
trait Work: Send {
    /// Runs it; returns whether to keep its changes.
    fn run(&mut self, tx: &Tx) -> bool;
    fn answer(self: Box<Self>, outcome: Outcome);
    fn name(&self) -> &'static str;
    /// Whether the thread ends instead of running it.
    fn is_last(&self) -> bool {
        false
    }
    /// Whether it runs in a separate transaction.
    fn is_exclusive(&self) -> bool {
        false
    }
}

/// An empty write: it shows that the thread takes writes, or ends the thread.
struct Empty {
    is_last: bool,
}

impl Work for Empty {
    fn run(&mut self, _tx: &Tx) -> bool {
        true
    }

    fn answer(self: Box<Self>, _outcome: Outcome) {}

    fn name(&self) -> &'static str {
        "empty"
    }

    fn is_last(&self) -> bool {
        self.is_last
    }
}

struct Job<F, T, E> {
    work: Option<F>,
    traceparent: Option<String>,
    result: Option<Written<T, E>>,
    reply: oneshot::Sender<Written<T, E>>,
    is_exclusive: bool,
}

/// The function that contains the closure.
fn name_of<F>() -> &'static str {
    std::any::type_name::<F>().trim_end_matches("::{{closure}}")
}

/// The result of a closure, with the last position that it appended.
type Written<T, E> = Result<(T, Option<u64>), WriteError<E>>;

impl<F, T, E> Work for Job<F, T, E>
where
    F: FnOnce(&Tx) -> Result<T, E> + Send,
    T: Send,
    E: Send,
{
    fn run(&mut self, tx: &Tx) -> bool {
        let work = self.work.take().expect("a job runs once");
        tx.set_traceparent(self.traceparent.take());
        let result = match catch_unwind(AssertUnwindSafe(|| work(tx))) {
            Ok(Ok(value)) => Ok((value, tx.appended())),
            Ok(Err(refused)) => Err(WriteError::Refused(refused)),
            Err(_) => {
                tracing::error!(write = self.name(), "a write panicked and was rolled back");
                Err(WriteError::Panicked)
            }
        };
        let kept = result.is_ok();
        self.result = Some(result);
        kept
    }

    fn answer(self: Box<Self>, outcome: Outcome) {
        let answer = match (outcome, self.result) {
            (Outcome::Committed, Some(result)) => result,
            // It was refused or panicked, so nothing of it was written in any case.
            (Outcome::Unknown, Some(Err(error))) => Err(error),
            (Outcome::Unknown, _) => Err(WriteError::Unknown),
            (Outcome::Moved, _) => Err(WriteError::Moved),
            (Outcome::Full, _) => Err(WriteError::Full),
            (Outcome::Committed, None) | (Outcome::Busy, _) => Err(WriteError::Busy),
        };
        // The caller may have gone away; its write stands.
        let _ = self.reply.send(answer);
    }

    fn is_exclusive(&self) -> bool {
        self.is_exclusive
    }

    fn name(&self) -> &'static str {
        name_of::<F>()
    }
}
