//! Waiting until a projection has applied what a client wants to see.

use std::time::Duration;

use tokio::sync::watch;

use crate::position::Positions;

/// How far a projection has got, as it moves. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Progress(watch::Receiver<Positions>);

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
    /// It does not follow this source at all.
    #[error("`{0}` is not a source that this service follows")]
    UnknownSource(String),
}

impl Progress {
    pub(super) fn new(receiver: watch::Receiver<Positions>) -> Self {
        Self(receiver)
    }

    /// How far it has got.
    pub fn now(&self) -> Positions {
        self.0.borrow().clone()
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
            .find(|source| !self.0.borrow().0.contains_key(*source))
        {
            return Err(Behind::UnknownSource(unknown.clone()));
        }
        let mut receiver = self.0.clone();
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
