//! The state of the system, sampled every few seconds, and the lag of the last hour.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use client::Nats;
use futures_util::future::join_all;
use headwater::Clock;
use headwater::operator::{BackupRequest, BackupStatus, Endpoint, RebuildRequest, RebuildStatus};
use survey::{Finding, Plan, Survey, troubles};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// How long lag is kept.
pub(crate) const KEPT: Duration = Duration::from_hours(1);

/// A projection and one of its sources.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Line {
    pub(crate) service: String,
    pub(crate) projection: String,
    pub(crate) source: String,
}

/// A lag: when it was seen, in milliseconds since 1970, and the number of events, if known.
pub(crate) type Point = (i64, Option<u64>);

/// The system at one moment.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) survey: Survey,
    /// What is wrong, and what to do, as `headwater doctor` says it.
    pub(crate) troubles: Vec<Finding>,
    pub(crate) rebuilds: Vec<Rebuild>,
    /// By service: the backup that it makes of its database, or how the last one ended.
    pub(crate) backups: BTreeMap<String, BackupStatus>,
}

/// A rebuild or a verification that runs, or how the last one ended.
#[derive(Debug)]
pub(crate) struct Rebuild {
    pub(crate) service: String,
    pub(crate) projection: String,
    pub(crate) status: RebuildStatus,
}

#[derive(Debug, Default)]
struct Seen {
    taken: Option<Arc<Taken>>,
    /// Why the last attempt failed, and when.
    failure: Option<(i64, String)>,
    lines: BTreeMap<Line, VecDeque<Point>>,
}

/// The newest sample, and the lag of the last hour.
#[derive(Debug)]
pub(crate) struct Samples {
    seen: RwLock<Seen>,
    count: watch::Sender<u64>,
}

impl Samples {
    pub(crate) fn new() -> Self {
        Self {
            seen: RwLock::default(),
            count: watch::Sender::new(0),
        }
    }

    /// Changes with each sample.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.count.subscribe()
    }

    /// The newest sample; `None` until there is one.
    pub(crate) fn newest(&self) -> Option<Arc<Taken>> {
        self.seen.read().expect("no writer panics").taken.clone()
    }

    /// Why and when the last attempt failed; `None` if it succeeded.
    pub(crate) fn failure(&self) -> Option<(i64, String)> {
        self.seen.read().expect("no writer panics").failure.clone()
    }

    /// The lag of the last hour, the oldest first.
    pub(crate) fn line(&self, line: &Line) -> Vec<Point> {
        let seen = self.seen.read().expect("no writer panics");
        let points = seen.lines.get(line).into_iter().flatten();
        points.copied().collect()
    }

    /// Samples until `stop`.
    pub(crate) async fn run(
        &self,
        nats: &Nats,
        plan: &Plan,
        (every, max_lag): (Duration, Duration),
        stop: &CancellationToken,
    ) {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let taken = tokio::select! {
                () = stop.cancelled() => return,
                taken = take(nats, plan, max_lag) => taken,
            };
            self.note(taken, Clock::system().now_ms());
        }
    }

    fn note(&self, taken: anyhow::Result<Taken>, now_ms: i64) {
        let mut seen = self.seen.write().expect("no writer panics");
        match taken {
            Ok(taken) => {
                seen.add(&taken.survey);
                seen.taken = Some(Arc::new(taken));
                seen.failure = None;
            }
            Err(error) => seen.failure = Some((now_ms, headwater::causes(error.as_ref()))),
        }
        drop(seen);
        self.count.send_modify(|count| *count += 1);
    }
}

impl Seen {
    fn add(&mut self, survey: &Survey) {
        let at = survey.at_ms;
        for projection in &survey.projections {
            for (source, lag) in &projection.sources {
                let line = Line {
                    service: projection.service.clone(),
                    projection: projection.name.clone(),
                    source: source.clone(),
                };
                let points = self.lines.entry(line).or_default();
                points.push_back((at, lag.waiting.events));
            }
        }
        self.forget(at);
    }

    /// Forgets what is older than an hour.
    fn forget(&mut self, now_ms: i64) {
        let kept_ms = i64::try_from(KEPT.as_millis()).unwrap_or(i64::MAX);
        for points in self.lines.values_mut() {
            while points.front().is_some_and(|(at, _)| *at < now_ms - kept_ms) {
                points.pop_front();
            }
        }
        self.lines.retain(|_, points| !points.is_empty());
    }
}

async fn take(nats: &Nats, plan: &Plan, max_lag: Duration) -> anyhow::Result<Taken> {
    let survey = Survey::take(nats, plan).await?;
    let can = survey.projections.iter().filter(|it| it.can_rebuild);
    let asked = can.map(async |projection| {
        let request = RebuildRequest {
            projection: Some(projection.name.clone()),
            is_partial: false,
        };
        // A service that does not answer is among the troubles.
        let asked = nats.ask(&projection.service, Endpoint::Fold, &request);
        Some(Rebuild {
            service: projection.service.clone(),
            projection: projection.name.clone(),
            status: asked.await.ok()?,
        })
    });
    let services = survey.topology.services.iter();
    let own = services.filter(|(_, status)| status.can_back_up);
    let backups = own.map(async |(service, _)| {
        let asked = nats.ask(service, Endpoint::BackupStatus, &BackupRequest {});
        Some((service.clone(), asked.await.ok()?))
    });
    let (rebuilds, backups) = tokio::join!(join_all(asked), join_all(backups));
    Ok(Taken {
        troubles: troubles(&survey, max_lag),
        rebuilds: rebuilds.into_iter().flatten().collect(),
        backups: backups.into_iter().flatten().collect(),
        survey,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_kept_for_an_hour() {
        let line = Line {
            service: "house".to_owned(),
            projection: "readings".to_owned(),
            source: "sensors".to_owned(),
        };
        let mut seen = Seen::default();
        let hour_ms = 3_600_000;
        let points = [(0, Some(1)), (1, None), (hour_ms, Some(3))];
        seen.lines.insert(line.clone(), points.into());
        seen.forget(hour_ms + 1);
        assert_eq!(seen.lines[&line], [(1, None), (hour_ms, Some(3))]);
        seen.forget(3 * hour_ms);
        assert!(seen.lines.is_empty(), "a projection that is gone");
    }

    #[test]
    fn a_failure_is_kept_until_a_sample_succeeds() {
        let samples = Samples::new();
        let mut changes = samples.changes();
        samples.note(Err(anyhow::anyhow!("the broker is away")), 7);
        assert_eq!(
            samples.failure(),
            Some((7, "the broker is away".to_owned()))
        );
        assert!(changes.has_changed().expect("it lives") && samples.newest().is_none());
        changes.mark_unchanged();
    }
}
