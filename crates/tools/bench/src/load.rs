//! Loads: concurrent clients for some time, and the time of each request.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::task::JoinSet;

/// The result of a load.
#[derive(Clone, Debug, Default)]
pub(crate) struct Load {
    pub(crate) per_second: f64,
    /// The times of the requests, in ascending order.
    pub(crate) took: Vec<Duration>,
}

impl Load {
    /// A load from the times of its requests and the elapsed time.
    pub(crate) fn new(mut took: Vec<Duration>, elapsed: Duration) -> anyhow::Result<Self> {
        ensure!(!took.is_empty(), "nothing was measured");
        took.sort_unstable();
        Ok(Self {
            per_second: count(took.len()) / elapsed.as_secs_f64(),
            took,
        })
    }

    /// All rounds of a load as one: the median of their rates, the percentiles of all requests.
    pub(crate) fn of_all(rounds: &[Self]) -> Self {
        let mut rates: Vec<_> = rounds.iter().map(|load| load.per_second).collect();
        rates.sort_by(f64::total_cmp);
        let mut took: Vec<_> = rounds.iter().flat_map(|load| &load.took).copied().collect();
        took.sort_unstable();
        Self {
            per_second: rates.get(rates.len() / 2).copied().unwrap_or(f64::NAN),
            took,
        }
    }

    /// The rate, and the percentiles p50, p99 and p99.9 in milliseconds.
    pub(crate) fn cells(&self) -> [f64; 4] {
        [self.per_second, self.ms(50.0), self.ms(99.0), self.ms(99.9)]
    }

    /// The percentile `percent` of the request times, in milliseconds.
    pub(crate) fn ms(&self, percent: f64) -> f64 {
        percentile(&self.took, percent).as_secs_f64() * 1000.0
    }
}

/// The nearest rank of `percent` in `sorted`, which must be in ascending order.
pub(crate) fn percentile(sorted: &[Duration], percent: f64) -> Duration {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a length is one itself"
    )]
    let rank = (count(sorted.len()) * percent / 100.0).ceil() as usize;
    let index = rank.clamp(1, sorted.len().max(1)) - 1;
    sorted.get(index).copied().unwrap_or_default()
}

/// A count as a floating-point number.
#[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 of anything")]
pub(crate) fn count(count: usize) -> f64 {
    count as f64
}

/// Runs all `clients` concurrently; returns their results.
pub(crate) async fn together<T: Send + 'static>(
    clients: impl Iterator<Item: Future<Output = anyhow::Result<T>> + Send + 'static>,
) -> anyhow::Result<Vec<T>> {
    let mut tasks: JoinSet<_> = clients.collect();
    let mut all = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        all.push(ended.context("run a client")??);
    }
    Ok(all)
}

/// When the requests of the client number `client` are due, if `clients` together send `per_second`
/// for `time`.
pub(crate) fn dues(
    client: usize,
    clients: usize,
    per_second: u32,
    time: Duration,
) -> impl Iterator<Item = Duration> + Send {
    let turns = (0_u32..).skip(client).step_by(clients);
    let dues = turns.map(move |turn| Duration::from_secs(turn.into()) / per_second);
    dues.take_while(move |due| *due < time)
}

/// Closed loop: each of `clients` sends one request after the other for `time`. `request` takes the
/// client and returns it.
pub(crate) async fn closed<C, F, T>(
    clients: Vec<C>,
    time: Duration,
    request: F,
) -> anyhow::Result<Load>
where
    C: Send + 'static,
    F: Fn(C) -> T + Clone + Send + 'static,
    T: Future<Output = anyhow::Result<C>> + Send,
{
    let started = Instant::now();
    let clients = clients.into_iter().map(|mut client| {
        let request = request.clone();
        async move {
            let mut took = Vec::new();
            while started.elapsed() < time {
                let sent = Instant::now();
                client = request(client).await?;
                took.push(sent.elapsed());
            }
            Ok(took)
        }
    });
    let took = together(clients).await?;
    Load::new(took.concat(), started.elapsed())
}

/// Open loop: `clients` together send `per_second` requests per second for `time`, on a fixed
/// schedule. A request's time counts from when it is sent; if the previous answer came too late,
/// from when it should have been sent.
pub(crate) async fn paced<C, F, T>(
    clients: Vec<C>,
    per_second: u32,
    time: Duration,
    request: F,
) -> anyhow::Result<Load>
where
    C: Send + 'static,
    F: Fn(C) -> T + Clone + Send + 'static,
    T: Future<Output = anyhow::Result<C>> + Send,
{
    let (started, all) = (Instant::now(), clients.len());
    let clients = clients.into_iter().enumerate();
    let clients = clients.map(|(number, mut client)| {
        let request = request.clone();
        async move {
            let mut took = Vec::new();
            for due in dues(number, all, per_second, time) {
                let due = started + due;
                let is_early = Instant::now() < due;
                // A timer may fire up to a millisecond late, which is not the service's fault.
                tokio::time::sleep_until(due.into()).await;
                let from = if is_early { Instant::now() } else { due };
                client = request(client).await?;
                took.push(from.elapsed());
            }
            Ok(took)
        }
    });
    let took = together(clients).await?;
    Load::new(took.concat(), started.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(values: impl IntoIterator<Item = u64>) -> Vec<Duration> {
        values.into_iter().map(Duration::from_millis).collect()
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let hundred = ms(1..=100);
        for (percent, expected) in [(0.0, 1), (50.0, 50), (99.0, 99), (99.9, 100), (100.0, 100)] {
            let found = percentile(&hundred, percent);
            assert_eq!(found, Duration::from_millis(expected), "p{percent}");
        }
        assert_eq!(percentile(&ms([7]), 50.0), Duration::from_millis(7));
        assert_eq!(percentile(&ms([1, 2]), 50.0), Duration::from_millis(1));
        assert_eq!(percentile(&[], 50.0), Duration::ZERO);
    }

    #[test]
    fn rounds_together_have_the_percentiles_of_all_requests_and_the_median_rate() {
        let second = Duration::from_secs(1);
        let slow = Load::new(ms([9]), second).unwrap();
        let fast = Load::new(ms([2, 1, 3]), second).unwrap();
        let all = Load::of_all(&[slow.clone(), fast, slow]);
        assert_eq!(all.took, ms([1, 2, 3, 9, 9]));
        assert!((all.per_second - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_load_in_which_nothing_was_answered_is_an_error() {
        assert!(Load::new(Vec::new(), Duration::from_secs(1)).is_err());
    }
}
