//! Waiting for a fold: a read store that is made anew beside the one that serves.

use std::time::Duration;

use anyhow::ensure;
use headwater::Positions;
use headwater::operator::{Endpoint, FoldState, FoldStatus};
use tokio::time::Instant;

use crate::nats::{Nats, Unreachable};
use crate::progress::Screen;

/// How often a service is asked how far it is.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// How long a service may be silent, or its fold apply nothing, before it is given up.
const STANDSTILL: Duration = Duration::from_mins(1);

/// Waits until the fold of `service`, which has just answered `begun`, is done or has failed.
///
/// Errors when it does not move on any more, or the service forgot it: it was started anew.
pub(crate) async fn follow(
    nats: &Nats,
    service: &str,
    begun: FoldStatus,
    screen: &Screen,
) -> anyhow::Result<FoldStatus> {
    let bar = screen.bar(service, sum(&begun.live));
    let mut status = begun;
    let (mut heard, mut moved) = (Instant::now(), Instant::now());
    loop {
        bar.ends_at(sum(&status.live));
        bar.at(sum(&status.positions));
        bar.says(word(status.state));
        match status.state {
            FoldState::Done | FoldState::Failed => return Ok(status),
            FoldState::Idle => anyhow::bail!(
                "{service} knows of no fold any more: it was started anew meanwhile; begin again"
            ),
            FoldState::Folding => ensure!(
                moved.elapsed() < STANDSTILL,
                "the fold of {service} has stood still for {STANDSTILL:?} at `{}`; look at the service's log",
                status.positions
            ),
            // However large the store is; nothing shows meanwhile.
            FoldState::Comparing => {}
        }
        tokio::time::sleep(LOOK_PAUSE).await;
        match nats.ask(service, Endpoint::Fold, &()).await {
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

/// Events in all.
fn sum(positions: &Positions) -> u64 {
    positions.0.values().sum()
}

fn word(state: FoldState) -> &'static str {
    match state {
        FoldState::Idle => "idle",
        FoldState::Folding => "events folded",
        FoldState::Comparing => "comparing",
        FoldState::Done => "done",
        FoldState::Failed => "failed",
    }
}
