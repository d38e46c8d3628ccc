//! Applies one event to a copy of the projection's past, and reports the rows that it changes.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use headwater_event::EventId;
use headwater_nats::control::{RebuildState, ReplayRequest};
use headwater_projection::barrier::BarrierGuard;
use headwater_projection::projection::Projection;
use headwater_projection::runner::RunnerHandle;
use headwater_store::connection::Inspection;

use crate::align::{self, Sequences};
use crate::attempt::{Attempt, LOOK_PAUSE, ensure_moving};
use crate::compare::{Passed, Stores};
use crate::thread::on_thread;

/// Fails unless the event `id`, and it alone, lies between `before` and `after`.
fn expect_alone([before, after]: &Passed, id: &str) -> anyhow::Result<()> {
    let id: EventId = id.parse().context("read the id of the event")?;
    let (epoch, position) = (&*id.epoch, id.position);
    // The first event of an epoch follows those of the former one that the epoch begins with.
    let known = before.get(epoch).or(before.values().max());
    let missing = (position - 1).saturating_sub(known.copied().unwrap_or(0));
    ensure!(
        after.get(epoch) == Some(&position) && before.get(epoch) < Some(&position),
        "{id} was not applied there: the copy had read it at an earlier sequence, or its source \
         does not have its epoch"
    );
    ensure!(
        missing == 0,
        "{missing} events before {id} are missing from the stream, and would be shown as its \
         changes: `headwater stream restore {}` refills it",
        id.source
    );
    Ok(())
}

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
        let (id, source) = (event.id.clone(), event.source.clone());
        let compare = move || {
            let stores = Stores::since(before, &path)?;
            if let Some(id) = id {
                expect_alone(&stores.passed(P::NAME, &source)?, &id)?;
            }
            anyhow::Ok(stores.changes(P::NAME, P::TABLES)?)
        };
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
        if let Some(unknown) = event.before.keys().find(|it| !P::SOURCES.contains(&&***it)) {
            bail!("{projection} does not read {unknown}");
        }
        before.extend(event.before.clone());
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

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(before: &[(&str, u64)], after: &[(&str, u64)]) -> Passed {
        let map = |positions: &[(&str, u64)]| {
            let each = positions.iter();
            each.map(|(epoch, at)| ((*epoch).to_owned(), *at)).collect()
        };
        [map(before), map(after)]
    }

    #[test]
    fn an_event_is_shown_alone_or_not_at_all() {
        let why = |before: &[(&str, u64)], after: &[(&str, u64)], id: &str| {
            let found = expect_alone(&passed(before, after), id);
            found
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default()
        };
        assert_eq!(why(&[("a", 6)], &[("a", 7)], "s.a.7"), "");
        assert_eq!(why(&[], &[("a", 1)], "s.a.1"), "");
        let restored = [("a", 6), ("b", 7)];
        assert_eq!(why(&[("a", 6)], &restored, "s.b.7"), "");
        let gap = why(&[("a", 4)], &[("a", 7)], "s.a.7");
        assert!(gap.contains("2 events before s.a.7 are missing"), "{gap}");
        let trimmed = why(&[], &[("a", 7)], "s.a.7");
        assert!(trimmed.contains("6 events before"), "{trimmed}");
        let again = why(&[("a", 7)], &[("a", 7)], "s.a.7");
        assert!(again.contains("at an earlier sequence"), "{again}");
        let foreign = why(&[("a", 6)], &[("a", 6)], "s.x.7");
        assert!(foreign.contains("does not have its epoch"), "{foreign}");
    }
}
