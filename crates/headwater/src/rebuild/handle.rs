//! What operators hold of a rebuild.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::operator::{FoldState, FoldStatus, Then};
use crate::position::Positions;

/// What operators hold of it. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    pub(super) requests: mpsc::Sender<Then>,
    pub(super) status: Arc<watch::Sender<FoldStatus>>,
}

/// One is under way already.
#[derive(Debug)]
pub(crate) struct Busy;

impl Handle {
    /// Begins a fold.
    pub(crate) fn begin(&self, then: Then) -> Result<FoldStatus, Busy> {
        let mut is_begun = false;
        self.status.send_if_modified(|status| {
            let is_free = !matches!(status.state, FoldState::Folding | FoldState::Comparing);
            is_begun = is_free && self.requests.try_send(then).is_ok();
            if is_begun {
                *status = begun(then, "an operator asked for it".to_owned());
            }
            is_begun
        });
        if is_begun {
            Ok(self.status())
        } else {
            Err(Busy)
        }
    }

    /// How far it is.
    pub(crate) fn status(&self) -> FoldStatus {
        self.status.borrow().clone()
    }
}

/// The status of a fold that begins.
pub(super) fn begun(then: Then, reason: String) -> FoldStatus {
    FoldStatus {
        state: FoldState::Folding,
        then,
        reason,
        positions: Positions::default(),
        live: Positions::default(),
        differences: None,
        message: None,
        held_us: None,
    }
}
