//! `io.nats.monitor.*`: metadata with the thresholds for `nats server check`.
//!
//! `nats server check stream --stream ORDERS` and `nats server check consumer` need no flags for
//! streams and consumers that this program has created: their thresholds are in their metadata.
//! An operator can change or delete a threshold with `nats stream edit ORDERS --metadata …` or
//! `nats consumer edit`, and the program keeps that change. To let a new version change defaults,
//! the program also records the thresholds that it wrote (`WRITTEN`). It may update an unchanged
//! threshold; a changed one is the operator's.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The prefix of the keys that `nats server check` reads.
const PREFIX: &str = "io.nats.monitor.";

/// The key that records the thresholds written by this program: `name=value`, separated by spaces.
const WRITTEN: &str = "headwater.monitor";

/// Thresholds for the number of subjects of a stream. 64 partitions per kind of event make some
/// hundreds; a key in a subject would make millions.
const SUBJECTS_WARN: u32 = 1_000;
const SUBJECTS_CRITICAL: u32 = 10_000;

/// Threshold for the lag of a stream's other replicas, in operations of the server.
const PEER_LAG_CRITICAL: u32 = 1_000;

/// Threshold for the time since the leader last saw the other replicas.
const PEER_SEEN_CRITICAL: &str = "10s";

/// Threshold for the number of events that a projection has not read. It applies what a service
/// publishes in seconds at full load, so a higher number means that it has stopped or is down.
const UNPROCESSED_CRITICAL: u32 = 10_000;

/// Threshold for the number of waiting pulls. A reader has one or two, so a higher number means
/// that several readers wrongly share a consumer.
const WAITING_CRITICAL: u32 = 32;

/// Thresholds by name, without the prefix.
pub(crate) type Thresholds = BTreeMap<&'static str, String>;

/// The thresholds of a stream with `replicas` replicas.
///
/// `lag-critical` is left out: it is for mirrors and streams with sources, and the check fails with
/// it on other streams. `peer-expect` is left out for one replica: that stream is not clustered.
pub(crate) fn of_stream(replicas: usize) -> Thresholds {
    let mut thresholds = Thresholds::from([
        ("enabled", "true".to_owned()),
        ("subjects-warn", SUBJECTS_WARN.to_string()),
        ("subjects-critical", SUBJECTS_CRITICAL.to_string()),
    ]);
    if replicas > 1 {
        thresholds.extend([
            ("peer-expect", replicas.to_string()),
            ("peer-lag-critical", PEER_LAG_CRITICAL.to_string()),
            ("peer-seen-critical", PEER_SEEN_CRITICAL.to_owned()),
        ]);
    }
    thresholds
}

/// The thresholds of a projection's consumer. There are none for acknowledgements, which it does
/// not use, nor for the time since the last event, because a source may be silent for days.
pub(crate) fn of_consumer() -> Thresholds {
    Thresholds::from([
        ("enabled", "true".to_owned()),
        ("unprocessed-critical", UNPROCESSED_CRITICAL.to_string()),
        ("waiting-critical", WAITING_CRITICAL.to_string()),
    ])
}

/// Whether this module writes the metadata entry `key`.
pub(crate) fn writes(key: &str) -> bool {
    key == WRITTEN || key.starts_with(PREFIX)
}

/// Writes `thresholds` into `metadata`, except those that an operator has set or deleted.
pub(crate) fn merge(metadata: &mut HashMap<String, String>, thresholds: &Thresholds) {
    let written = metadata.get(WRITTEN).cloned().unwrap_or_default();
    let written: BTreeMap<&str, &str> = written
        .split(' ')
        .filter_map(|pair| pair.split_once('='))
        .collect();
    let names: BTreeSet<&str> = written.keys().chain(thresholds.keys()).copied().collect();
    for name in names {
        let key = format!("{PREFIX}{name}");
        let is = metadata.get(&key).map(String::as_str);
        if is != written.get(name).copied() {
            continue;
        }
        match thresholds.get(name) {
            Some(value) => metadata.insert(key, value.clone()),
            None => metadata.remove(&key),
        };
    }
    let pairs: Vec<String> = thresholds
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    if pairs.is_empty() {
        metadata.remove(WRITTEN);
    } else {
        metadata.insert(WRITTEN.to_owned(), pairs.join(" "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CRITICAL: &str = "io.nats.monitor.subjects-critical";
    const WARN: &str = "io.nats.monitor.subjects-warn";
    const PEERS: &str = "io.nats.monitor.peer-expect";

    fn merged(thresholds: &Thresholds) -> HashMap<String, String> {
        let mut metadata = HashMap::from([("theirs".to_owned(), "kept".to_owned())]);
        merge(&mut metadata, thresholds);
        metadata
    }

    #[test]
    fn what_is_missing_is_added_and_what_is_there_stays() {
        let metadata = merged(&of_stream(1));
        assert_eq!(metadata["io.nats.monitor.enabled"], "true");
        assert_eq!(metadata[WARN], "1000");
        assert_eq!(metadata["theirs"], "kept");
        assert!(!metadata.contains_key(PEERS));
        let mut again = metadata.clone();
        merge(&mut again, &of_stream(1));
        assert_eq!(again, metadata, "nothing to write a second time");
    }

    #[test]
    fn an_operators_threshold_stays_and_so_does_one_that_was_taken_away() {
        let mut metadata = merged(&of_stream(1));
        metadata.insert(CRITICAL.to_owned(), "77".to_owned());
        metadata.remove(WARN);
        for _ in 0..3 {
            merge(&mut metadata, &of_stream(3));
            assert_eq!(metadata[CRITICAL], "77");
            assert!(!metadata.contains_key(WARN));
            assert_eq!(metadata[PEERS], "3");
        }
    }

    #[test]
    fn one_that_an_operator_set_before_there_were_defaults_stays() {
        let mut metadata = HashMap::from([(CRITICAL.to_owned(), "77".to_owned())]);
        merge(&mut metadata, &of_stream(1));
        merge(&mut metadata, &of_stream(1));
        assert_eq!(metadata[CRITICAL], "77");
    }

    #[test]
    fn a_default_that_changes_arrives_and_one_that_is_gone_goes() {
        let mut metadata = merged(&of_stream(3));
        merge(&mut metadata, &of_stream(5));
        assert_eq!(metadata[PEERS], "5");
        merge(&mut metadata, &of_stream(1));
        assert!(!metadata.contains_key(PEERS));
    }
}
