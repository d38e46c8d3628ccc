//! Courses: in which order and in which batches events reach a projection, and what happens
//! meanwhile.

use fastrand::Rng;

/// One thing that happens to a projection. Positions begin at 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// The next events of a source come as one batch.
    Apply { source: usize, events: usize },
    /// The same, but the transaction is rolled back.
    RollBack { source: usize, events: usize },
    /// An applied event is in the stream once again, later.
    Duplicate { source: usize, position: usize },
    /// The stream is read again from an applied event on; from 1: it was recreated.
    Replay { source: usize, position: usize },
    /// The process starts again.
    Restart,
    /// The service's background work runs.
    Settle,
}

/// For each step, the source whose next event comes.
pub(super) type Order = Vec<usize>;

/// One source after another.
pub(super) fn in_turn(lengths: &[usize]) -> Order {
    let each = lengths.iter().enumerate();
    each.flat_map(|(source, events)| std::iter::repeat_n(source, *events))
        .collect()
}

/// Each source wholly ahead of the others and wholly behind them, and these in turn.
pub(super) fn one_apart(lengths: &[usize]) -> impl Iterator<Item = Order> {
    let order = in_turn(lengths);
    (0..lengths.len()).flat_map(move |apart| {
        let (own, others): (Order, Order) = order.iter().partition(|it| **it == apart);
        [[&own[..], &others].concat(), [&others[..], &own].concat()]
    })
}

/// All interleavings, if there are at most `max`.
pub(super) fn all(lengths: &[usize], max: usize) -> Option<Vec<Order>> {
    fn extend(rest: &mut [usize], order: &mut Order, all: &mut Vec<Order>, max: usize) {
        if all.len() > max {
            return;
        }
        if rest.iter().all(|events| *events == 0) {
            all.push(order.clone());
        }
        for source in 0..rest.len() {
            if rest[source] > 0 {
                rest[source] -= 1;
                order.push(source);
                extend(rest, order, all, max);
                order.pop();
                rest[source] += 1;
            }
        }
    }
    let mut all = Vec::new();
    extend(&mut lengths.to_vec(), &mut Vec::new(), &mut all, max);
    (all.len() <= max).then_some(all)
}

/// A random interleaving; each is as likely as any other.
pub(super) fn random(lengths: &[usize], random: &mut Rng) -> Order {
    let mut order = in_turn(lengths);
    random.shuffle(&mut order);
    order
}

/// What `from` is on the way to `to` after that many swaps of two neighbours, at most all.
pub(super) fn towards(from: &Order, to: &Order, swaps: usize) -> Order {
    let (mut now, mut rest) = (from.clone(), swaps);
    for (place, source) in to.iter().enumerate() {
        let ahead = now[place..].iter().position(|it| it == source);
        for at in (place..place + ahead.expect("the same events")).rev() {
            if rest == 0 {
                return now;
            }
            now.swap(at, at + 1);
            rest -= 1;
        }
    }
    now
}

/// Each event on its own, and no fault.
pub(super) fn plain(order: &Order) -> Vec<Step> {
    let apply = |source: &usize| Step::Apply {
        source: *source,
        events: 1,
    };
    order.iter().map(apply).collect()
}

/// Up to `max` plain courses of `order` with one fault: every fault at every place, or random ones.
pub(super) fn with_one_fault(order: &Order, max: usize, random: &mut Rng) -> Vec<Vec<Step>> {
    let plain = plain(order);
    let with = |(place, faults): (usize, Vec<Step>)| {
        let (before, after) = plain.split_at(place);
        [before, &faults, after].concat()
    };
    let chosen = random.choose_multiple(single_faults(order), max);
    chosen.into_iter().map(with).collect()
}

/// Every fault at every place of `order`; as many as its length, squared.
fn single_faults(order: &Order) -> impl Iterator<Item = (usize, Vec<Step>)> {
    let mut applied = vec![0; order.iter().max().map_or(0, |last| last + 1)];
    order.iter().enumerate().flat_map(move |(place, source)| {
        let source = *source;
        let roll_back = Step::RollBack { source, events: 1 };
        let mut faults = vec![
            (place, vec![roll_back.clone()]),
            (place, vec![roll_back, Step::Restart]),
            (place + 1, vec![Step::Restart]),
        ];
        applied[source] += 1;
        for (source, applied) in applied.iter().enumerate() {
            for position in 1..=*applied {
                faults.push((place + 1, vec![Step::Duplicate { source, position }]));
                faults.push((place + 1, vec![Step::Replay { source, position }]));
            }
        }
        faults
    })
}

/// `order` in batches as large as it allows, except that a new one begins at `cut`; no fault.
pub(super) fn cut_at(order: &Order, cut: usize) -> Vec<Step> {
    let (before, after) = order.split_at(cut);
    let batches = |order: &[usize]| -> Vec<Step> {
        let batch = |run: &[usize]| Step::Apply {
            source: run[0],
            events: run.len(),
        };
        order.chunk_by(|one, next| one == next).map(batch).collect()
    };
    [batches(before), batches(after)].concat()
}

/// `order` in random batches, with many faults.
pub(super) fn rough(order: &Order, random: &mut Rng) -> Vec<Step> {
    let (mut steps, mut rest) = (Vec::new(), &order[..]);
    let mut applied = vec![0; order.iter().max().map_or(0, |last| last + 1)];
    while let Some(source) = rest.first().copied() {
        let run = rest.iter().take_while(|it| **it == source).count();
        if random.u8(..4) == 0 {
            let events = random.usize(1..=run);
            steps.push(Step::RollBack { source, events });
        }
        if random.u8(..4) == 0 {
            steps.push(Step::Restart);
        }
        let events = random.usize(1..=run);
        steps.push(Step::Apply { source, events });
        rest = &rest[events..];
        applied[source] += events;
        let again = random.usize(..applied.len());
        if applied[again] > 0 {
            let (source, position) = (again, random.usize(1..=applied[again]));
            match random.u8(..4) {
                0 => steps.push(Step::Duplicate { source, position }),
                1 => steps.push(Step::Replay { source, position }),
                _ => {}
            }
        }
        if random.u8(..4) == 0 {
            steps.push(Step::Settle);
        }
    }
    steps
}

/// The plain course of `order`, in which the process starts again before and after the commits of
/// up to `events_max` events; before the commit, the transaction is rolled back.
pub(super) fn with_restarts(order: &Order, events_max: usize) -> Vec<Step> {
    let every = order.len().div_ceil(events_max).max(1);
    let mut steps = Vec::new();
    for (place, source) in order.iter().enumerate() {
        let (source, events) = (*source, 1);
        let apply = Step::Apply { source, events };
        if place % every == 0 {
            let roll_back = Step::RollBack { source, events };
            steps.extend([roll_back, Step::Restart, apply, Step::Restart]);
        } else {
            steps.push(apply);
        }
    }
    steps
}

/// Simpler courses than `course`, one step away: without one of its faults, or with a batch split.
pub(super) fn simpler(course: Vec<Step>) -> impl Iterator<Item = Vec<Step>> {
    (0..course.len()).filter_map(move |at| {
        let instead = match course[at] {
            Step::Apply { events: 1, .. } => return None,
            Step::Apply { source, events } => vec![Step::Apply { source, events: 1 }; events],
            _ => Vec::new(),
        };
        Some([&course[..at], &instead, &course[at + 1..]].concat())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interleavings_keep_the_order_within_each_source() {
        let expected = [[0, 0, 1], [0, 1, 0], [1, 0, 0]].map(Vec::from);
        assert_eq!(all(&[2, 1], 3).unwrap(), expected);
        assert_eq!(all(&[2, 1], 2), None);
        assert_eq!(all(&[2, 2, 2], 100).unwrap().len(), 90);
    }

    #[test]
    fn each_swap_on_the_way_is_of_two_neighbours() {
        let at = |swaps| towards(&vec![0, 0, 1], &vec![1, 0, 0], swaps);
        let expected = [[0, 0, 1], [0, 1, 0], [1, 0, 0], [1, 0, 0]].map(Vec::from);
        assert_eq!([at(0), at(1), at(2), at(9)], expected);
    }

    #[test]
    fn each_source_is_ahead_and_behind() {
        let orders: Vec<_> = one_apart(&[1, 1, 1]).collect();
        for source in 0..3 {
            assert!(orders.iter().any(|order| order[0] == source));
            assert!(orders.iter().any(|order| order[2] == source));
        }
    }
}
