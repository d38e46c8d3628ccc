//! The readers: threads with a read-only connection each (which cannot change threads).

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use sea_orm::{ConnAcquireErr, ConnectOptions, ConnectionTrait as _, DbErr};
use tokio::sync::{mpsc, oneshot};

use super::Snapshot;

/// Reads that wait for a free reader; further callers wait to get into the queue.
const QUEUE: usize = 64;

/// A read, its types erased; whether the connection is to be kept.
type Job = Box<dyn FnOnce(Result<&Snapshot, DbErr>) -> bool + Send>;

/// The handle: cheap to clone. The threads end when the last one is dropped.
#[derive(Debug, Clone)]
pub(super) struct Readers(mpsc::Sender<Job>);

impl Readers {
    pub(super) fn start(owner: &str, path: &Path, readers: usize) -> anyhow::Result<Self> {
        let (sender, jobs) = mpsc::channel(QUEUE);
        let jobs = Arc::new(Mutex::new(jobs));
        for number in 1..=readers {
            let (path, jobs) = (path.to_owned(), Arc::clone(&jobs));
            std::thread::Builder::new()
                .name(format!("{owner}-reader-{number}"))
                .spawn(move || run(&path, &jobs))
                .context("start a reader thread")?;
        }
        Ok(Self(sender))
    }

    pub(super) async fn read<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: FnOnce(&Snapshot) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<DbErr> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |snapshot| {
            let result = catch_unwind(AssertUnwindSafe(|| in_transaction(snapshot?, work)));
            let keep = result.is_ok();
            // A caller that went away is not told.
            let _ = reply.send(result);
            keep
        });
        self.0.send(job).await.map_err(|_| closed())?;
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
        let Some(job) = next else { return };
        match idle.take().map_or_else(|| connect(path), Ok) {
            Ok(snapshot) => idle = job(Ok(&snapshot)).then_some(snapshot),
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
    let url = format!("sqlite:{}?mode=ro", path.display());
    let db = sea_orm::Database::connect(ConnectOptions::new(url))?;
    db.execute_unprepared(
        "PRAGMA query_only = ON; PRAGMA busy_timeout = 5000; PRAGMA cache_size = -16000",
    )?;
    Ok(Snapshot::new(db))
}
