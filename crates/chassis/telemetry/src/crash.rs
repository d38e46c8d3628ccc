//! Crash points: named places where a test makes the process die, as `kill -9` would.
//!
//! `HEADWATER_CRASH=relay.published` ends the process when it first reaches that point,
//! `HEADWATER_CRASH=relay.published:3` at the third pass. `HEADWATER_SLOW=rebuild.received:50`
//! delays the process by 50 ms at each pass. All of this needs the feature `crash-points`, which
//! the end-to-end tests enable.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::log as telemetry;

/// All crash points, in the order in which an event passes them.
pub const POINTS: &[&str] = &[
    "commit.group", // a closure of the group ran, others may not have; nothing is committed
    "commit.before", // all closures of the group ran
    "commit.after", // committed, no caller is answered
    "relay.read",   // rows were read from the outbox, none is sent
    "relay.half",   // some rows of a few, or of a batch, are sent
    "relay.sent",   // all rows are sent, no answer is read
    "relay.published", // the server answered, nothing is recorded
    "projection.received", // a batch arrived, nothing is applied
    "projection.applied", // applied, the checkpoint has not moved
    "projection.moved", // the checkpoint has moved, nothing is committed
    "projection.committed", // committed, nothing is recorded
    "projection.gap", // missing events were fetched, nothing is applied
    "effect.intended", // an intent is written, nothing is committed
    "effect.due",   // an intent is committed and due, nothing is performed
    "effect.performed", // performed, nothing is recorded
    "effect.removed", // the intent is removed, nothing is committed
    "effect.settled", // the result is committed, the worker does not know
    "rebuild.begun", // the new store's file exists and is empty
    "rebuild.received", // a batch arrived for the new store, nothing is applied
    "rebuild.folding", // a batch is committed to the new store
    "rebuild.compared", // the new store has reached the live one's positions and was compared
    "rebuild.switched", // the next start opens the new store, this process still has the old one
    "rebuild.swapped", // the new store is live, the old one is not removed
    "rebuild.merging", // some or all of the differing rows are committed to the live database
    "rebuild.merged", // all differing rows are committed, the new store is not removed
    "dead-letter.retried", // a dead letter was applied, nothing is committed
    "dead-letter.discarded", // a dead letter was removed, nothing is committed
    "erasure.committed", // an erasure is committed, its key still exists
    "erasure.overwritten", // the key is overwritten, but may not be on the disk
    "erasure.scrubbed", // the tables have no clear text, the log may have
];

/// Ends the process here if this crash point is armed.
pub fn point(name: &'static str) {
    if cfg!(feature = "crash-points") {
        debug_assert!(POINTS.contains(&name), "{name} is not in the list");
        if let Some((slow, pause)) = slow()
            && slow == name
        {
            std::thread::sleep(*pause);
        }
        if let Some(armed) = armed()
            && armed.name == name
            && armed.passes_left.fetch_sub(1, Ordering::Relaxed) == 1
        {
            // Keep the log lines. Apart from that, no destructor runs and nothing is flushed.
            telemetry::flush();
            std::process::abort();
        }
    }
}

/// Whether this crash point is armed.
pub fn is_armed(name: &str) -> bool {
    cfg!(feature = "crash-points") && armed().is_some_and(|armed| armed.name == name)
}

fn slow() -> Option<&'static (String, Duration)> {
    static SLOW: OnceLock<Option<(String, Duration)>> = OnceLock::new();
    let read = || {
        let text = std::env::var("HEADWATER_SLOW").ok()?;
        let (name, ms) = text.split_once(':')?;
        Some((name.to_owned(), Duration::from_millis(ms.parse().ok()?)))
    };
    SLOW.get_or_init(read).as_ref()
}

struct Armed {
    name: &'static str,
    passes_left: AtomicU64,
}

fn armed() -> Option<&'static Armed> {
    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
    ARMED
        .get_or_init(|| {
            std::env::var("HEADWATER_CRASH")
                .ok()
                .map(|text| parse(&text))
        })
        .as_ref()
}

fn parse(text: &str) -> Armed {
    let (name, pass) = text.split_once(':').unwrap_or((text, "1"));
    let known = POINTS.iter().find(|known| **known == name);
    Armed {
        name: known.unwrap_or_else(|| panic!("HEADWATER_CRASH={text}: unknown crash point")),
        passes_left: AtomicU64::new(
            pass.parse()
                .unwrap_or_else(|_| panic!("HEADWATER_CRASH={text}: {pass} is not a number")),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_named_with_the_pass_that_is_meant() {
        let first = parse("relay.sent");
        assert_eq!(
            (first.name, first.passes_left.into_inner()),
            ("relay.sent", 1)
        );
        let third = parse("commit.after:3");
        assert_eq!(
            (third.name, third.passes_left.into_inner()),
            ("commit.after", 3)
        );
    }
}
