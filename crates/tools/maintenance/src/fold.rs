//! Waiting for a fold beside a live projection: a rebuild, or what it is verified against.

use std::time::Duration;

use anyhow::bail;
use client::{Nats, Unreachable};
use headwater::Positions;
use headwater::operator::{Endpoint, RebuildState, RebuildStatus};
use terminal::Screen;
use terminal::output::printable;
use tokio::time::Instant;

use crate::target::Target;

/// How often a service is asked how far it is.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// How long a service may be silent, or its fold apply nothing, before it is given up.
const STANDSTILL: Duration = Duration::from_mins(1);

/// Waits until the fold of `target`, which has just answered `begun`, is done or has failed.
///
/// Errors when it does not move on any more, with what it waits for, or the service forgot it: it
/// was started again.
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
                "{target} knows of no fold any more: it was started again meanwhile; begin again"
            ),
            RebuildState::Folding if moved.elapsed() >= STANDSTILL => bail!(
                "the fold of {target} has stood still for {STANDSTILL:?} at `{}`{}; it goes on by \
                 itself, `headwater rebuild {} --stop` ends it",
                status.positions,
                waits(&status),
                target.projection.as_ref().unwrap_or(&target.service)
            ),
            // While rows are compared nothing shows, however large the store is.
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
            Err(error) if error.is::<Unreachable>() && heard.elapsed() < STANDSTILL => {}
            Err(error) => return Err(error),
        }
    }
}

/// What a fold waits for, as the end of a sentence.
pub(crate) fn waits(status: &RebuildStatus) -> String {
    let waiting = status.waiting.iter();
    let each = waiting.map(|(source, why)| format!("; it waits in {source}: {}", printable(why)));
    each.collect()
}

/// Events in all.
fn sum(positions: &Positions) -> u64 {
    positions.0.values().sum()
}

fn word(state: RebuildState) -> &'static str {
    match state {
        RebuildState::Idle => "idle",
        RebuildState::Folding => "events folded",
        RebuildState::Comparing => "comparing",
        RebuildState::Merging => "merging",
        RebuildState::Done => "done",
        RebuildState::Failed => "failed",
    }
}
