//! Waiting until a projection has applied what a client wants to see.

use std::time::Duration;

use tokio::sync::watch;

use crate::position::Positions;
use crate::telemetry::trace::{self, SpanKind};

/// How far a projection has got, as it moves. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Progress {
    positions: watch::Receiver<Positions>,
    is_complete: watch::Receiver<bool>,
}

/// The projection did not get there in time.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Behind {
    /// It has only got this far.
    #[error("the copy is at `{at}`, not yet at `{asked}`")]
    NotYet {
        /// How far it has got.
        at: Positions,
        /// What was asked for.
        asked: Positions,
    },
    /// It was never at the end of all its sources: what it has is not whole.
    #[error("the copy is folded from the first event on and is at `{at}`")]
    Incomplete {
        /// How far it has got.
        at: Positions,
    },
    /// It does not follow this source at all.
    #[error("`{0}` is not a source that this service follows")]
    UnknownSource(String),
}

impl Progress {
    pub(super) fn new(
        positions: watch::Receiver<Positions>,
        is_complete: watch::Receiver<bool>,
    ) -> Self {
        Self {
            positions,
            is_complete,
        }
    }

    /// How far it has got.
    pub fn now(&self) -> Positions {
        self.positions.borrow().clone()
    }

    /// Whether the tables have been folded to the end of all sources once. Before, what they do
    /// not have may well exist: "there is no such thing" would be a lie.
    pub fn is_complete(&self) -> bool {
        *self.is_complete.borrow()
    }

    /// Waits until it is elsewhere than at `from`; gives where.
    pub(crate) async fn moved(&self, from: &Positions) -> Positions {
        let mut receiver = self.positions.clone();
        let moved = receiver.wait_for(|at| at != from).await;
        let Ok(moved) = moved.map(|at| at.clone()) else {
            return std::future::pending().await;
        };
        moved
    }

    /// Waits until the tables are whole, `deadline` at most.
    ///
    /// # Errors
    /// They are not, yet.
    pub async fn whole(&self, deadline: Duration) -> Result<(), Behind> {
        let mut receiver = self.is_complete.clone();
        let whole = receiver.wait_for(|is_complete| *is_complete);
        match tokio::time::timeout(deadline, whole).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Behind::Incomplete { at: self.now() }),
        }
    }

    /// Waits until every position in `asked` has been applied, `deadline` at most. A read that
    /// begins afterwards sees them.
    ///
    /// # Errors
    /// See [`Behind`].
    pub async fn wait(&self, asked: &Positions, deadline: Duration) -> Result<(), Behind> {
        if let Some(unknown) = asked
            .0
            .keys()
            .find(|source| !self.positions.borrow().0.contains_key(*source))
        {
            return Err(Behind::UnknownSource(unknown.clone()));
        }
        if self.positions.borrow().reach(asked) {
            return Ok(());
        }
        let span = trace::part(SpanKind::Internal, || "wait for positions");
        if span.is_recording() {
            span.set("headwater.after", asked.to_string());
        }
        let mut receiver = self.positions.clone();
        let reached = receiver.wait_for(|at| at.reach(asked));
        match tokio::time::timeout(deadline, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Behind::NotYet {
                at: self.now(),
                asked: asked.clone(),
            }),
        }
    }
}
