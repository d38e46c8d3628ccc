//! Events in a newer version than this program knows. They are held: neither applied nor made dead
//! letters, because the next version of this program can apply them.

use headwater_event::{Envelope, is_newer};

use crate::projection::Projection;

/// The next event of a source is a newer version than the program knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} is newer than this service knows: upgrade {service}")]
pub(crate) struct Newer {
    kind: String,
    service: &'static str,
}

impl Newer {
    /// Whether `event` is a newer version of one that `P` names; `service` runs the projection.
    pub(crate) fn of<P: Projection>(event: &Envelope, service: &'static str) -> Option<Self> {
        let (kind, known) = (event.kind(), || P::EVENTS.iter().copied().flatten());
        let is_known = known().any(|known| *known == kind);
        let is_held = !is_known && is_newer(kind, known().copied());
        is_held.then(|| Self {
            kind: kind.to_owned(),
            service,
        })
    }
}
