//! Actions that run: their progress, their end, and cancelling them.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, OnceLock};

use anyhow::anyhow;
use futures_util::FutureExt as _;
use headwater::{Clock, causes};
use maintenance::replay::Change;
use terminal::{Progress, Screen};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::journal::Journal;
use crate::text::short;

/// How many actions are kept, to look at their end.
const KEPT: usize = 200;

/// The actions of this run of the console.
#[derive(Default)]
pub(crate) struct Jobs(Mutex<All>);

#[derive(Default)]
struct All {
    last: u64,
    jobs: BTreeMap<u64, Arc<Job>>,
    tasks: JoinSet<()>,
}

/// An action.
pub(crate) struct Job {
    pub(crate) id: u64,
    pub(crate) what: String,
    /// RFC 3339.
    pub(crate) begun: String,
    pub(crate) can_cancel: bool,
    screen: Screen,
    cancel: CancellationToken,
    state: Mutex<State>,
    replayed: OnceLock<Replayed>,
}

/// How an action stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Running,
    /// It is being cancelled.
    Ending,
    Done(String),
    /// It was done, and something is not as it should be.
    Differs(String),
    Failed(String),
    Cancelled(String),
}

/// How an action ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) text: String,
    /// Whether all is as it should be.
    pub(crate) is_well: bool,
    pub(crate) replayed: Option<Replayed>,
}

/// The rows that an event has changed: not for the log.
#[derive(Debug)]
pub(crate) struct Replayed {
    pub(crate) changes: Vec<Change>,
    /// Whether they may hold personal data.
    pub(crate) is_personal: bool,
}

/// What a running action gets.
pub(crate) struct Handles {
    /// For its progress.
    pub(crate) screen: Screen,
    /// Cancelled when it should end early.
    pub(crate) cancel: CancellationToken,
}

impl Jobs {
    /// Logs that an action begins, and runs it. If it cannot be logged, it does not begin.
    pub(crate) fn start<F>(
        &self,
        journal: &Arc<Journal>,
        what: String,
        can_cancel: bool,
        run: impl FnOnce(Handles) -> F,
    ) -> anyhow::Result<u64>
    where
        F: Future<Output = anyhow::Result<Ended>> + Send + 'static,
    {
        let mut all = self.0.lock().expect("no holder panics");
        let id = all.last + 1;
        journal.write(Some(id), &what, "begun")?;
        all.last = id;
        let job = Arc::new(Job {
            id,
            what,
            begun: Clock::text(Clock::system().now_ms()),
            can_cancel,
            screen: Screen::read(),
            cancel: CancellationToken::new(),
            state: Mutex::new(State::Running),
            replayed: OnceLock::new(),
        });
        let handles = Handles {
            screen: job.screen.clone(),
            cancel: job.cancel.clone(),
        };
        let (running, journal) = (run(handles), Arc::clone(journal));
        let own = Arc::clone(&job);
        let running = AssertUnwindSafe(running).catch_unwind();
        all.tasks.spawn(async move {
            let ended = running.await;
            let ended =
                ended.unwrap_or_else(|_| Err(anyhow!("it panicked: a bug of this program")));
            own.end(ended, &journal);
        });
        all.jobs.insert(id, job);
        while all.tasks.try_join_next().is_some() {}
        while all.jobs.len() > KEPT {
            all.jobs.pop_first();
        }
        Ok(id)
    }

    pub(crate) fn get(&self, id: u64) -> Option<Arc<Job>> {
        let all = self.0.lock().expect("no holder panics");
        all.jobs.get(&id).cloned()
    }

    /// The newest first.
    pub(crate) fn newest(&self) -> Vec<Arc<Job>> {
        let all = self.0.lock().expect("no holder panics");
        all.jobs.values().rev().cloned().collect()
    }

    /// Logs the actions that the end of the console leaves behind.
    pub(crate) fn abandon(&self, journal: &Journal) {
        let running = self.newest().into_iter().filter(|job| job.is_running());
        for job in running {
            let outcome =
                "the console ended before this did: look at its outcome with `headwater status`";
            if let Err(error) = journal.write(Some(job.id), &job.what, outcome) {
                client::complain(&causes(error.as_ref()));
            }
        }
    }
}

impl Job {
    pub(crate) fn state(&self) -> State {
        self.state.lock().expect("no holder panics").clone()
    }

    /// What it does, for a list.
    pub(crate) fn title(&self) -> String {
        short(&self.what)
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(self.state(), State::Running | State::Ending)
    }

    pub(crate) fn progress(&self) -> Vec<Progress> {
        self.screen.progress()
    }

    /// The result, if an event was replayed.
    pub(crate) fn replayed(&self) -> Option<&Replayed> {
        self.replayed.get()
    }

    /// Asks it to end early; returns whether it was running and can.
    pub(crate) fn cancel(&self) -> bool {
        let mut state = self.state.lock().expect("no holder panics");
        let may = self.can_cancel && *state == State::Running;
        if may {
            *state = State::Ending;
            self.cancel.cancel();
        }
        may
    }

    fn end(&self, mut ended: anyhow::Result<Ended>, journal: &Journal) {
        if let Ok(Ended { replayed, .. }) = &mut ended
            && let Some(replayed) = replayed.take()
        {
            self.replayed.get_or_init(|| replayed);
        }
        let is_cancelled = self.cancel.is_cancelled();
        let state = match ended {
            Ok(Ended { text, .. }) if is_cancelled => State::Cancelled(text),
            Ok(Ended {
                text,
                is_well: true,
                ..
            }) => State::Done(text),
            Ok(Ended { text, .. }) => State::Differs(text),
            Err(error) if is_cancelled => State::Cancelled(causes(error.as_ref())),
            Err(error) => State::Failed(causes(error.as_ref())),
        };
        if let Err(error) = journal.write(Some(self.id), &self.what, &state.log()) {
            client::complain(&causes(error.as_ref()));
        }
        *self.state.lock().expect("no holder panics") = state;
    }
}

impl State {
    /// One word for it.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Ending => "is being cancelled",
            Self::Done(_) => "done",
            Self::Differs(_) => "done, look at the result",
            Self::Failed(_) => "failed",
            Self::Cancelled(_) => "cancelled",
        }
    }

    /// The class of its badge.
    pub(crate) fn class(&self) -> &'static str {
        match self {
            Self::Running | Self::Ending => "soft",
            Self::Done(_) => "good",
            Self::Differs(_) | Self::Cancelled(_) => "warn",
            Self::Failed(_) => "bad",
        }
    }

    /// The result, if it has ended.
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Running | Self::Ending => "",
            Self::Done(text) | Self::Differs(text) | Self::Failed(text) | Self::Cancelled(text) => {
                text
            }
        }
    }

    fn log(&self) -> String {
        let word = match self {
            Self::Differs(_) => "done",
            state => state.word(),
        };
        format!("{word}: {}", self.text())
    }
}
