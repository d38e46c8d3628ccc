//! The state of a source: how reading its stream is going, and what contradicts it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use headwater_event::Envelope;
use headwater_nats::bus::{LOGIN_REFUSED, NOT_CONNECTED};
use headwater_telemetry::health::{Health, State};
use tokio::sync::Notify;

use crate::anomaly::Anomalies;
use crate::projection::Projection;
use crate::source_answer::Backlog;

/// How the state of a component that waits for its source begins.
pub(crate) const WAITING: &str = "waiting: ";

/// The most events that wait for a comparison with the outbox; further ones are not compared.
const AGAIN_MAX: usize = 1000;

/// The sources of a projection. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sources(Arc<BTreeMap<&'static str, Source>>);

impl Sources {
    pub(super) fn new<P: Projection>(health: &Health) -> Self {
        let source = |name: &&'static str| (*name, Source::new::<P>(name, health.clone()));
        Self(Arc::new(P::SOURCES.iter().map(source).collect()))
    }

    pub(super) fn get(&self, name: &str) -> &Source {
        &self.0[name]
    }

    /// For each source that cannot be read on, what it waits for.
    pub(super) fn waiting(&self) -> BTreeMap<String, String> {
        let sources = self.0.iter();
        let waiting = sources.filter_map(|(name, source)| match &source.state().reading {
            State::Degraded(why) if why == NOT_CONNECTED || why.starts_with(LOGIN_REFUSED) => {
                Some(((*name).to_owned(), why.clone()))
            }
            State::Degraded(why) | State::Failed(why) => {
                let why = why.strip_prefix(WAITING)?;
                Some(((*name).to_owned(), why.to_owned()))
            }
            State::Ok(_) => None,
        });
        waiting.collect()
    }

    /// How the applied events contradict the source `name`, as a sentence.
    pub fn fault(&self, name: &str) -> Option<String> {
        self.0
            .get(name)
            .and_then(|source| source.state().fault.clone())
    }

    /// What is yet to be applied of the source `name`, once for each of its answers.
    pub fn take_backlog(&self, name: &str) -> Option<Backlog> {
        self.0.get(name)?.state().backlog.take()
    }
}

/// One source of a projection.
#[derive(Debug)]
pub(super) struct Source {
    pub(crate) name: &'static str,
    pub(crate) component: String,
    pub(crate) health: Health,
    pub(crate) state: Mutex<Inner>,
    /// Wakes the task that asks the source: the stream was opened.
    pub(crate) opened: Notify,
    /// Wakes the same task to compare events that came again.
    pub(crate) came_again: Notify,
}

#[derive(Debug)]
pub(crate) struct Inner {
    /// How reading is going.
    pub(crate) reading: State,
    pub(crate) fault: Option<String>,
    backlog: Option<Backlog>,
    pub(crate) anomalies: Anomalies,
    pub(crate) again: VecDeque<Envelope>,
}

impl Source {
    fn new<P: Projection>(name: &'static str, health: Health) -> Self {
        let source = Self {
            name,
            component: format!("{} from {name}", P::NAME),
            health,
            state: Mutex::new(Inner {
                reading: State::Degraded("starting".to_owned()),
                fault: None,
                backlog: None,
                anomalies: Anomalies::default(),
                again: VecDeque::new(),
            }),
            opened: Notify::new(),
            came_again: Notify::new(),
        };
        source.publish(&source.state());
        source
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, Inner> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports how reading is going.
    pub(super) fn report(&self, reading: State) {
        let mut state = self.state();
        state.reading = reading;
        self.publish(&state);
    }

    /// Records the stream's anomalies.
    pub(super) fn note_anomalies(&self, anomalies: Anomalies) {
        let mut state = self.state();
        state.anomalies = anomalies;
        self.publish(&state);
    }

    /// Records that the stream was opened: a time to ask the source.
    pub(super) fn note_opened(&self) {
        self.opened.notify_one();
    }

    /// Records that known positions came again, to be compared with the outbox.
    pub(super) fn note_again(&self, events: Vec<Envelope>) {
        if events.is_empty() {
            return;
        }
        let mut state = self.state();
        let room = AGAIN_MAX.saturating_sub(state.again.len());
        state.again.extend(events.into_iter().take(room));
        self.came_again.notify_one();
    }

    pub(crate) fn note_backlog(&self, backlog: Backlog) {
        self.state().backlog = Some(backlog);
    }

    pub(crate) fn note_fault(&self, projection: &str, fault: Option<String>) {
        let mut state = self.state();
        if state.fault == fault {
            return;
        }
        match &fault {
            Some(fault) => {
                tracing::error!(
                    projection,
                    source = self.name,
                    fault,
                    "projection and source contradict each other"
                );
            }
            None => {
                tracing::info!(
                    projection,
                    source = self.name,
                    "projection and source agree again"
                );
            }
        }
        state.fault = fault;
        self.publish(&state);
    }

    /// Reports how reading is going, and all faults.
    pub(crate) fn publish(&self, state: &Inner) {
        let Inner {
            reading,
            fault,
            anomalies,
            ..
        } = state;
        let (State::Ok(detail) | State::Degraded(detail) | State::Failed(detail)) = reading;
        let faults = fault.iter().chain(anomalies.faults());
        let all: Vec<&str> = faults.map(String::as_str).chain([&**detail]).collect();
        let is_failed = fault.is_some() || matches!(reading, State::Failed(_));
        let state = match (is_failed, all.len(), reading) {
            (true, ..) => State::Failed(all.join("; ")),
            (false, 1, reading) => reading.clone(),
            (false, ..) => State::Degraded(all.join("; ")),
        };
        self.health.set(&self.component, state);
    }
}

#[cfg(test)]
mod tests {
    use headwater_store::Tx;

    use super::*;
    use crate::projection::ApplyError;

    #[derive(Debug)]
    struct Nothing;

    impl Projection for Nothing {
        const NAME: &'static str = "nothing";
        const VERSION: u32 = 1;
        const SOURCES: &'static [&'static str] = &["sensors"];

        fn apply(&self, _: &Tx, _: &[Envelope]) -> Result<(), ApplyError> {
            Ok(())
        }
    }

    #[test]
    fn a_fault_fails_the_part_and_what_was_met_in_the_stream_degrades_it() {
        let health = Health::new();
        let source = Source::new::<Nothing>("sensors", health.clone());
        let part = || health.parts()["nothing from sensors"].clone();
        source.report(State::Ok("applied up to 2".to_owned()));
        assert_eq!(part(), State::Ok("applied up to 2".to_owned()));
        source.note_fault("nothing", Some("ahead".to_owned()));
        assert_eq!(part(), State::Failed("ahead; applied up to 2".to_owned()));
        source.note_fault("nothing", None);
        assert_eq!(part(), State::Ok("applied up to 2".to_owned()));
    }
}
