//! What `/readyz` says: one line a part of the service.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use utoipa::ToSchema;

/// How a part is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "state", content = "detail", rename_all = "lowercase")]
pub enum State {
    /// It does its work.
    Ok(String),
    /// It waits for something outside, and goes on by itself; the service serves what it can.
    Degraded(String),
    /// A person must act.
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

/// The state of all parts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Health(Arc<watch::Sender<BTreeMap<String, State>>>);

impl Health {
    /// No parts yet.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(BTreeMap::new())))
    }

    /// Notes the state of `part`.
    pub fn set(&self, part: &str, state: State) {
        self.0.send_if_modified(|parts| {
            if parts.get(part) == Some(&state) {
                return false;
            }
            parts.insert(part.to_owned(), state);
            true
        });
    }

    /// Takes `part` out: there is nothing to say of it any more.
    pub fn forget(&self, part: &str) {
        self.0
            .send_if_modified(|parts| parts.remove(part).is_some());
    }

    /// To wait for changes.
    pub(crate) fn watch(&self) -> watch::Receiver<BTreeMap<String, State>> {
        self.0.subscribe()
    }

    /// How all of it is doing, on one line: what is not well, the worst first.
    pub fn summary(&self) -> String {
        let parts = self.0.borrow();
        let with = |of: fn(&State) -> Option<&String>, what: &str| {
            let told: Vec<_> = (parts.iter())
                .filter_map(|(part, state)| Some(format!("{part}: {}", of(state)?)))
                .collect();
            (!told.is_empty()).then(|| format!("{what}: {}", told.join(", ")))
        };
        let failed = with(State::failed, "failed");
        let degraded = with(State::degraded, "degraded");
        match (failed, degraded) {
            (None, None) if parts.len() == 1 => "1 part ok".to_owned(),
            (None, None) => format!("{} parts ok", parts.len()),
            (Some(what), None) | (None, Some(what)) => what,
            (Some(failed), Some(degraded)) => format!("{failed}; {degraded}"),
        }
        .replace('\n', " ")
    }

    /// All parts and how they are doing.
    pub fn parts(&self) -> BTreeMap<String, State> {
        self.0.borrow().clone()
    }

    /// Whether requests should be sent here: no part has failed. A part that waits for the
    /// broker does not count: writes go on without it.
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
