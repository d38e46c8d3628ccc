//! What the readers of a projection have in common.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use headwater_event::AsOf;
use headwater_nats::Bus;
use headwater_store::{Database, WriteError};
use headwater_telemetry::Health;
use tokio::sync::watch;

use crate::barrier::ApplyBarrier;
use crate::checkpoint;
use crate::config::Config;
use crate::projection::Projection;
use crate::source::Sources;

#[derive(Debug)]
pub(crate) struct Shared<P> {
    pub(crate) projection: Arc<P>,
    pub(crate) db: Database,
    /// The service's own connection: what is asked here does not wait behind the events.
    pub(crate) bus: Bus,
    pub(crate) health: Health,
    pub(crate) config: Config,
    pub(crate) barrier: ApplyBarrier,
    pub(crate) as_of: watch::Sender<AsOf>,
    pub(crate) sources: Sources,
    pub(crate) is_complete: watch::Sender<bool>,
    /// Whether a rebuild makes its tables equal to a new fold.
    pub(crate) is_taken_over: AtomicBool,
    /// The sources whose streams were read to the end since this runner was loaded.
    pub(crate) drained: Mutex<BTreeSet<&'static str>>,
}

impl<P: Projection> Shared<P> {
    /// Notes that the stream of `source` was read to its end.
    pub(crate) async fn note_at_end(&self, source: &'static str) -> anyhow::Result<()> {
        if *self.is_complete.borrow() {
            return Ok(());
        }
        let are_all = {
            let mut drained = self.drained.lock().unwrap_or_else(PoisonError::into_inner);
            drained.insert(source);
            drained.len() == P::SOURCES.len()
        };
        if are_all {
            let noted = self.db.write(|tx| checkpoint::note_complete(tx, P::NAME));
            noted
                .await
                .map_err(WriteError::flat)
                .context("note that the tables are whole")?;
            self.is_complete.send_replace(true);
            tracing::info!(projection = P::NAME, "the tables are whole");
        }
        Ok(())
    }
}
