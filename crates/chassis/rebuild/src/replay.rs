//! Applies one event to a copy of the projection's past, and reports the rows that it changes.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use headwater_nats::control::{RebuildState, ReplayRequest};
use headwater_projection::barrier::BarrierGuard;
use headwater_projection::projection::Projection;
use headwater_projection::runner::RunnerHandle;
use headwater_store::connection::Inspection;

use crate::align::{self, Sequences};
use crate::attempt::{Attempt, LOOK_PAUSE, ensure_moving};
use crate::compare::Stores;
use crate::thread::on_thread;

impl<P: Projection> Attempt<P> {
    /// Lets `copy`, which is empty and stopped by `bound`, read the streams up to `event`, and then
    /// `event` alone.
    pub(crate) async fn replay(
        &self,
        copy: &RunnerHandle<P>,
        bound: &BarrierGuard,
        event: &ReplayRequest,
    ) -> anyhow::Result<()> {
        let mut places = self.before(event).await?;
        self.read_up_to(copy, bound, &places).await?;
        self.note_state(RebuildState::Comparing);
        let path = copy.db().path();
        let look = move || Inspection::open(&path);
        let before = on_thread("replay", look).await.context("open the copy")?;
        places.insert(event.source.clone(), event.sequence);
        self.read_up_to(copy, bound, &places).await?;
        let path = copy.db().path();
        let compare = move || Stores::since(before, &path)?.changes(P::NAME, P::TABLES);
        let changed = on_thread("replay", compare).await?;
        self.status
            .send_modify(|status| status.differences = Some(changed));
        Ok(())
    }

    /// The last sequence of each source that is read before `event`.
    async fn before(&self, event: &ReplayRequest) -> anyhow::Result<BTreeMap<String, u64>> {
        let source = &event.source;
        let projection = P::NAME;
        ensure!(
            P::SOURCES.contains(&&**source),
            "{projection} does not read {source}; its sources are {}",
            P::SOURCES.join(", ")
        );
        let mut before = align::sequences(&align::places_of(&self.live).await?);
        before.insert(source.clone(), event.sequence.saturating_sub(1));
        let is_read = |(source, _): &(&String, &u64)| P::SOURCES.contains(&&***source);
        let given = event.before.iter().filter(is_read);
        before.extend(given.map(|(source, at)| (source.clone(), *at)));
        ensure!(
            before[source] < event.sequence,
            "the copy cannot have read {source} up to sequence {} before sequence {}",
            before[source],
            event.sequence
        );
        Ok(before)
    }

    /// Waits until `copy` has read the streams up to exactly these sequences.
    async fn read_up_to(
        &self,
        copy: &RunnerHandle<P>,
        bound: &BarrierGuard,
        sequences: &BTreeMap<String, u64>,
    ) -> anyhow::Result<()> {
        bound.let_up_to(sequences);
        let mut moved = (Sequences::new(), Instant::now());
        loop {
            let at = align::places_of(copy).await?;
            let is_there = |(source, sequence): (&String, &u64)| {
                at.get(source).map_or(0, |(_, at)| *at) >= *sequence
            };
            if sequences.iter().all(is_there) {
                return Ok(());
            }
            if moved.0 != at {
                moved = (at, Instant::now());
            }
            ensure_moving(&copy.waiting(), moved.1.elapsed())
                .context("is there an event at each of these sequences?")?;
            self.note_progress(copy);
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }
}
