//! Holds due timers until the effect has read all that its sources had recorded when they were due.
//!
//! Such an event may be what stops a timer. It may still be in its source's outbox, or in a stream
//! that this process has not read: only the source knows. So each source is asked after the timer
//! is due, and the timer waits until the effect has read up to the position that it names.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::bail;
use headwater_nats::Bus;
use headwater_nats::control::EventsAnswer;
use headwater_store::Database;
use headwater_telemetry::causes;
use tokio::sync::Notify;

use crate::ask::ask;
use crate::ledger;

/// The pause after timers were let go, and after each look at how far the effect has read.
const PAUSE: Duration = Duration::from_millis(50);

/// The pause after a failure. A source that has not been read up to its position for this long is
/// asked again whether it still has the same epoch.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The timers of an effect that are due and held.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    due: Notify,
    freed: Notify,
    why_held: Mutex<Option<String>>,
}

impl Timers {
    /// Records that timers are due.
    pub(crate) fn note_due(&self) {
        self.due.notify_one();
    }

    /// Waits until timers may be performed.
    pub(crate) async fn freed(&self) {
        self.freed.notified().await;
    }

    /// Why due timers are held, unless only for a moment.
    pub(crate) fn why_held(&self) -> Option<String> {
        let why = self.why_held.lock();
        why.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn hold(&self, why: Option<String>) {
        *self.why_held.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// Lets the due timers of the effect `name` go when they may. Never ends.
    pub(crate) async fn free_all(
        &self,
        (db, bus): (&Database, &Bus),
        name: &'static str,
        sources: &[&'static str],
    ) {
        loop {
            self.due.notified().await;
            let at = db.clock().now_ms();
            let freed = async {
                for source in sources {
                    self.read_up_to_now(db, bus, (name, source)).await?;
                }
                let free = db.write(move |tx| ledger::free_timers(tx, name, at)).await;
                anyhow::Ok(free.map(drop)?)
            };
            match freed.await {
                Ok(()) => {
                    self.hold(None);
                    self.freed.notify_one();
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => {
                    self.hold(Some(causes(error.as_ref())));
                    tokio::time::sleep(ASK_AGAIN).await;
                }
            }
        }
    }

    /// Waits until the effect `name` has read what `source` has recorded by now.
    async fn read_up_to_now(
        &self,
        db: &Database,
        bus: &Bus,
        (name, source): (&'static str, &'static str),
    ) -> anyhow::Result<()> {
        let EventsAnswer { epoch, head, .. } = ask(bus, source, None).await?;
        let mut asked = Instant::now();
        loop {
            let of = epoch.clone();
            let read = db.read(move |snapshot| ledger::position(snapshot, name, source, &of));
            let position = read.await?;
            if position >= head {
                return Ok(());
            }
            if asked.elapsed() >= ASK_AGAIN {
                self.hold(Some(format!(
                    "the events of {source} up to {head} are not read yet, only up to {position}"
                )));
                if ask(bus, source, None).await?.epoch != epoch {
                    bail!("{source} has another epoch now");
                }
                asked = Instant::now();
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
