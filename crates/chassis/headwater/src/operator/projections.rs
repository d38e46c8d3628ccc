//! `projections.pause` and `projections.resume`.

use headwater_nats::control::{PauseRequest, ProjectionStatus, ResumeRequest};
use headwater_projection::PauseControl;
use headwater_store::Database;
use headwater_telemetry::causes;

use crate::operator::registry::{ProjectionHandle, ProjectionRegistry};
use crate::operator::reply::{Error, refuse};

pub(super) async fn pause(
    db: &Database,
    registry: &ProjectionRegistry,
    request: PauseRequest,
) -> Result<ProjectionStatus, Error> {
    let (handle, pause_control) = find(db, registry, request.projection.as_deref())?;
    if request.reason.trim().is_empty() {
        return Err(refuse(400, "say why it is paused".to_owned()));
    }
    handle.expect_no_rebuild()?;
    let paused = pause_control.pause(request.reason).await;
    paused.map_err(|error| refuse(503, causes(&error)))?;
    status(db, registry, handle).await
}

pub(super) async fn resume(
    db: &Database,
    registry: &ProjectionRegistry,
    request: ResumeRequest,
) -> Result<ProjectionStatus, Error> {
    let (handle, pause_control) = find(db, registry, request.projection.as_deref())?;
    let resumed = pause_control.resume().await;
    resumed.map_err(|error| refuse(503, causes(&error)))?;
    status(db, registry, handle).await
}

async fn status(
    db: &Database,
    registry: &ProjectionRegistry,
    handle: &ProjectionHandle,
) -> Result<ProjectionStatus, Error> {
    let status = registry.projection(db, handle).await;
    status.map_err(|error| refuse(500, error.to_string()))
}

/// The projection `name`, or the only one, and its pause control.
fn find<'a>(
    db: &Database,
    registry: &'a ProjectionRegistry,
    name: Option<&str>,
) -> Result<(&'a ProjectionHandle, &'a PauseControl), Error> {
    let handle = registry.find(db, name)?;
    let pause_control = handle.pause_control.as_ref();
    let pause_control =
        pause_control.ok_or_else(|| refuse(404, format!("{} cannot be paused", handle.name)))?;
    Ok((handle, pause_control))
}
