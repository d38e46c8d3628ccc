//! The brokers, and the copies that they keep.

use std::collections::BTreeSet;

use headwater::brokers::Storage;
use headwater::replicas::WITHOUT_QUORUM;
use terminal::table::bytes;

use crate::brokers::{Brokers, JetStream, NOT_FOR_USER};
use crate::finding::{Check, Finding, Grade};
use crate::survey::Survey;

/// From where on the storage of JetStream counts as nearly full, and as full.
const STORAGE_WARNING: f64 = 0.8;
const STORAGE_CRITICAL: f64 = 0.95;

/// Whether streams can be asked, by all brokers, and have room.
pub(crate) fn jetstream(brokers: &Brokers) -> Vec<Finding> {
    const START: &str = "start those that are away, `systemctl start headwater-nats` where they are; what waits is published by itself";
    let mut check = Check::new("jetstream");
    let storage = brokers
        .storage()
        .map(|storage| (storage.share(), said(storage)));
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
            "do so, or enable it for this account, `jetstream: enabled`",
        ),
        JetStream::Down(why) => check.alarm(
            Grade::Fail,
            format!("JetStream does not answer: {why}; {WITHOUT_QUORUM}"),
            "enable it in the server's configuration, `jetstream { store_dir: … }`",
        ),
    }
    if let Some((share, said)) = &storage {
        filling(&mut check, *share, said);
    }
    check.or(|| {
        let stored = storage.map(|(_, said)| format!(", {said}"));
        let streams = brokers.streams();
        format!("enabled, {streams} streams{}", stored.unwrap_or_default())
    })
}

/// That there will soon be no room.
fn filling(check: &mut Check, share: f64, said: &str) {
    let grade = match share {
        share if share >= STORAGE_CRITICAL => Grade::Fail,
        share if share >= STORAGE_WARNING => Grade::Warn,
        _ => return,
    };
    check.alarm(
        grade,
        format!("JetStream has {said}: when it is full, events wait in the outboxes"),
        "make room, and raise `max_file_store` of the broker or the limit of the account; events wait in the outboxes meanwhile",
    );
}

fn said(storage: Storage) -> String {
    let (used, limit) = (bytes(storage.used), bytes(storage.limit));
    format!(
        "{used} of {limit} stored ({:.0} %)",
        storage.share() * 100.0
    )
}

/// Whether brokers have the copies that they should.
pub(crate) fn replicas(survey: &Survey) -> Vec<Finding> {
    let mut check = Check::new("replicas");
    for short in survey.short_of_replicas() {
        let (grade, fix) = if short.is_stopped {
            (
                Grade::Fail,
                "start the brokers that are away; if all are there, docs/operations.md, HeadwaterQuorum",
            )
        } else {
            (
                Grade::Warn,
                "start the broker that is named: `systemctl start headwater-nats` where it is; it catches up by itself",
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
        for (brokers, grade, said) in [
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
                found.grade == grade && found.what.contains(said),
                "{found:?}"
            );
            assert_eq!(found.is_alarm, grade > Grade::Ok, "{found:?}");
        }
    }
}
