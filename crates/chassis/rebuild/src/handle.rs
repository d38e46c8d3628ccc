//! The operator's handle of a rebuild.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use headwater_event::Positions;
use headwater_nats::control::{RebuildPurpose, RebuildState, RebuildStatus};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// The operator's handle of a rebuild. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) requests: mpsc::Sender<RebuildPurpose>,
    pub(super) status: Arc<watch::Sender<RebuildStatus>>,
    pub(super) stop: Stop,
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
    /// Begins an attempt. `is_partial`: see `RebuildRequest`.
    pub fn begin(&self, purpose: RebuildPurpose, is_partial: bool) -> Result<RebuildStatus, Busy> {
        let mut is_begun = false;
        self.status.send_if_modified(|status| {
            is_begun = !status.state.is_running() && self.requests.try_send(purpose).is_ok();
            if is_begun {
                self.stop.renew();
                *status = RebuildStatus {
                    is_partial,
                    ..begun(purpose, "an operator requested it".to_owned())
                };
            }
            is_begun
        });
        if is_begun {
            Ok(self.status())
        } else {
            Err(Busy)
        }
    }

    /// Stops the current attempt, unless it is about to finish; the live store stays.
    pub fn stop(&self) -> RebuildStatus {
        self.stop.now().cancel();
        self.status()
    }

    /// The current status.
    pub fn status(&self) -> RebuildStatus {
        self.status.borrow().clone()
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
    }
}
