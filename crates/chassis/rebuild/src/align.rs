//! Bringing two folds of the same events to the same place.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use headwater_projection::barrier::BarrierGuard;
use headwater_projection::checkpoint::places;
use headwater_projection::projection::Projection;
use headwater_projection::runner::RunnerHandle;

use crate::compare::Stores;
use crate::thread::on_thread;

/// How long the live store may stand still for it.
const WITHIN: Duration = Duration::from_secs(5);

/// How often it is looked whether they are there.
const LOOK_PAUSE: Duration = Duration::from_millis(2);

/// Both at one place in all streams, held there until this is dropped.
#[derive(Debug)]
pub(super) struct Aligned {
    /// The live one, and the new one where it was not bound already.
    _held: (BarrierGuard, Option<BarrierGuard>),
    began: Instant,
}

impl Aligned {
    /// For how long the live one has been held.
    pub(super) fn took(&self) -> Duration {
        self.began.elapsed()
    }
}

/// Holds both where they are, and lets the one that is behind in a source catch up with the other.
/// `bound`: what holds the new one already.
pub(super) async fn align<P: Projection>(
    live: &RunnerHandle<P>,
    fold: &RunnerHandle<P>,
    bound: Option<&BarrierGuard>,
) -> anyhow::Result<Aligned> {
    let began = Instant::now();
    let live_held = live.barrier().close().await;
    let fold_held = match bound {
        Some(bound) => {
            bound.stop().await;
            None
        }
        None => Some(fold.barrier().close().await),
    };
    let target = target(&places_of(live).await?, &places_of(fold).await?)?;
    live_held.let_up_to(&target);
    if let Some(held) = fold_held.as_ref().or(bound) {
        held.let_up_to(&target);
    }
    while !(is_at(live, &target).await? && is_at(fold, &target).await?) {
        ensure!(
            began.elapsed() < WITHIN,
            "they do not get to the same place: {}",
            apart(live, fold).await?
        );
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    Ok(Aligned {
        _held: (live_held, fold_held),
        began,
    })
}

/// Begins to see both as they are now.
pub(super) async fn stores<P: Projection>(
    live: &RunnerHandle<P>,
    fold: &RunnerHandle<P>,
) -> anyhow::Result<Stores> {
    let (live, fold) = (live.db().path(), fold.db().path());
    let stores = on_thread("compare", move || Stores::open(&live, &fold));
    stores.await.context("open both stores")
}

/// Where two that do not get to one place are, and what they wait for.
async fn apart<P: Projection>(
    live: &RunnerHandle<P>,
    fold: &RunnerHandle<P>,
) -> anyhow::Result<String> {
    let (live_places, fold_places) = (places_of(live).await?, places_of(fold).await?);
    let mut apart = Vec::new();
    for (source, (_, live_at)) in &live_places {
        let fold_at = fold_places.get(source).map_or(0, |(_, at)| *at);
        if fold_at != *live_at {
            apart.push(format!(
                "in the stream of {source} the live one is at sequence {live_at} and the new one \
                 at {fold_at}"
            ));
        }
    }
    for (who, waiting) in [("live", live.waiting()), ("new", fold.waiting())] {
        let waits = waiting.iter();
        apart.extend(waits.map(|(source, why)| format!("the {who} one waits in {source}: {why}")));
    }
    Ok(apart.join("; "))
}

/// In each source which stream is read, and up to which sequence.
pub(super) type Sequences = BTreeMap<String, (i64, u64)>;

/// The sequence in each source.
pub(super) fn sequences(places: &Sequences) -> BTreeMap<String, u64> {
    let each = places.iter();
    each.map(|(source, (_, sequence))| (source.clone(), *sequence))
        .collect()
}

/// In each source the sequence of the one that is further.
fn target(live: &Sequences, fold: &Sequences) -> anyhow::Result<BTreeMap<String, u64>> {
    let mut target = BTreeMap::new();
    for (source, (stream, sequence)) in live {
        match fold.get(source) {
            Some((other, further)) if other == stream => {
                target.insert(source.clone(), *sequence.max(further));
            }
            _ => bail!("they read other streams of {source}"),
        }
    }
    Ok(target)
}

/// Whether a store at `fold` has read all that one at `live` has, of the same streams.
pub(super) fn is_as_far(fold: &Sequences, live: &Sequences) -> bool {
    live.iter().all(|(source, (stream, sequence))| {
        fold.get(source)
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
        let fold = places(&[("a", 1, 7), ("b", 1, 3)]);
        let target = target(&live, &fold).unwrap();
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
