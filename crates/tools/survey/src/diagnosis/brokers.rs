//! The brokers and the replicas that they keep.

use std::collections::BTreeSet;

use headwater::brokers::Storage;
use headwater::replicas::WITHOUT_QUORUM;
use terminal::table::bytes;

use crate::brokers::{Brokers, JetStream, NOT_FOR_USER};
use crate::finding::{Check, Finding, Grade};
use crate::survey::Survey;

/// The shares of JetStream's storage limit that count as nearly full and as full.
const STORAGE_WARNING: f64 = 0.8;
const STORAGE_CRITICAL: f64 = 0.95;

/// Whether all brokers answer, have a quorum, and have room.
pub(crate) fn jetstream(brokers: &Brokers) -> Vec<Finding> {
    const START: &str = "start the missing brokers, `systemctl start headwater-nats` on their machines; waiting events are then published automatically";
    let mut check = Check::new("jetstream");
    let storage = brokers
        .storage()
        .map(|storage| (storage.share(), usage(storage)));
    match &brokers.jetstream {
        JetStream::Up(_) => {
            if let Some(what) = brokers.fewer() {
                check.alarm(Grade::Warn, what, START);
            }
        }
        JetStream::NoQuorum => check.alarm(Grade::Fail, brokers.no_quorum(), START),
        JetStream::NotForUser => check.alarm(
            Grade::Fail,
            NOT_FOR_USER,
            "log in as another user, or enable JetStream for this account, `jetstream: enabled`",
        ),
        JetStream::Down(why) => check.alarm(
            Grade::Fail,
            format!("JetStream does not answer: {why}; {WITHOUT_QUORUM}"),
            "enable it in the server's configuration, `jetstream { store_dir: … }`",
        ),
    }
    if let Some((share, usage)) = &storage {
        filling(&mut check, *share, usage);
    }
    check.or(|| {
        let stored = storage.map(|(_, usage)| format!(", {usage}"));
        let streams = brokers.streams();
        format!("enabled, {streams} streams{}", stored.unwrap_or_default())
    })
}

/// Reports that storage is nearly full.
fn filling(check: &mut Check, share: f64, usage: &str) {
    let grade = match share {
        share if share >= STORAGE_CRITICAL => Grade::Fail,
        share if share >= STORAGE_WARNING => Grade::Warn,
        _ => return,
    };
    check.alarm(
        grade,
        format!("JetStream has {usage}: when it is full, events wait in the outboxes"),
        "free disk space and raise `max_file_store` of the broker or the limit of the account",
    );
}

fn usage(storage: Storage) -> String {
    let (used, limit) = (bytes(storage.used), bytes(storage.limit));
    format!(
        "{used} of {limit} stored ({:.0} %)",
        storage.share() * 100.0
    )
}

/// Whether brokers have the replicas that they should.
pub(crate) fn replicas(survey: &Survey) -> Vec<Finding> {
    let mut check = Check::new("replicas");
    for short in survey.short_of_replicas() {
        let (grade, fix) = if short.is_stopped {
            (
                Grade::Fail,
                "start the missing brokers; if none is missing, see docs/operations.md, HeadwaterQuorum",
            )
        } else {
            (
                Grade::Warn,
                "start the named broker, `systemctl start headwater-nats` on its machine; it catches up automatically",
            )
        };
        check.alarm(grade, short.what, fix);
    }
    check.or(|| {
        let kept = survey.streams.iter();
        let kept: BTreeSet<usize> = kept.map(|stream| stream.replicas.configured).collect();
        let kept: Vec<String> = kept.iter().map(ToString::to_string).collect();
        match kept.as_slice() {
            [] => "there are no streams".to_owned(),
            kept => format!("{} of each stream, all current", kept.join(" or ")),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(there: usize, expected: usize, jetstream: JetStream, full: Option<u64>) -> Brokers {
        Brokers {
            there: (0..there).map(|n| format!("nats-{n}")).collect(),
            away: Vec::new(),
            expected,
            jetstream,
            stored_bytes: full,
            storage_limit_bytes: full.map(|_| 100),
            statuses: Vec::new(),
        }
    }

    #[test]
    fn what_is_short_of_something_is_said_with_how_bad_that_is() {
        for (brokers, grade, text) in [
            (
                seen(1, 1, JetStream::Up(4), None),
                Grade::Ok,
                "enabled, 4 streams",
            ),
            (seen(3, 3, JetStream::Up(4), Some(79)), Grade::Ok, "(79 %)"),
            (
                seen(2, 3, JetStream::Up(4), None),
                Grade::Warn,
                "2 of 3 brokers",
            ),
            (
                seen(1, 3, JetStream::NoQuorum, None),
                Grade::Fail,
                "no quorum: 1 of 3",
            ),
            (
                seen(2, 3, JetStream::NoQuorum, None),
                Grade::Fail,
                "no quorum yet: 2 of 3",
            ),
            (
                seen(1, 1, JetStream::NoQuorum, None),
                Grade::Fail,
                "besides nats-0",
            ),
            (seen(3, 3, JetStream::Up(4), Some(80)), Grade::Warn, "80 %"),
            (seen(3, 3, JetStream::Up(4), Some(95)), Grade::Fail, "95 %"),
        ] {
            let found = jetstream(&brokers).remove(0);
            assert!(
                found.grade == grade && found.what.contains(text),
                "{found:?}"
            );
            assert_eq!(found.is_alarm, grade > Grade::Ok, "{found:?}");
        }
    }
}
