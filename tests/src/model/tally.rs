//! The result of a run, in numbers.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::fault::Step;
use super::shop::Book;
use crate::world::Service;

/// The situations that a run must meet to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Situation {
    /// The expected-last-sequence check refused a relay: another one had published.
    Rival,
    /// A relay found that its stream lacks events and published them again.
    Behind,
    /// A projection fetched missing events from an outbox.
    Gap,
    /// A projection skipped events that it had applied.
    Redelivery,
    /// A command took effect although its answer was lost.
    UnknownCommit,
    /// A rebuilt store replaced the live one.
    Swap,
}

impl Situation {
    pub const ALL: [Self; 6] = [
        Self::Rival,
        Self::Behind,
        Self::Gap,
        Self::Redelivery,
        Self::UnknownCommit,
        Self::Swap,
    ];
}

/// The recovery of a service after it was killed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Recovery {
    pub(super) service: Service,
    pub(super) round: u64,
    /// How many events had to be applied: those since the kill, or all if the store was lost.
    pub(super) waited: u64,
    pub(super) ready: Duration,
    /// For the read store, if there was no other fault.
    pub(super) caught_up: Option<Duration>,
}

/// The counts of a run.
#[derive(Debug, Default)]
pub struct Tally {
    pub rounds: u64,
    /// How many events the outboxes have.
    pub events: u64,
    steps: BTreeMap<String, u64>,
    crashes: BTreeMap<String, u64>,
    recoveries: Vec<Recovery>,
    pub(super) situations: BTreeMap<Situation, u64>,
    commands: BTreeMap<&'static str, u64>,
    retried: u64,
    /// How many answers of `purchases` were compared with the model, during the faults and after
    /// them.
    pub(super) reads: u64,
    pub(super) checks: u64,
}

impl Tally {
    pub(super) fn step(&mut self, step: &Step, taken: bool) {
        let text = format!("{step:?}");
        let name = text.split(['(', ',']).next().unwrap_or_default();
        let passed_over = if taken { "" } else { " (passed over)" };
        let name = format!("{name}{passed_over}");
        *self.steps.entry(name).or_default() += 1;
    }

    pub(super) fn crash(&mut self, point: &str) {
        let point = point.split(':').next().unwrap_or_default();
        *self.crashes.entry(point.to_owned()).or_default() += 1;
    }

    pub(super) fn recovered(&mut self, recovery: Recovery) {
        self.recoveries.push(recovery);
    }

    pub(super) fn meet(&mut self, situation: Situation, times: u64) {
        *self.situations.entry(situation).or_default() += times;
    }

    /// Adopts the counts of the clients.
    pub(super) fn take_book(&mut self, book: &Book) {
        self.commands.clone_from(&book.commands);
        self.retried = book.retried;
        self.situations
            .insert(Situation::UnknownCommit, book.unknown_commits);
        self.events = book.total();
    }

    /// The situations that the run has not met.
    pub fn missing(&self) -> Vec<Situation> {
        let met = |situation: &Situation| self.situations.get(situation).copied() > Some(0);
        Situation::ALL
            .into_iter()
            .filter(|situation| !met(situation))
            .collect()
    }

    /// The number of a service's starts, and the longest times until it was ready and caught up.
    fn slowest(&self, service: Service) -> String {
        let of = self.recoveries.iter().filter(|r| r.service == service);
        let mut parts = vec![format!("{} starts", of.clone().count())];
        if let Some(slowest) = of.clone().max_by_key(|r| r.ready) {
            let (ready, round) = (slowest.ready, slowest.round);
            parts.push(format!("ready in {ready:.2?} (round {round})"));
        }
        let caught_up = of.filter_map(|r| Some((r.caught_up?, r.waited, r.round)));
        if let Some((took, waited, round)) = caught_up.max() {
            let waited = format!("{waited} events waited, round {round}");
            parts.push(format!("caught up in {took:.2?} ({waited})"));
        }
        parts.join(", ")
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "rounds: {}", self.rounds)?;
        writeln!(f, "events: {}", self.events)?;
        writeln!(
            f,
            "commands: {}; {} tried again",
            counts(&self.commands),
            self.retried
        )?;
        writeln!(
            f,
            "reads compared: {} amid faults, {} after them",
            self.reads, self.checks
        )?;
        writeln!(f, "faults: {}", counts(&self.steps))?;
        writeln!(f, "crash points: {}", counts(&self.crashes))?;
        let situations = Situation::ALL.map(|situation| {
            let times = self.situations.get(&situation).copied().unwrap_or(0);
            (format!("{situation:?}"), times)
        });
        writeln!(f, "situations: {}", counts(&situations.into()))?;
        writeln!(f, "recovery after kill -9, the slowest:")?;
        for service in Service::ALL {
            writeln!(f, "  {}: {}", service.name(), self.slowest(service))?;
        }
        Ok(())
    }
}

fn counts<K: fmt::Display>(counts: &BTreeMap<K, u64>) -> String {
    let counts: Vec<_> = counts
        .iter()
        .map(|(what, times)| format!("{what} {times}"))
        .collect();
    counts.join(", ")
}
