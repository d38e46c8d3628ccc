//! The replicas of a stream or consumer: how many are wanted, how many are current, and what
//! happens if another one is lost.
//!
//! A stream with three replicas takes events while two of them are current. So losing one stops
//! nothing and could go unnoticed, but losing a second one stops publishing.

use std::error::Error;
use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::stream::{ClusterInfo, Info, PeerInfo};
use headwater_telemetry::causes;
use headwater_telemetry::health::{Health, State};
use serde::Serialize;

/// A replica that is silent for longer counts as away. Brokers exchange messages every second, and
/// use the same limit.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// What continues and what waits while JetStream has no leader.
pub const WITHOUT_QUORUM: &str = "reads go on, writes are accepted and published later";

/// The replicas of a stream or consumer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Replicas {
    /// The stream or consumer.
    #[serde(skip)]
    pub name: String,
    /// The wanted number: in its configuration or this program's, whichever is higher.
    #[serde(rename = "replicas_wanted")]
    pub wanted: usize,
    /// The number in its configuration.
    #[serde(rename = "replicas")]
    pub configured: usize,
    /// The number of current replicas, including the leader; 0 without a leader.
    #[serde(rename = "replicas_current")]
    pub current: usize,
    /// The broker that leads it.
    pub leader: Option<String>,
    /// The replicas that are not current.
    #[serde(rename = "replicas_away")]
    pub away: Vec<Away>,
}

/// A replica that is not current.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Away {
    /// Its broker.
    pub broker: String,
    /// Seconds since the present leader heard from it; 0 if it never did.
    pub unseen_s: u64,
    /// Whether it is reachable and catching up.
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
    /// The replicas of a stream that should have at least `wanted`.
    pub fn of_stream(info: &Info, wanted: usize) -> Self {
        let config = &info.config;
        Self::of(
            &config.name,
            config.num_replicas,
            wanted,
            info.cluster.as_ref(),
        )
    }

    /// The replicas of `name`, configured with `configured` replicas. `cluster` is `None` if the
    /// broker is alone.
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

    /// The replicas of a leaderless stream that should have `wanted`.
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

    /// Whether there is no leader: then no events can be published or read.
    pub fn is_leaderless(&self) -> bool {
        self.current == 0
    }

    /// Whether more than half of the replicas are current: otherwise the stream takes no events.
    pub fn has_quorum(&self) -> bool {
        self.current * 2 > self.configured
    }

    /// What is wrong, if anything, without the name. `is_timed` adds how long brokers were unseen.
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
                "{LEADERLESS}{away}: {quorum} of its {configured} replicas must be reachable; \
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
                "is kept in {configured} of {wanted} replicas: run `headwater provision --replicas \
                 {wanted}`, with as many brokers"
            )
        })
    }

    /// The effect of losing further replicas.
    fn next_loss(&self) -> String {
        let quorum = self.configured / 2 + 1;
        match self.current.checked_sub(quorum) {
            None => format!("publishing has stopped; {WITHOUT_QUORUM}"),
            Some(0) => "one more failure stops publishing".to_owned(),
            Some(spare) => format!("{} more failures stop publishing", spare + 1),
        }
    }

    /// Reports to `/readyz?verbose`, as long as something is wrong, and sets the gauges.
    pub fn note(&self, health: &Health) {
        let component = format!("{PART}{}", self.name);
        match self.trouble(false) {
            Some(trouble) => health.set(&component, State::Degraded(trouble)),
            None => health.forget(&component),
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

/// The prefix of the component in `/readyz?verbose` that exists while a stream lacks replicas.
pub const PART: &str = "stream ";

/// The trouble of a stream or consumer without a leader, after its name.
pub const LEADERLESS: &str = "has no leader";

/// The state of components while JetStream has no leader.
pub const NO_QUORUM: &str = "no quorum: too few brokers are reachable";

/// Whether the error is that JetStream has no leader. The code is inside errors of many types.
pub fn is_no_quorum(error: &(dyn Error + 'static)) -> bool {
    let code = format!("error code {}", ErrorCode::CLUSTER_NOT_AVAILABLE.0);
    causes(error).contains(&code)
}

/// Why a component waits.
pub fn why(error: &(dyn Error + 'static)) -> String {
    if is_no_quorum(error) {
        format!("{NO_QUORUM}; resumes automatically when they are back")
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
        let text =
            "has 2 of 3 replicas current, c not seen for 42 s; one more failure stops publishing";
        assert_eq!(two.trouble(true).as_deref(), Some(text));
        let text = "has 2 of 3 replicas current, c not seen; one more failure stops publishing";
        assert_eq!(two.trouble(false).as_deref(), Some(text));
        let behind = of(3, Some("a"), vec![peer("b", true, 1), peer("c", false, 1)]);
        let text = behind.trouble(true).unwrap();
        assert!(text.contains("c is catching up"), "{text}");
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
        let text = four.trouble(true).unwrap();
        assert!(text.ends_with("2 more failures stop publishing"), "{text}");
        let one = of(3, Some("a"), vec![away("b"), away("c")]);
        let text = one.trouble(true).unwrap();
        assert!(
            text.contains("1 of 3") && text.contains("publishing has stopped"),
            "{text}"
        );
    }

    #[test]
    fn without_a_leader_none_is_current() {
        let peers = vec![peer("a", true, 0), peer("b", false, 9), peer("c", false, 9)];
        let none = of(3, None, peers);
        assert!(none.is_leaderless());
        let text = none.trouble(true).unwrap();
        assert!(
            text.starts_with("has no leader") && text.contains("2 of its 3 replicas must be"),
            "{text}"
        );
    }

    #[test]
    fn a_broker_alone_has_nothing_to_say_unless_more_copies_are_wanted() {
        let alone = Replicas::of("ORDERS", 1, 1, None);
        assert_eq!((alone.current, alone.trouble(true)), (1, None));
        let one = of(1, Some("a"), Vec::new());
        assert_eq!(one.trouble(true), None);
        let fewer = Replicas::of("ORDERS", 1, 3, None);
        let text = fewer.trouble(true).unwrap();
        assert!(
            text.contains("1 of 3 replicas") && text.contains("--replicas 3"),
            "{text}"
        );
    }
}
