//! State that the readers of a projection share.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use headwater_event::AsOf;
use headwater_nats::Bus;
use headwater_store::Database;
use headwater_telemetry::Health;
use tokio::sync::watch;

use crate::barrier::ApplyBarrier;
use crate::checkpoint;
use crate::config::Config;
use crate::projection::Projection;
use crate::source::Sources;
use headwater_store::follow::Followers;

#[derive(Debug)]
pub(crate) struct Shared<P> {
    pub(crate) projection: Arc<P>,
    pub(crate) db: Database,
    /// The service's own connection: requests on it do not wait behind events.
    pub(crate) bus: Bus,
    pub(crate) health: Health,
    pub(crate) config: Config,
    pub(crate) barrier: ApplyBarrier,
    pub(crate) as_of: watch::Sender<AsOf>,
    pub(crate) followers: Followers,
    pub(crate) sources: Sources,
    pub(crate) is_complete: watch::Sender<bool>,
    /// Whether a rebuild is changing the tables to equal the new store.
    pub(crate) is_taken_over: AtomicBool,
    /// The sources whose streams were read to the end since this runner was loaded.
    pub(crate) read_to_end: Mutex<BTreeSet<&'static str>>,
}

impl<P: Projection> Shared<P> {
    /// Records that the stream of `source` was read to its end.
    pub(crate) async fn note_at_end(&self, source: &'static str) -> anyhow::Result<()> {
        if *self.is_complete.borrow() {
            return Ok(());
        }
        let are_all = {
            let mut read_to_end = self
                .read_to_end
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            read_to_end.insert(source);
            read_to_end.len() == P::SOURCES.len()
        };
        if are_all {
            let noted = self.db.write(|tx| checkpoint::note_complete(tx, P::NAME));
            noted.await.context("record that the tables are complete")?;
            self.is_complete.send_replace(true);
            tracing::info!(
                projection = P::NAME,
                "the tables are complete: all sources were read to the end"
            );
        }
        Ok(())
    }
}
