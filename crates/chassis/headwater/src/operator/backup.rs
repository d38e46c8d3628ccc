//! `backup`, `backup.status` and `backup.stop`: the service copies its own database.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use headwater_backup::{self as backup, Progress};
use headwater_nats::control::{BackupCopy, BackupState, BackupStatus};
use headwater_store::Database;
use headwater_telemetry::{Clock, causes};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::operator::reply::{Error, refuse};

/// How long the stop of a service waits for a backup that was cancelled. A file that is left then
/// is overwritten by the next backup.
const END_WAIT: Duration = Duration::from_secs(2);

/// The newest backup that an operator started; one runs at a time.
#[derive(Debug)]
pub(super) struct Backups {
    /// `None` if the database is a read store.
    job: Option<Job>,
    owner: &'static str,
    newest: Arc<watch::Sender<Newest>>,
}

/// What is copied, and where to.
#[derive(Debug, Clone)]
struct Job {
    owner: &'static str,
    database: PathBuf,
    folder: PathBuf,
    keep: usize,
    clock: Clock,
}

#[derive(Debug)]
struct Newest {
    status: BackupStatus,
    cancel: CancellationToken,
}

impl Backups {
    pub(super) fn of(db: &Database) -> Self {
        let (config, database) = (db.config(), db.path());
        let folder = config.backups();
        let folder = std::path::absolute(&folder).unwrap_or(folder);
        let key_file = database.with_extension("keys");
        let status = BackupStatus {
            state: BackupState::Idle,
            since: None,
            copied: 0,
            total: 0,
            folder: text(&folder),
            keep: config.backups_keep,
            key_file: key_file.exists().then(|| text(&key_file)),
            copy: None,
            message: None,
        };
        let job = Job {
            owner: db.owner(),
            database,
            folder,
            keep: config.backups_keep,
            clock: db.clock().clone(),
        };
        Self {
            job: db.is_own().then_some(job),
            owner: db.owner(),
            newest: Arc::new(watch::Sender::new(Newest {
                status,
                cancel: CancellationToken::new(),
            })),
        }
    }

    /// Starts a backup on a thread of its own.
    pub(super) fn begin(&self) -> Result<BackupStatus, Error> {
        let job = self.job()?.clone();
        let cancel = CancellationToken::new();
        let is_begun = self.newest.send_if_modified(|newest| {
            let is_free = !newest.status.state.is_running();
            if is_free {
                newest.cancel = cancel.clone();
                let status = &mut newest.status;
                status.state = BackupState::Waiting;
                status.since = Some(job.clock.now_ms());
                (status.copied, status.total) = (0, 0);
                (status.copy, status.message) = (None, None);
            }
            is_free
        });
        if !is_begun {
            let why =
                "a backup is running; `backup.status` shows its progress, `backup.stop` ends it";
            return Err(refuse(409, why.to_owned()));
        }
        let newest = Arc::clone(&self.newest);
        let thread = thread::Builder::new().name(format!("backup-{}", job.owner));
        if let Err(error) = thread.spawn(move || run(&job, &newest, cancel)) {
            let why = format!("start a thread: {error}");
            self.newest
                .send_modify(|newest| newest.status.state = BackupState::Failed);
            return Err(refuse(503, why));
        }
        self.status()
    }

    /// The status of the newest backup.
    pub(super) fn status(&self) -> Result<BackupStatus, Error> {
        self.job()?;
        Ok(self.newest.borrow().status.clone())
    }

    /// Stops the backup, unless it is about to finish.
    pub(super) fn stop(&self) -> Result<BackupStatus, Error> {
        self.job()?;
        self.newest.borrow().cancel.cancel();
        self.status()
    }

    /// Stops the backup, and waits a moment for its end.
    pub(super) async fn end(&self) {
        self.newest.borrow().cancel.cancel();
        let mut newest = self.newest.subscribe();
        let ended = newest.wait_for(|newest| !newest.status.state.is_running());
        if tokio::time::timeout(END_WAIT, ended).await.is_err() {
            tracing::warn!("a backup was abandoned; the next one removes what is left of it");
        }
    }

    /// Refuses for a read store, which has nothing that its sources do not have.
    fn job(&self) -> Result<&Job, Error> {
        let owner = self.owner;
        let why = || {
            format!(
                "the database of {owner} is a read store, which needs no backup: rebuild it from \
                 the events of its sources, with `headwater rebuild {owner}`"
            )
        };
        self.job.as_ref().ok_or_else(|| refuse(400, why()))
    }
}

/// Makes the copy, and records how it ended.
fn run(job: &Job, newest: &Arc<watch::Sender<Newest>>, cancel: CancellationToken) {
    let shown = Arc::clone(newest);
    let watch: backup::Watch = Arc::new(move |progress| {
        shown.send_if_modified(|newest| show(&mut newest.status, progress));
        if cancel.is_cancelled() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    let made = catch_unwind(AssertUnwindSafe(|| job.make(&watch)));
    let (copy, message) = made.unwrap_or_else(|_| {
        let why = "the backup panicked: a bug of this program";
        (None, Some(why.to_owned()))
    });
    newest.send_modify(|newest| {
        let status = &mut newest.status;
        status.state = match copy {
            Some(_) => BackupState::Done,
            None => BackupState::Failed,
        };
        status.since = Some(job.clock.now_ms());
        (status.copy, status.message) = (copy, message);
    });
}

/// Whether that changed anything.
fn show(status: &mut BackupStatus, progress: Progress) -> bool {
    let before = (status.state, status.copied);
    match progress {
        Progress::Copying { copied, total } => {
            status.state = BackupState::Copying;
            (status.copied, status.total) = (copied, total);
        }
        Progress::Checking => {
            status.state = BackupState::Checking;
            status.copied = status.total;
        }
        _ => status.state = BackupState::Waiting,
    }
    before != (status.state, status.copied)
}

impl Job {
    /// Returns the copy, and what could not be done.
    fn make(&self, watch: &backup::Watch) -> (Option<BackupCopy>, Option<String>) {
        let made = backup::make(&self.database, &self.folder, &self.clock, watch);
        let copy = match made {
            Ok(copy) => copy,
            Err(backup::Error::Cancelled(_)) => {
                tracing::info!("an operator or the end of the service stopped a backup");
                return (None, Some("an operator stopped it".to_owned()));
            }
            Err(error) => {
                let error = causes(&error);
                tracing::warn!(error, "a backup failed");
                return (None, Some(error));
            }
        };
        tracing::info!(
            file = %copy.file.display(),
            position = copy.facts.head,
            bytes = copy.bytes,
            "an operator made a backup"
        );
        let removed = backup::prune(&self.folder, self.owner, self.keep);
        let message = removed.as_ref().err();
        let message = message.map(|error| format!("older copies are still there: {error}"));
        let removed = removed.unwrap_or_default();
        let copy = BackupCopy {
            file: text(&copy.file),
            bytes: copy.bytes,
            position: copy.facts.head,
            epoch: copy.facts.epoch,
            sha256: copy.sha256,
            removed: removed.iter().map(|file| text(file)).collect(),
        };
        (Some(copy), message)
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
