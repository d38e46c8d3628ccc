//! `status`: the state of a service.

use headwater_nats::control::{StatusAnswer, StatusRequest};
use headwater_store::{Database, outbox};
use headwater_telemetry::health::Health;

use crate::operator::registry::ProjectionRegistry;
use crate::operator::reply::{Error, refuse};

pub(super) fn without_database(service: &str, health: &Health) -> StatusAnswer {
    StatusAnswer {
        service: service.to_owned(),
        epoch: String::new(),
        head: 0,
        can_back_up: false,
        parts: health.parts(),
        projections: Vec::new(),
    }
}

pub(super) async fn of(
    db: &Database,
    health: &Health,
    registry: &ProjectionRegistry,
    request: StatusRequest,
) -> Result<StatusAnswer, Error> {
    let projections = registry.projections(db, &request.events).await;
    // The head is read from the outbox: another process may have written to it.
    let head = db.read(outbox::head).await;
    Ok(StatusAnswer {
        service: db.owner().to_owned(),
        epoch: db.epoch().to_string(),
        head: head.map_err(|error| refuse(500, error.to_string()))?,
        can_back_up: db.is_own(),
        parts: health.parts(),
        projections: projections.map_err(|error| refuse(500, error.to_string()))?,
    })
}
