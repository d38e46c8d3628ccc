//! Waits for a rebuild or a verification that runs next to a live projection.

use std::time::Duration;

use anyhow::bail;
use client::Nats;
use headwater::Positions;
use headwater::operator::{Endpoint, RebuildState, RebuildStatus};
use terminal::Screen;
use terminal::output::printable;
use tokio::time::Instant;

use crate::target::Target;

/// The pause between two status requests.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// How long a service may be silent, or its rebuild apply nothing, before this is an error.
const STANDSTILL: Duration = Duration::from_mins(1);

/// Waits until the rebuild of `target`, whose first status is `begun`, is done or has failed.
///
/// Returns an error with what it waits for if it makes no progress, or if the service no longer
/// knows of it because it was restarted.
pub(crate) async fn follow(
    nats: &Nats,
    target: &Target,
    begun: RebuildStatus,
    screen: &Screen,
) -> anyhow::Result<RebuildStatus> {
    let bar = screen.bar(&target.to_string(), sum(&begun.live));
    let mut status = begun;
    let (mut heard, mut moved) = (Instant::now(), Instant::now());
    loop {
        bar.ends_at(sum(&status.live));
        bar.at(sum(&status.positions));
        bar.says(word(status.state));
        match status.state {
            RebuildState::Done | RebuildState::Failed => return Ok(status),
            RebuildState::Idle => bail!(
                "{target} no longer has a rebuild: its service was restarted; run the command again"
            ),
            RebuildState::Folding if moved.elapsed() >= STANDSTILL => bail!(
                "the rebuild of {target} has made no progress for {STANDSTILL:?} at `{}`{}; it \
                 resumes automatically, `headwater rebuild {} --stop` ends it",
                status.positions,
                waits(&status),
                target.projection.as_ref().unwrap_or(&target.service)
            ),
            // Comparing shows no progress, however large the store is.
            RebuildState::Folding | RebuildState::Comparing | RebuildState::Merging => {}
        }
        tokio::time::sleep(LOOK_PAUSE).await;
        match target.ask(nats, Endpoint::Fold).await {
            Ok(now) => {
                heard = Instant::now();
                if now != status {
                    (status, moved) = (now, heard);
                }
            }
            Err(client::Error::Unreachable(_)) if heard.elapsed() < STANDSTILL => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// What a rebuild waits for, as the end of a sentence.
pub(crate) fn waits(status: &RebuildStatus) -> String {
    let waiting = status.waiting.iter();
    let each = waiting.map(|(source, why)| format!("; it waits for {source}: {}", printable(why)));
    each.collect()
}

/// The total number of events.
fn sum(positions: &Positions) -> u64 {
    positions.0.values().sum()
}

fn word(state: RebuildState) -> &'static str {
    match state {
        RebuildState::Idle => "idle",
        RebuildState::Folding => "events applied",
        RebuildState::Comparing => "comparing",
        RebuildState::Merging => "merging",
        RebuildState::Done => "done",
        RebuildState::Failed => "failed",
    }
}
