//! What all pages work with.

use std::sync::Arc;

use client::Nats;
use client::schemas::Schemas;
use tokio::sync::{Mutex, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::job::Jobs;
use crate::journal::Journal;
use crate::sample::Samples;

/// The state of the console.
pub(crate) struct App {
    pub(crate) nats: Nats,
    /// The server, and the context that names it.
    pub(crate) place: String,
    /// Whether the console may change something.
    pub(crate) is_operator: bool,
    pub(crate) journal: Arc<Journal>,
    pub(crate) jobs: Jobs,
    pub(crate) samples: Samples,
    pub(crate) schemas: Mutex<Schemas>,
    /// Permits for pages that follow.
    pub(crate) following: Arc<Semaphore>,
    pub(crate) stop: CancellationToken,
}

pub(crate) type Shared = Arc<App>;
