//! `projections.pause` and `projections.resume`: holding a projection where it is.

use headwater_nats::control::{PauseRequest, ProjectionStatus, ResumeRequest};
use headwater_projection::Brake;
use headwater_store::Database;

use crate::operator::reply::{Error, refuse};
use crate::operator::tools::{Tool, Tools};

pub(super) async fn pause(
    db: &Database,
    tools: &Tools,
    request: PauseRequest,
) -> Result<ProjectionStatus, Error> {
    let (tool, brake) = find(db, tools, request.projection.as_deref())?;
    if request.reason.trim().is_empty() {
        return Err(refuse(400, "say why it is paused".to_owned()));
    }
    tool.expect_no_fold()?;
    let paused = brake.pause(request.reason).await;
    paused.map_err(|error| refuse(503, format!("{error:#}")))?;
    status(db, tools, tool).await
}

pub(super) async fn resume(
    db: &Database,
    tools: &Tools,
    request: ResumeRequest,
) -> Result<ProjectionStatus, Error> {
    let (tool, brake) = find(db, tools, request.projection.as_deref())?;
    let resumed = brake.resume().await;
    resumed.map_err(|error| refuse(503, format!("{error:#}")))?;
    status(db, tools, tool).await
}

async fn status(db: &Database, tools: &Tools, tool: &Tool) -> Result<ProjectionStatus, Error> {
    let status = tools.projection(db, tool).await;
    status.map_err(|error| refuse(500, error.to_string()))
}

/// The projection `name`, or the only one, which can be held.
fn find<'a>(
    db: &Database,
    tools: &'a Tools,
    name: Option<&str>,
) -> Result<(&'a Tool, &'a Brake), Error> {
    let tool = tools.find(db, name)?;
    let brake = tool.brake.as_ref();
    let brake = brake.ok_or_else(|| refuse(404, format!("{} cannot be held", tool.name)))?;
    Ok((tool, brake))
}
