//! The readers: threads with a read-only connection each (which cannot change threads).

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use sea_orm::{ConnAcquireErr, ConnectOptions, ConnectionTrait as _, DbErr};
use tokio::sync::{mpsc, oneshot, watch};

use super::Snapshot;
use super::opening::one_at_a_time;

/// Reads that wait for a free reader; further callers wait to get into the queue.
const QUEUE: usize = 64;

/// A read, its types erased; whether the connection is to be kept.
type Read = Box<dyn FnOnce(Result<&Snapshot, DbErr>) -> bool + Send>;

/// What a reader is told.
enum Job {
    Read(Read),
    Close,
}

/// The handle: cheap to clone. The threads end when the last one is dropped.
#[derive(Debug, Clone)]
pub(super) struct Readers {
    queue: mpsc::Sender<Job>,
    threads: usize,
    /// Its sender is dropped when all threads have closed the file.
    closed: watch::Receiver<()>,
}

impl Readers {
    pub(super) fn start(owner: &str, path: &Path, readers: usize) -> anyhow::Result<Self> {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let (closed_sender, closed) = watch::channel(());
        let closed_sender = Arc::new(closed_sender);
        let jobs = Arc::new(Mutex::new(jobs));
        for number in 1..=readers {
            let (path, jobs) = (path.to_owned(), Arc::clone(&jobs));
            let closed_sender = Arc::clone(&closed_sender);
            std::thread::Builder::new()
                .name(format!("{owner}-reader-{number}"))
                .spawn(move || {
                    run(&path, &jobs);
                    drop(closed_sender);
                })
                .context("start a reader thread")?;
        }
        Ok(Self {
            queue,
            threads: readers,
            closed,
        })
    }

    /// Lets the threads end after the reads that wait, and waits until they have closed the file.
    pub(super) async fn close(mut self) {
        for _ in 0..self.threads {
            // They have ended already if nobody takes it.
            let _ = self.queue.send(Job::Close).await;
        }
        while self.closed.changed().await.is_ok() {}
    }

    pub(super) async fn read<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: FnOnce(&Snapshot) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<DbErr> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let read: Read = Box::new(move |snapshot| {
            let result = catch_unwind(AssertUnwindSafe(|| in_transaction(snapshot?, work)));
            let keep = result.is_ok();
            // A caller that went away is not told.
            let _ = reply.send(result);
            keep
        });
        self.queue
            .send(Job::Read(read))
            .await
            .map_err(|_| closed())?;
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

/// One reader: a connection that is made when it is first needed, and made anew after a panic.
fn run(path: &Path, jobs: &Mutex<mpsc::Receiver<Job>>) {
    let mut idle = None;
    loop {
        // Whoever waits for a job holds the lock; the others queue up behind it.
        let next = jobs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .blocking_recv();
        let Some(Job::Read(job)) = next else {
            let _alone = one_at_a_time();
            drop(idle);
            return;
        };
        match idle.take().map_or_else(|| connect(path), Ok) {
            Ok(snapshot) => {
                if job(Ok(&snapshot)) {
                    idle = Some(snapshot);
                } else {
                    let _alone = one_at_a_time();
                    drop(snapshot);
                }
            }
            Err(error) => {
                job(Err(error));
            }
        }
    }
}

fn in_transaction<T, E: From<DbErr>>(
    snapshot: &Snapshot,
    work: impl FnOnce(&Snapshot) -> Result<T, E>,
) -> Result<T, E> {
    snapshot.execute_unprepared("BEGIN")?;
    let result = work(snapshot);
    snapshot.execute_unprepared("ROLLBACK")?;
    result
}

fn connect(path: &Path) -> Result<Snapshot, DbErr> {
    let _alone = one_at_a_time();
    let url = format!("sqlite:{}?mode=ro", path.display());
    let db = sea_orm::Database::connect(ConnectOptions::new(url))?;
    db.execute_unprepared(
        "PRAGMA query_only = ON; PRAGMA busy_timeout = 5000; PRAGMA cache_size = -16000",
    )?;
    Ok(Snapshot::new(db))
}
