//! The copies that brokers keep of a stream or a consumer: how many there should be, how many are
//! up to date, and what becomes of it when one more is lost.
//!
//! A stream in three copies takes events while two of them are up to date. So one that is away
//! stops nothing, and nobody would notice; the next one does.

use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::stream::{ClusterInfo, Info, PeerInfo};
use headwater_telemetry::causes;
use headwater_telemetry::health::{Health, State};
use serde::Serialize;

/// For how long a copy may be silent: brokers hear of each other every second, and take one for
/// away after ten.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// What waits while JetStream has no leader, and what goes on.
pub const WITHOUT_QUORUM: &str = "reads go on, writes are accepted and published later";

/// The copies of a stream or of a consumer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Replicas {
    /// Of what.
    #[serde(skip)]
    pub name: String,
    /// How many there should be: as it is configured, or as whoever looks was told, if that is more.
    #[serde(rename = "replicas_wanted")]
    pub wanted: usize,
    /// As it is configured.
    #[serde(rename = "replicas")]
    pub configured: usize,
    /// How many are up to date, the leader's among them; none without a leader.
    #[serde(rename = "replicas_current")]
    pub current: usize,
    /// The broker that leads it.
    pub leader: Option<String>,
    /// Those that are not up to date.
    #[serde(rename = "replicas_away")]
    pub away: Vec<Away>,
}

/// A copy that is not up to date.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Away {
    /// Its broker.
    pub broker: String,
    /// Seconds since the present leader heard from it; 0 if it never did.
    pub unseen_s: u64,
    /// Whether it is there and catches up.
    pub is_behind: bool,
}

impl Away {
    fn of(peer: &PeerInfo) -> Self {
        let is_seen = !peer.active.is_zero() && peer.active <= SILENCE_MAX;
        Self {
            broker: peer.name.clone(),
            unseen_s: peer.active.as_secs(),
            is_behind: is_seen && !peer.offline,
        }
    }

    fn text(&self, is_timed: bool) -> String {
        let Self {
            broker, unseen_s, ..
        } = self;
        match (self.is_behind, *unseen_s) {
            (true, _) => format!("{broker} is catching up"),
            (false, 1..) if is_timed => format!("{broker} not seen for {unseen_s} s"),
            (false, _) => format!("{broker} not seen"),
        }
    }
}

impl Replicas {
    /// Those of a stream, where at least `wanted` are to be kept.
    pub fn of_stream(info: &Info, wanted: usize) -> Self {
        let config = &info.config;
        Self::of(
            &config.name,
            config.num_replicas,
            wanted,
            info.cluster.as_ref(),
        )
    }

    /// Those of `name`, of which `configured` copies are kept. A broker alone says nothing of them.
    pub fn of(name: &str, configured: usize, wanted: usize, cluster: Option<&ClusterInfo>) -> Self {
        let configured = configured.max(1);
        let leader = cluster.and_then(|cluster| cluster.leader.clone());
        let leader = leader.filter(|leader| !leader.is_empty());
        let peers = cluster.map_or(&[][..], |cluster| &cluster.replicas);
        let is_current = |peer: &&PeerInfo| peer.current && !peer.offline;
        let is_led = cluster.is_none() || leader.is_some();
        let current = if is_led {
            1 + peers.iter().filter(is_current).count()
        } else {
            0
        };
        Self {
            name: name.to_owned(),
            wanted: configured.max(wanted),
            configured,
            current: current.min(configured),
            leader,
            away: peers
                .iter()
                .filter(|peer| !is_current(peer))
                .map(Away::of)
                .collect(),
        }
    }

    /// Nobody leads a stream of which `wanted` copies are to be kept.
    pub fn none(name: &str, wanted: usize) -> Self {
        Self {
            name: name.to_owned(),
            wanted,
            configured: wanted,
            current: 0,
            leader: None,
            away: Vec::new(),
        }
    }

    /// Whether nobody leads it: nothing can be published to it, or read from it.
    pub fn is_leaderless(&self) -> bool {
        self.current == 0
    }

    /// Whether more than half of them are up to date: without, nothing is taken.
    pub fn has_quorum(&self) -> bool {
        self.current * 2 > self.configured
    }

    /// What is not as it should be, if anything, without the name. `is_timed`: with for how long.
    pub fn trouble(&self, is_timed: bool) -> Option<String> {
        let Self {
            wanted,
            configured,
            current,
            ..
        } = self;
        let away = self.away.iter().map(|away| away.text(is_timed));
        let away: Vec<String> = away.collect();
        let away = match away.as_slice() {
            [] => String::new(),
            away => format!(", {}", away.join(", ")),
        };
        if self.is_leaderless() {
            let quorum = configured / 2 + 1;
            return Some(format!(
                "{LEADERLESS}{away}: of its {configured} replicas {quorum} have to be there; \
                 {WITHOUT_QUORUM}"
            ));
        }
        if current < configured {
            return Some(format!(
                "has {current} of {configured} replicas current{away}; {}",
                self.next_loss()
            ));
        }
        (configured < wanted).then(|| {
            format!(
                "is kept in {configured} of {wanted} replicas: `headwater provision --replicas {wanted}`, \
                 with as many brokers"
            )
        })
    }

    /// What a further loss does.
    fn next_loss(&self) -> String {
        let quorum = self.configured / 2 + 1;
        match self.current.checked_sub(quorum) {
            None => format!("publishing has stopped; {WITHOUT_QUORUM}"),
            Some(0) => "one more failure stops publishing".to_owned(),
            Some(spare) => format!("{} more failures stop publishing", spare + 1),
        }
    }

    /// Says so in `/readyz?verbose`, as long as it lasts, and in the gauges.
    pub fn note(&self, health: &Health) {
        let part = format!("{PART}{}", self.name);
        match self.trouble(false) {
            Some(trouble) => health.set(&part, State::Degraded(trouble)),
            None => health.forget(&part),
        }
        #[expect(clippy::cast_precision_loss, reason = "a few")]
        for (gauge, value) in [
            ("headwater_stream_replicas", self.wanted as f64),
            ("headwater_stream_replicas_current", self.current as f64),
        ] {
            metrics::gauge!(gauge, "stream" => self.name.clone()).set(value);
        }
    }
}

/// What the names of the lines in `/readyz?verbose` begin with, which are there while a stream
/// lacks copies.
pub const PART: &str = "stream ";

/// What is said of what nobody leads, after its name.
pub const LEADERLESS: &str = "has no leader";

/// What parts say while JetStream has no leader.
pub const NO_QUORUM: &str = "no quorum: too few brokers are there";

/// Whether it failed because brokers have nobody who leads them. The code comes inside of errors of
/// many types.
pub fn is_no_quorum(error: &anyhow::Error) -> bool {
    let code = format!("error code {}", ErrorCode::CLUSTER_NOT_AVAILABLE.0);
    causes(error).contains(&code)
}

/// Why a part waits.
pub fn why(error: &anyhow::Error) -> String {
    if is_no_quorum(error) {
        format!("{NO_QUORUM}; it goes on by itself when they are back")
    } else {
        causes(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(name: &str, current: bool, active_s: u64) -> PeerInfo {
        PeerInfo {
            name: name.to_owned(),
            current,
            active: Duration::from_secs(active_s),
            ..PeerInfo::default()
        }
    }

    fn of(configured: usize, leader: Option<&str>, replicas: Vec<PeerInfo>) -> Replicas {
        let cluster = ClusterInfo {
            leader: leader.map(str::to_owned),
            replicas,
            ..ClusterInfo::default()
        };
        Replicas::of("ORDERS", configured, 1, Some(&cluster))
    }

    #[test]
    fn one_that_is_away_is_named_with_what_the_next_one_does() {
        let all = of(3, Some("a"), vec![peer("b", true, 1), peer("c", true, 1)]);
        assert_eq!((all.current, all.trouble(true)), (3, None));
        let two = of(3, Some("a"), vec![peer("b", true, 1), peer("c", false, 42)]);
        let said =
            "has 2 of 3 replicas current, c not seen for 42 s; one more failure stops publishing";
        assert_eq!(two.trouble(true).as_deref(), Some(said));
        let said = "has 2 of 3 replicas current, c not seen; one more failure stops publishing";
        assert_eq!(two.trouble(false).as_deref(), Some(said));
        let behind = of(3, Some("a"), vec![peer("b", true, 1), peer("c", false, 1)]);
        let said = behind.trouble(true).unwrap();
        assert!(said.contains("c is catching up"), "{said}");
        let mut offline = peer("c", true, 3);
        offline.offline = true;
        assert_eq!(
            of(3, Some("a"), vec![peer("b", true, 1), offline]).current,
            2
        );
    }

    #[test]
    fn five_may_lose_two_and_three_no_second() {
        let current = |name| peer(name, true, 1);
        let away = |name| peer(name, false, 60);
        let four = of(
            5,
            Some("a"),
            vec![current("b"), current("c"), current("d"), away("e")],
        );
        let said = four.trouble(true).unwrap();
        assert!(said.ends_with("2 more failures stop publishing"), "{said}");
        let one = of(3, Some("a"), vec![away("b"), away("c")]);
        let said = one.trouble(true).unwrap();
        assert!(
            said.contains("1 of 3") && said.contains("publishing has stopped"),
            "{said}"
        );
    }

    #[test]
    fn without_a_leader_none_is_current() {
        let peers = vec![peer("a", true, 0), peer("b", false, 9), peer("c", false, 9)];
        let none = of(3, None, peers);
        assert!(none.is_leaderless());
        let said = none.trouble(true).unwrap();
        assert!(
            said.starts_with("has no leader") && said.contains("2 have to be there"),
            "{said}"
        );
    }

    #[test]
    fn a_broker_alone_has_nothing_to_say_unless_more_copies_are_wanted() {
        let alone = Replicas::of("ORDERS", 1, 1, None);
        assert_eq!((alone.current, alone.trouble(true)), (1, None));
        let one = of(1, Some("a"), Vec::new());
        assert_eq!(one.trouble(true), None);
        let fewer = Replicas::of("ORDERS", 1, 3, None);
        let said = fewer.trouble(true).unwrap();
        assert!(
            said.contains("1 of 3 replicas") && said.contains("--replicas 3"),
            "{said}"
        );
    }
}
