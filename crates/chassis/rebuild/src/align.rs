//! Stops two stores of the same projection at the same sequences.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use headwater_projection::barrier::BarrierGuard;
use headwater_projection::checkpoint::places;
use headwater_projection::projection::Projection;
use headwater_projection::runner::RunnerHandle;

use crate::compare::Stores;
use crate::thread::on_thread;

/// How long the live store may be stopped for this.
const WITHIN: Duration = Duration::from_secs(5);

/// How often to check whether both are there.
const LOOK_PAUSE: Duration = Duration::from_millis(2);

/// Stops both stores at the same sequences of all streams until dropped.
#[derive(Debug)]
pub(super) struct Aligned {
    /// Guards of the live store, and of the new one unless it was bound already.
    _guards: (BarrierGuard, Option<BarrierGuard>),
    began: Instant,
}

impl Aligned {
    /// How long the live store has been stopped.
    pub(super) fn took(&self) -> Duration {
        self.began.elapsed()
    }
}

/// Stops both stores, then lets the one that is behind in a source catch up with the other.
/// `bound`: the guard that stops the new store already.
pub(super) async fn align<P: Projection>(
    live: &RunnerHandle<P>,
    rebuilt: &RunnerHandle<P>,
    bound: Option<&BarrierGuard>,
) -> anyhow::Result<Aligned> {
    let began = Instant::now();
    let live_guard = live.barrier().close().await;
    let rebuilt_guard = match bound {
        Some(bound) => {
            bound.stop().await;
            None
        }
        None => Some(rebuilt.barrier().close().await),
    };
    let target = target(&places_of(live).await?, &places_of(rebuilt).await?)?;
    live_guard.let_up_to(&target);
    if let Some(guard) = rebuilt_guard.as_ref().or(bound) {
        guard.let_up_to(&target);
    }
    while !(is_at(live, &target).await? && is_at(rebuilt, &target).await?) {
        ensure!(
            began.elapsed() < WITHIN,
            "the stores could not be aligned: {}",
            apart(live, rebuilt).await?
        );
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    Ok(Aligned {
        _guards: (live_guard, rebuilt_guard),
        began,
    })
}

/// Takes a snapshot of both stores.
pub(super) async fn stores<P: Projection>(
    live: &RunnerHandle<P>,
    rebuilt: &RunnerHandle<P>,
) -> anyhow::Result<Stores> {
    let (live, rebuilt) = (live.db().path(), rebuilt.db().path());
    let stores = on_thread("compare", move || Stores::open(&live, &rebuilt));
    stores.await.context("open both stores")
}

/// Where two stores are that could not be aligned, and what they wait for.
async fn apart<P: Projection>(
    live: &RunnerHandle<P>,
    rebuilt: &RunnerHandle<P>,
) -> anyhow::Result<String> {
    let (live_places, rebuilt_places) = (places_of(live).await?, places_of(rebuilt).await?);
    let mut apart = Vec::new();
    for (source, (_, live_at)) in &live_places {
        let rebuilt_at = rebuilt_places.get(source).map_or(0, |(_, at)| *at);
        if rebuilt_at != *live_at {
            apart.push(format!(
                "in the stream of {source} the live store is at sequence {live_at} and the new \
                 one at {rebuilt_at}"
            ));
        }
    }
    for (which, waiting) in [("live", live.waiting()), ("new", rebuilt.waiting())] {
        let waits = waiting.iter();
        apart.extend(
            waits.map(|(source, why)| format!("the {which} store waits in {source}: {why}")),
        );
    }
    Ok(apart.join("; "))
}

/// For each source: the stream that is read, and the sequence up to which.
pub(super) type Sequences = BTreeMap<String, (i64, u64)>;

/// The sequence of each source.
pub(super) fn sequences(places: &Sequences) -> BTreeMap<String, u64> {
    let each = places.iter();
    each.map(|(source, (_, sequence))| (source.clone(), *sequence))
        .collect()
}

/// For each source, the sequence of the store that is further.
fn target(live: &Sequences, rebuilt: &Sequences) -> anyhow::Result<BTreeMap<String, u64>> {
    let mut target = BTreeMap::new();
    for (source, (stream, sequence)) in live {
        match rebuilt.get(source) {
            Some((other, further)) if other == stream => {
                target.insert(source.clone(), *sequence.max(further));
            }
            _ => bail!("the stores read different streams of {source}"),
        }
    }
    Ok(target)
}

/// Whether a store at `rebuilt` has read everything that a store at `live` has read, of the same
/// streams.
pub(super) fn is_as_far(rebuilt: &Sequences, live: &Sequences) -> bool {
    live.iter().all(|(source, (stream, sequence))| {
        rebuilt
            .get(source)
            .is_some_and(|(other, further)| other == stream && further >= sequence)
    })
}

async fn is_at<P: Projection>(
    store: &RunnerHandle<P>,
    target: &BTreeMap<String, u64>,
) -> anyhow::Result<bool> {
    let places = places_of(store).await?;
    Ok(target
        .iter()
        .all(|(source, sequence)| places.get(source).is_some_and(|(_, at)| at == sequence)))
}

pub(super) async fn places_of<P: Projection>(store: &RunnerHandle<P>) -> anyhow::Result<Sequences> {
    let places = store.db().read(|snapshot| places::<P>(snapshot)).await;
    places.context("read a checkpoint")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(sequences: &[(&str, i64, u64)]) -> Sequences {
        let place =
            |(source, stream, at): &(&str, i64, u64)| ((*source).to_owned(), (*stream, *at));
        sequences.iter().map(place).collect()
    }

    #[test]
    fn the_further_one_is_the_target_in_each_source() {
        let live = places(&[("a", 1, 5), ("b", 1, 9)]);
        let rebuilt = places(&[("a", 1, 7), ("b", 1, 3)]);
        let target = target(&live, &rebuilt).unwrap();
        assert_eq!(
            target,
            BTreeMap::from([("a".to_owned(), 7), ("b".to_owned(), 9)])
        );
    }

    #[test]
    fn as_far_is_as_far_in_every_source_of_the_same_stream() {
        let live = places(&[("a", 1, 5), ("b", 1, 9)]);
        assert!(is_as_far(&live, &live));
        assert!(is_as_far(&places(&[("a", 1, 6), ("b", 1, 9)]), &live));
        assert!(!is_as_far(&places(&[("a", 1, 6), ("b", 1, 8)]), &live));
        assert!(!is_as_far(&places(&[("a", 2, 600), ("b", 1, 9)]), &live));
        assert!(!is_as_far(&places(&[("a", 1, 6)]), &live));
    }

    #[test]
    fn sequences_of_other_streams_say_nothing() {
        assert!(target(&places(&[("a", 1, 5)]), &places(&[("a", 2, 5)])).is_err());
        assert!(target(&places(&[("a", 1, 5)]), &places(&[])).is_err());
    }
}
