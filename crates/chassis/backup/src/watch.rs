//! The progress of a copy, and its cancellation.

use std::ops::ControlFlow;
use std::sync::Arc;

use anyhow::bail;

use crate::error::Error;

/// What is done for a copy that is being made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// It waits for another copy of this database to the same folder.
    Waiting,
    /// It is being copied.
    Copying {
        /// The bytes copied so far.
        copied: u64,
        /// The bytes to copy.
        total: u64,
    },
    /// It is being checked.
    Checking,
}

/// Receives the progress of a copy, several times per second; [`ControlFlow::Break`] cancels the
/// copy.
pub type Watch = Arc<dyn Fn(Progress) -> ControlFlow<()> + Send + Sync>;

/// Watches a copy that is never cancelled.
pub fn unwatched() -> Watch {
    Arc::new(|_| ControlFlow::Continue(()))
}

/// Reports `progress`; fails if the copy is cancelled.
pub(crate) fn report(watch: &Watch, progress: Progress) -> anyhow::Result<()> {
    match watch(progress) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => bail!(Error::Cancelled("it was cancelled".into())),
    }
}
