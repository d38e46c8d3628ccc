//! What operators hold of a rebuild.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use headwater_event::Positions;
use headwater_nats::control::{RebuildPurpose, RebuildState, RebuildStatus};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// What operators hold of it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) requests: mpsc::Sender<RebuildPurpose>,
    pub(super) status: Arc<watch::Sender<RebuildStatus>>,
    pub(super) stop: Stop,
}

/// What stops the fold that is under way. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Stop(Arc<Mutex<CancellationToken>>);

impl Stop {
    /// For a fold that begins.
    pub(super) fn renew(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = CancellationToken::new();
    }

    /// Of the fold that is under way.
    pub(super) fn now(&self) -> CancellationToken {
        let token = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        token.clone()
    }
}

/// One is under way already.
#[derive(Debug)]
pub struct Busy;

impl Handle {
    /// Begins a fold. `is_partial`: see `RebuildRequest`.
    pub fn begin(&self, then: RebuildPurpose, is_partial: bool) -> Result<RebuildStatus, Busy> {
        let mut is_begun = false;
        self.status.send_if_modified(|status| {
            is_begun = !status.state.is_running() && self.requests.try_send(then).is_ok();
            if is_begun {
                self.stop.renew();
                *status = RebuildStatus {
                    is_partial,
                    ..begun(then, "an operator asked for it".to_owned())
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

    /// Stops the fold that is under way, unless it is about to be done; the live store stays.
    pub fn stop(&self) -> RebuildStatus {
        self.stop.now().cancel();
        self.status()
    }

    /// How far it is.
    pub fn status(&self) -> RebuildStatus {
        self.status.borrow().clone()
    }
}

/// The status of a fold that begins.
pub(super) fn begun(then: RebuildPurpose, reason: String) -> RebuildStatus {
    RebuildStatus {
        state: RebuildState::Folding,
        then,
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
