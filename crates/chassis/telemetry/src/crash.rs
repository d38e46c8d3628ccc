//! Named places at which a test lets the process die, as `kill -9` would at that very moment.
//!
//! (Or is slow there: `HEADWATER_SLOW=rebuild.received:50` stops it for 50 ms at each pass.)
//!
//! `HEADWATER_CRASH=relay.published` ends the process when it first comes by that place,
//! `HEADWATER_CRASH=relay.published:3` at the third time. Only with the feature `crash-points`,
//! which the end-to-end tests switch on: without it, there is nothing of this.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::log as telemetry;

/// All places, in the order in which an event comes by them.
pub const POINTS: &[&str] = &[
    "commit.group",    // a closure ran, others of its group have not, nothing is committed
    "commit.before",   // all closures of the group ran
    "commit.after",    // committed, nobody was answered
    "relay.read",      // rows were read from the outbox, nothing is sent
    "relay.half",      // some rows of a few, or of a batch, are sent
    "relay.sent",      // all are sent, no answer was read
    "relay.published", // the server's answer came, nothing is noted
    "projection.received", // a batch came, nothing is applied
    "projection.applied", // applied, the checkpoint has not moved
    "projection.moved", // the checkpoint has moved, nothing is committed
    "projection.committed", // committed, nothing is noted
    "projection.gap",  // missing events were fetched, nothing is applied
    "rebuild.begun",   // the new store's file is there, and empty
    "rebuild.received", // a batch came for the new store, nothing is applied
    "rebuild.folding", // a batch was committed to the new store
    "rebuild.compared", // the new store is as far as the live one, and compared with it
    "rebuild.switched", // the next start opens the new store, this process still has the old
    "rebuild.swapped", // the new store serves, the old one has not been removed
    "rebuild.merging", // some of the rows that differ were committed to the live database, or all
    "rebuild.merged",  // all are, the new fold has not been removed
    "dead-letter.retried", // a parked event was applied, nothing is committed
    "dead-letter.discarded", // a parked event was taken out, nothing is committed
    "erasure.committed", // an erasure is committed, its key is there
    "erasure.overwritten", // the key is overwritten, and may not be on the disk
    "erasure.scrubbed", // what was in clear text is out of the tables, and may be in the log
];

/// Ends the process here if it was told to.
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
            // What was logged is not part of what a crash loses. Otherwise no destructor runs, and
            // nothing is flushed.
            telemetry::flush();
            std::process::abort();
        }
    }
}

/// Whether the process is to end at this place, sooner or later.
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
        name: known.unwrap_or_else(|| panic!("HEADWATER_CRASH={text}: there is no such place")),
        passes_left: AtomicU64::new(
            pass.parse()
                .unwrap_or_else(|_| panic!("HEADWATER_CRASH={text}: {pass} is no number")),
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
