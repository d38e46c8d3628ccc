//! The state of the whole shop at one moment, which `status`, `check`, `doctor` and `projection`
//! present.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use client::{Nats, Tail, first_position};
use futures_util::future::join_all;
use headwater::Clock;
use headwater::health::State;
use headwater::operator::{Endpoint, EventsAnswer, EventsRequest, ProjectionStatus, SourceStatus};
use headwater::projection::Pause;
use headwater::replicas::Replicas;
use serde::Serialize;
use terminal::table::count;

use crate::brokers::Brokers;
use crate::plan::Plan;
use crate::topology::{self, Topology};

/// The state of the shop.
#[derive(Debug, Serialize)]
pub struct Survey {
    /// The time of the survey, in milliseconds since 1970.
    pub at_ms: i64,
    pub brokers: Brokers,
    pub services: Vec<Service>,
    pub streams: Vec<Stream>,
    /// The replicas of everything but source streams: the schema bucket and the consumers.
    pub groups: Vec<Group>,
    /// Existing streams that do not report their state: they have no leader.
    pub silent: Vec<String>,
    pub relays: Vec<Relay>,
    pub projections: Vec<Projection>,
    /// One sentence for each service that is missing or gives an invalid answer.
    pub missing: Vec<String>,
    /// The topology that the survey is based on.
    #[serde(skip)]
    pub topology: Topology,
}

#[derive(Debug, Serialize)]
pub struct Service {
    pub name: String,
    pub instances: Vec<Instance>,
    /// The states of its components, as one instance reports them.
    pub parts: BTreeMap<String, State>,
}

impl Service {
    /// The versions of its instances.
    pub fn versions(&self) -> BTreeSet<&str> {
        let instances = self.instances.iter();
        instances.map(|instance| &*instance.version).collect()
    }
}

#[derive(Debug, Serialize)]
pub struct Instance {
    pub id: String,
    pub version: String,
}

#[derive(Debug, Serialize)]
pub struct Stream {
    pub name: String,
    pub source: String,
    /// When it was created, in milliseconds since 1970.
    pub created_ms: i64,
    pub events: u64,
    pub bytes: u64,
    pub first_sequence: u64,
    pub last_sequence: u64,
    #[serde(flatten)]
    pub replicas: Replicas,
    /// The limits by which the stream drops its oldest events.
    pub discards: Vec<String>,
    /// The position that the stream begins with, if it is later than the first.
    pub begins_at: Option<u64>,
}

/// Something else than a stream that brokers replicate.
#[derive(Debug, Serialize)]
pub struct Group {
    pub name: String,
    /// The stream, if this is a consumer.
    pub of: Option<String>,
    #[serde(flatten)]
    pub replicas: Replicas,
}

/// How much of a source's outbox is in its stream.
#[derive(Debug, Serialize)]
pub struct Relay {
    pub source: String,
    /// The newest position of the outbox; `None` while the source is away.
    pub head: Option<u64>,
    /// The newest position in the stream; `None` if unknown.
    pub published: Option<u64>,
    #[serde(flatten)]
    pub depth: Waiting,
    /// The state that the relay reports.
    pub state: Option<State>,
}

/// Waiting events. `None` if unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Waiting {
    /// The number of events.
    #[serde(rename = "waiting")]
    pub events: Option<u64>,
    /// The age of the oldest event in seconds; 0 if there is none.
    #[serde(rename = "oldest_s")]
    pub seconds: Option<f64>,
}

#[derive(Debug, Serialize)]
pub struct Projection {
    pub service: String,
    pub name: String,
    pub version: u32,
    pub is_complete: bool,
    pub can_rebuild: bool,
    pub paused: Option<Pause>,
    pub dead_letters: u64,
    pub sources: BTreeMap<String, Lag>,
}

/// How far a projection has applied one of its sources, and what it has met there.
#[derive(Clone, Debug, Serialize)]
pub struct Lag {
    pub position: u64,
    /// The source's newest position: of its outbox or, while the source is away, of its stream.
    pub head: Option<u64>,
    #[serde(flatten)]
    pub waiting: Waiting,
    /// What the projection reports about the source; a fault is added if it is ahead of the source.
    #[serde(flatten)]
    pub met: SourceStatus,
    /// The state that its reader of this source reports, if any.
    pub state: Option<State>,
}

impl Waiting {
    /// Whether events have waited longer than `limit`.
    pub(crate) fn is_older_than(self, limit: Duration) -> bool {
        self.events > Some(0) && self.seconds.is_none_or(|age| age > limit.as_secs_f64())
    }
}

impl Projection {
    /// The faults that an operator must act on, each with its source.
    pub(crate) fn faults(&self) -> impl Iterator<Item = (&String, &String)> {
        let sources = self.sources.iter();
        sources.flat_map(|(source, lag)| lag.met.faults.iter().map(move |fault| (source, fault)))
    }
}

impl Survey {
    /// Takes a survey. Returns [`Unreachable`](client::Unreachable) if the broker is away; other
    /// failures are in the survey.
    pub async fn take(nats: &Nats, plan: &Plan) -> anyhow::Result<Self> {
        let brokers = Brokers::look(nats).await?;
        Self::of(nats, brokers, plan).await
    }

    /// Takes the rest of a survey, given the brokers' state.
    pub(crate) async fn of(nats: &Nats, brokers: Brokers, plan: &Plan) -> anyhow::Result<Self> {
        let topology = Topology::see(nats, &brokers, plan).await?;
        let at_ms = Clock::system().now_ms();
        let streams = looked_at_again(nats, &topology).await;
        let look = Look {
            nats,
            topology: &topology,
            tails: tails(nats, &topology, &streams).await?,
            is_jetstream_up: brokers.is_usable(),
            at_ms,
        };
        let relays = join_all(look.sources().map(|source| look.relay(source))).await;
        let all = topology.projections();
        let projections = join_all(all.map(|(service, status)| look.projection(service, status)));
        let away = topology.unreachable.iter().map(ToString::to_string);
        let survey = Self {
            at_ms,
            brokers,
            services: services(&topology),
            groups: groups(&topology),
            silent: topology.silent.clone(),
            relays,
            projections: projections.await,
            missing: away.chain(topology.failed.iter().cloned()).collect(),
            streams: join_all(streams.iter().map(|stream| look.stream(stream))).await,
            topology,
        };
        nats.expect_connected()?;
        Ok(survey)
    }
}

fn services(topology: &Topology) -> Vec<Service> {
    let services = topology.services.iter().map(|(name, status)| {
        let instances = topology.instances.get(name).into_iter().flatten();
        Service {
            name: name.clone(),
            instances: instances
                .map(|info| Instance {
                    id: info.id.clone(),
                    version: info.version.clone(),
                })
                .collect(),
            parts: status.parts.clone(),
        }
    });
    services.collect()
}

fn groups(topology: &Topology) -> Vec<Group> {
    let group = |of: Option<&String>, replicas: &Replicas| Group {
        name: replicas.name.clone(),
        of: of.cloned(),
        replicas: replicas.clone(),
    };
    let bucket = topology.bucket.iter().map(|replicas| group(None, replicas));
    let consumers = topology.streams.iter().flat_map(|stream| {
        let name = &stream.info.config.name;
        let readers = stream.readers.iter();
        readers.map(move |reader| group(Some(name), &reader.replicas))
    });
    bucket.chain(consumers).collect()
}

impl Stream {
    fn of(stream: &topology::Stream, begins_at: Option<u64>) -> Self {
        let (config, state) = (&stream.info.config, &stream.info.state);
        let created_ms = stream.info.created.unix_timestamp_nanos() / 1_000_000;
        Self {
            name: config.name.clone(),
            source: stream.source.clone(),
            created_ms: i64::try_from(created_ms).unwrap_or(i64::MAX),
            events: state.messages,
            bytes: state.bytes,
            first_sequence: state.first_sequence,
            last_sequence: state.last_sequence,
            replicas: Replicas::of_stream(&stream.info, 1),
            discards: headwater::stream::discards(config),
            begins_at,
        }
    }
}

/// Reads the streams again after the outboxes: events published in between do not wait.
async fn looked_at_again(nats: &Nats, topology: &Topology) -> Vec<topology::Stream> {
    let look = topology.streams.iter().map(async |stream| {
        let now = nats.jetstream.get_stream(&stream.info.config.name).await;
        let info = now.map(|now| now.cached_info().clone());
        topology::Stream {
            info: info.unwrap_or_else(|_| stream.info.clone()),
            ..stream.clone()
        }
    });
    join_all(look).await
}

/// The ends of the streams, by source; `None` if unknown.
async fn tails(
    nats: &Nats,
    topology: &Topology,
    streams: &[topology::Stream],
) -> anyhow::Result<BTreeMap<String, Option<Tail>>> {
    let mut tails = BTreeMap::new();
    for stream in streams {
        if Replicas::of_stream(&stream.info, 1).is_leaderless() {
            tails.insert(stream.source.clone(), None);
            continue;
        }
        let epoch = topology
            .services
            .get(&stream.source)
            .map(|status| &*status.epoch);
        let tail = Tail::read(nats, &stream.info, &stream.source, epoch).await?;
        tails.insert(stream.source.clone(), tail);
    }
    Ok(tails)
}

/// The data of one survey.
struct Look<'a> {
    nats: &'a Nats,
    topology: &'a Topology,
    tails: BTreeMap<String, Option<Tail>>,
    /// Whether JetStream is usable.
    is_jetstream_up: bool,
    at_ms: i64,
}

impl Look<'_> {
    /// The sources: each has a stream, or a relay that has not created it yet.
    fn sources(&self) -> impl Iterator<Item = &String> {
        let (streams, services) = (&self.topology.streams, &self.topology.services);
        let relays = services
            .values()
            .filter(|status| status.parts.contains_key("relay"));
        let names: BTreeSet<&String> = streams
            .iter()
            .map(|stream| &stream.source)
            .chain(relays.map(|status| &status.service))
            .collect();
        names.into_iter()
    }

    async fn stream(&self, stream: &topology::Stream) -> Stream {
        let status = self.topology.services.get(&stream.source);
        let epoch = status.map(|status| &*status.epoch);
        let first = match self.tails.get(&stream.source) {
            // It has no leader, or its first events are not the source's.
            None | Some(None) => None,
            Some(_) => first_position(self.nats, &stream.info, &stream.source, epoch).await,
        };
        Stream::of(stream, first.filter(|&position| position > 1))
    }

    /// Whether the source's stream exists but does not report its state.
    fn is_silent(&self, source: &str) -> bool {
        let name = headwater::stream::name(source);
        self.topology.silent.contains(&name)
    }

    async fn relay(&self, source: &str) -> Relay {
        let status = self.topology.services.get(source);
        let published = match self.tails.get(source) {
            Some(tail) => tail.as_ref().map(|tail| tail.position),
            None if self.is_jetstream_up && !self.is_silent(source) => Some(0),
            None => None,
        };
        let mut head = status.map(|status| status.head);
        if head.is_some() && head < published {
            // The outbox may have grown since.
            head = self.head(source).await.or(head);
        }
        let depth = match (head, published) {
            (Some(head), Some(published)) => self.waiting(source, published, head).await,
            _ => Waiting::default(),
        };
        Relay {
            source: source.to_owned(),
            head,
            published,
            depth,
            state: status.and_then(|status| status.parts.get("relay").cloned()),
        }
    }

    async fn projection(&self, service: &str, status: &ProjectionStatus) -> Projection {
        let parts = self
            .topology
            .services
            .get(service)
            .map(|status| &status.parts);
        let lags = status.positions.0.iter().map(async |(source, &position)| {
            let met = status.sources.get(source).cloned().unwrap_or_default();
            let part = format!("{} from {source}", status.name);
            let state = parts.and_then(|parts| parts.get(&part).cloned());
            let lag = self.lag(source, position, met).await;
            let lag = Lag { state, ..lag };
            (source.clone(), lag)
        });
        Projection {
            service: service.to_owned(),
            name: status.name.clone(),
            version: status.version,
            is_complete: status.is_complete,
            can_rebuild: status.can_rebuild,
            paused: status.paused.clone(),
            dead_letters: status.dead_letters,
            sources: join_all(lags).await.into_iter().collect(),
        }
    }

    async fn lag(&self, source: &str, position: u64, mut met: SourceStatus) -> Lag {
        let status = self.topology.services.get(source);
        let of_stream = self.tails.get(source).and_then(Option::as_ref);
        let mut head = status
            .map(|status| status.head)
            .or_else(|| of_stream.map(|tail| tail.position));
        if status.is_some() && head < Some(position) {
            // The outbox may have grown since.
            head = self.head(source).await.or(head);
            let is_ahead = head.is_some_and(|head| head < position);
            if is_ahead && met.faults.is_empty() {
                met.faults.push(format!(
                    "applied up to {position} of {}: ahead of {source}",
                    count(head)
                ));
            }
        }
        let waiting = match head {
            Some(head) => self.waiting(source, position, head).await,
            None => Waiting::default(),
        };
        Lag {
            position,
            head,
            waiting,
            met,
            state: None,
        }
    }

    /// The newest position of a source, read now.
    async fn head(&self, source: &str) -> Option<u64> {
        let request = EventsRequest {
            from: 1,
            ..EventsRequest::default()
        };
        let asked = self.nats.ask(source, Endpoint::Events, &request);
        let answer: EventsAnswer = asked.await.ok()?;
        Some(answer.head)
    }

    /// The events after position `at` of a source whose newest position is `head`.
    async fn waiting(&self, source: &str, at: u64, head: u64) -> Waiting {
        let events = head.saturating_sub(at);
        let seconds = match events {
            0 => Some(0.0),
            _ => self.age(source, at + 1).await,
        };
        Waiting {
            events: Some(events),
            seconds,
        }
    }

    /// The age in seconds of the event at a position: from the outbox or, while the source is away,
    /// from the stream.
    async fn age(&self, source: &str, position: u64) -> Option<f64> {
        let recorded_ms = if let Some(recorded_ms) = self.recorded_ms(source, position).await {
            recorded_ms
        } else {
            let tail = self.tails.get(source)?.as_ref()?;
            tail.stored_ms(self.nats, source, position).await?
        };
        // The clocks of two machines differ slightly.
        let age_ms = u32::try_from(self.at_ms.saturating_sub(recorded_ms).max(0));
        Some(f64::from(age_ms.unwrap_or(u32::MAX)) / 1000.0)
    }

    async fn recorded_ms(&self, source: &str, position: u64) -> Option<i64> {
        self.topology.services.get(source)?;
        let request = EventsRequest {
            epoch: None,
            from: position,
            limit: 1,
            max_bytes: Some(0),
            offset: Some(0),
        };
        let answer: EventsAnswer = self
            .nats
            .ask(source, Endpoint::Events, &request)
            .await
            .ok()?;
        Some(answer.events.first()?.recorded_at)
    }
}
