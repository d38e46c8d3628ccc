//! The operator's handle of a rebuild.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use headwater_event::Positions;
use headwater_nats::control::{RebuildPurpose, RebuildState, RebuildStatus, ReplayRequest};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// The operator's handle of a rebuild. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) requests: mpsc::Sender<Task>,
    pub(super) status: Arc<watch::Sender<RebuildStatus>>,
    pub(super) stop: Stop,
}

/// What to build a new store for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// To replace the live store.
    Rebuild,
    /// To compare it with the live store. `is_partial`: see `RebuildRequest`.
    Verify {
        /// Whether it does not count as a success even without differences.
        is_partial: bool,
    },
    /// To apply one event to it.
    Replay(ReplayRequest),
}

impl Task {
    /// The purpose, as in the status.
    pub(super) fn purpose(&self) -> RebuildPurpose {
        match self {
            Self::Rebuild => RebuildPurpose::Rebuild,
            Self::Verify { .. } => RebuildPurpose::Verify,
            Self::Replay(_) => RebuildPurpose::Replay,
        }
    }
}

/// Stops the current attempt. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Stop(Arc<Mutex<CancellationToken>>);

impl Stop {
    /// Resets it for a new attempt.
    pub(super) fn renew(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = CancellationToken::new();
    }

    /// The token of the current attempt.
    pub(super) fn now(&self) -> CancellationToken {
        let token = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        token.clone()
    }
}

/// An attempt is already running.
#[derive(Debug)]
pub struct Busy;

impl Handle {
    /// Begins an attempt. A replay that was begun already, or has ended and was not asked for since,
    /// is not begun again: its status is returned, once with its rows.
    ///
    /// # Errors
    /// [`Busy`].
    pub fn begin(&self, task: Task) -> Result<RebuildStatus, Busy> {
        let (mut begun, fresh) = (Err(Busy), status_of(&task));
        self.status.send_if_modified(|status| {
            if fresh.event.is_some() && status.event == fresh.event {
                begun = Ok(status.clone());
                if !status.state.is_running() {
                    (status.event, status.differences) = (None, None);
                }
                return true;
            }
            let may = !status.state.is_running() && self.requests.try_send(task).is_ok();
            if may {
                self.stop.renew();
                begun = Ok(fresh.clone());
                *status = fresh;
            }
            may
        });
        begun
    }

    /// Stops the current attempt, unless it is about to finish; the live store stays.
    pub fn stop(&self) -> RebuildStatus {
        self.stop.now().cancel();
        self.status()
    }

    /// The current status; of a replay, without its rows.
    pub fn status(&self) -> RebuildStatus {
        let mut status = self.status.borrow().clone();
        if status.then == RebuildPurpose::Replay
            && let Some(changed) = &mut status.differences
        {
            changed.rows.clear();
        }
        status
    }
}

/// The status of a task that begins.
fn status_of(task: &Task) -> RebuildStatus {
    let event = match task {
        Task::Replay(event) => Some(event.clone()),
        Task::Rebuild | Task::Verify { .. } => None,
    };
    RebuildStatus {
        is_partial: *task == Task::Verify { is_partial: true },
        event,
        ..begun(task.purpose(), "an operator requested it".to_owned())
    }
}

/// The status of an attempt that begins.
pub(super) fn begun(purpose: RebuildPurpose, reason: String) -> RebuildStatus {
    RebuildStatus {
        state: RebuildState::Folding,
        then: purpose,
        reason,
        positions: Positions::default(),
        live: Positions::default(),
        waiting: BTreeMap::new(),
        differences: None,
        message: None,
        held_us: None,
        is_partial: false,
        event: None,
    }
}
