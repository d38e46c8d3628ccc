//! The health of a service, as `/readyz` reports it: one line per component.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use utoipa::ToSchema;

/// The state of a component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "state", content = "detail", rename_all = "lowercase")]
pub enum State {
    /// It works.
    Ok(String),
    /// It waits for something external and resumes automatically; the service serves what it can.
    Degraded(String),
    /// An operator must act.
    Failed(String),
}

impl State {
    fn degraded(&self) -> Option<&String> {
        match self {
            Self::Degraded(detail) => Some(detail),
            _ => None,
        }
    }

    fn failed(&self) -> Option<&String> {
        match self {
            Self::Failed(detail) => Some(detail),
            _ => None,
        }
    }
}

/// The states of all components. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Health(Arc<watch::Sender<BTreeMap<String, State>>>);

impl Health {
    /// No components yet.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(BTreeMap::new())))
    }

    /// Sets the state of `component`.
    pub fn set(&self, component: &str, state: State) {
        self.0.send_if_modified(|states| {
            if states.get(component) == Some(&state) {
                return false;
            }
            states.insert(component.to_owned(), state);
            true
        });
    }

    /// Removes `component`.
    pub fn forget(&self, component: &str) {
        self.0
            .send_if_modified(|states| states.remove(component).is_some());
    }

    /// A receiver of changes.
    pub(crate) fn watch(&self) -> watch::Receiver<BTreeMap<String, State>> {
        self.0.subscribe()
    }

    /// One line for all components: those that are not ok, the worst first.
    pub fn summary(&self) -> String {
        let states = self.0.borrow();
        let list = |detail: fn(&State) -> Option<&String>, what: &str| {
            let lines: Vec<_> = (states.iter())
                .filter_map(|(name, state)| Some(format!("{name}: {}", detail(state)?)))
                .collect();
            (!lines.is_empty()).then(|| format!("{what}: {}", lines.join(", ")))
        };
        let failed = list(State::failed, "failed");
        let degraded = list(State::degraded, "degraded");
        match (failed, degraded) {
            (None, None) if states.len() == 1 => "1 component ok".to_owned(),
            (None, None) => format!("{} components ok", states.len()),
            (Some(what), None) | (None, Some(what)) => what,
            (Some(failed), Some(degraded)) => format!("{failed}; {degraded}"),
        }
        .replace('\n', " ")
    }

    /// All components and their states.
    pub fn parts(&self) -> BTreeMap<String, State> {
        self.0.borrow().clone()
    }

    /// Whether requests should be sent here: no component has failed. A component that waits for
    /// the broker is only degraded: writes continue without the broker.
    pub fn is_ready(&self) -> bool {
        !self
            .0
            .borrow()
            .values()
            .any(|state| matches!(state, State::Failed(_)))
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}
