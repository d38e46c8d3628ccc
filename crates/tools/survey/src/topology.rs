//! The sources with their streams, the services and the projections that exist, and those that are
//! missing.
//!
//! None of it is compiled in. Services answer requests; streams, consumers and the schema bucket
//! name their owners. What never ran is only known from a [`Plan`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream::stream::Info;
use async_nats::service;
use client::{Nats, Unreachable};
use futures_util::TryStreamExt as _;
use headwater::operator::{ProjectionStatus, StatusAnswer};
use headwater::replicas::{Replicas, is_no_quorum};
use headwater::{causes, schema, stream};
use tokio::time::Instant;

use crate::brokers::Brokers;
use crate::plan::Plan;

/// What was found, and what is missing.
#[derive(Debug)]
pub struct Topology {
    /// The status of each service.
    pub services: BTreeMap<String, StatusAnswer>,
    /// The instances of each service.
    pub(crate) instances: BTreeMap<String, Vec<service::Info>>,
    /// The source streams.
    pub(crate) streams: Vec<Stream>,
    /// The replicas of the schema bucket, if it exists.
    pub(crate) bucket: Option<Replicas>,
    /// Existing streams that do not report their state.
    pub(crate) silent: Vec<String>,
    /// The sources of the plan.
    pub(crate) planned: BTreeSet<String>,
    /// The sources to compare.
    pub sources: BTreeSet<String>,
    pub unreachable: Vec<Unreachable>,
    /// One sentence for each service with an unexpected answer.
    pub failed: Vec<String>,
}

/// A source's stream.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub(crate) source: String,
    /// Whether its metadata or a projection's consumer names the source. A manual edit may have
    /// replaced the metadata; then the stream's name and subjects decide.
    pub(crate) is_marked: bool,
    pub(crate) info: Info,
    pub(crate) readers: Vec<Reader>,
}

/// A consumer of a stream: of a projection, whose name it has, of its rebuild or verification, or
/// foreign.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    pub(crate) name: String,
    /// The projection, if the metadata names it. A manual edit may have replaced the metadata.
    pub(crate) projection: Option<String>,
    pub(crate) replicas: Replicas,
}

/// What JetStream knows of sources.
#[derive(Default)]
struct Found {
    streams: Vec<Stream>,
    bucket: Option<Replicas>,
    silent: Vec<String>,
    /// The sources that have published a schema.
    described: BTreeSet<String>,
}

impl Topology {
    /// Looks at everything, and waits up to `wait` for what should exist. `only`: these sources, or
    /// all if empty.
    pub async fn look(
        nats: &Nats,
        only: &BTreeSet<String>,
        wait: Duration,
    ) -> anyhow::Result<Self> {
        let found = found(nats, only).await?;
        let deadline = Instant::now() + wait;
        loop {
            let topology = Self::ask(nats, only, &Plan::default(), &found).await?;
            if topology.unreachable.is_empty() || Instant::now() >= deadline {
                return Ok(topology);
            }
        }
    }

    /// Looks once at everything that exists or is in the plan; without JetStream, only at services.
    pub(crate) async fn see(nats: &Nats, brokers: &Brokers, plan: &Plan) -> anyhow::Result<Self> {
        let all = BTreeSet::new();
        let found = if brokers.is_usable() {
            found(nats, &all).await?
        } else {
            Found::default()
        };
        Self::ask(nats, &all, plan, &found).await
    }

    /// All projections of services that answer, each with its service.
    pub fn projections(&self) -> impl Iterator<Item = (&String, &ProjectionStatus)> + Clone {
        self.services.values().flat_map(|status| {
            let projections = status.projections.iter();
            projections.map(move |projection| (&status.service, projection))
        })
    }

    /// The pairs of a source and a projection whose consumer is on the source's stream.
    pub fn consumers(&self) -> impl Iterator<Item = (&String, &String)> {
        self.streams.iter().flat_map(|stream| {
            let readers = stream.readers.iter();
            readers.filter_map(move |reader| Some((&stream.source, reader.projection.as_ref()?)))
        })
    }

    async fn ask(
        nats: &Nats,
        only: &BTreeSet<String>,
        plan: &Plan,
        found: &Found,
    ) -> anyhow::Result<Self> {
        let instances = nats.instances().await?;
        let mut names: BTreeSet<String> = instances.keys().chain(&plan.sources).cloned().collect();
        // Foreign streams may exist too.
        let is_ours = |source| names.contains(source) || found.described.contains(source);
        let streams = found.streams.iter();
        let streams = streams.filter(|stream| stream.is_marked || is_ours(&stream.source));
        let mut topology = Self {
            services: BTreeMap::new(),
            instances,
            streams: streams.cloned().collect(),
            bucket: found.bucket.clone(),
            silent: Vec::new(),
            planned: plan.sources.clone(),
            sources: BTreeSet::new(),
            unreachable: Vec::new(),
            failed: Vec::new(),
        };
        names.extend(topology.streams.iter().map(|stream| stream.source.clone()));
        names.extend(only.iter().cloned());
        for name in names.clone() {
            topology.ask_one(nats, name).await?;
        }
        topology.sources = topology.sources_of();
        // If a source is away and its stream is lost, only its projections know of it.
        for source in &topology.sources.clone() - &names {
            topology.ask_one(nats, source).await?;
        }
        names.extend(topology.sources.iter().chain(&found.described).cloned());
        topology.silent = found.silent_of(&names);
        if !only.is_empty() {
            topology.sources.retain(|source| only.contains(source));
        }
        topology.expect();
        Ok(topology)
    }

    async fn ask_one(&mut self, nats: &Nats, name: String) -> anyhow::Result<()> {
        match nats.status(&name).await {
            Ok(status) => drop(self.services.insert(name, status)),
            Err(client::Error::Unreachable(lost @ Unreachable::Broker { .. })) => {
                return Err(lost.into());
            }
            Err(client::Error::Unreachable(away)) => self.unreachable.push(away),
            Err(error) => self.failed.push(format!("{name}: {}", causes(&error))),
        }
        Ok(())
    }

    /// The sources that have a stream, have published a schema, or are read by a projection.
    fn sources_of(&self) -> BTreeSet<String> {
        let statuses = self.services.values();
        let written = statuses.filter(|status| status.head > 0);
        let read = self
            .projections()
            .flat_map(|(_, projection)| projection.positions.0.keys());
        written
            .map(|status| &status.service)
            .chain(read)
            .chain(self.streams.iter().map(|stream| &stream.source))
            .cloned()
            .collect()
    }

    /// Reports the projections that have a consumer but no service that answers.
    fn expect(&mut self) {
        let there = self.projections().map(|(_, projection)| &projection.name);
        let there: BTreeSet<&String> = there.collect();
        let read = self.streams.iter().flat_map(|stream| {
            let name = &stream.info.config.name;
            let readers = stream.readers.iter();
            readers.filter_map(move |reader| Some((reader.projection.as_ref()?, name)))
        });
        // If it reads several streams, one is enough.
        let missing: BTreeMap<&String, &String> = read
            .filter(|(projection, _)| !there.contains(projection))
            .collect();
        for (projection, stream) in missing {
            self.unreachable.push(Unreachable::Projection {
                projection: projection.clone(),
                stream: stream.clone(),
            });
        }
    }
}

impl Found {
    /// The streams of these sources, or of the bucket, that do not report their state.
    fn silent_of(&self, sources: &BTreeSet<String>) -> Vec<String> {
        let ours: BTreeSet<String> = sources.iter().map(|it| stream::name(it)).collect();
        let silent = self.silent.iter();
        let silent = silent.filter(|name| **name == bucket() || ours.contains(*name));
        silent.cloned().collect()
    }
}

/// The source that a stream belongs to by its name and subjects.
fn source_by_name(info: &Info) -> Option<String> {
    let [subject] = info.config.subjects.as_slice() else {
        return None;
    };
    let source = subject.strip_suffix(".>")?;
    (info.config.name == stream::name(source)).then(|| source.to_owned())
}

/// The stream of the schema bucket.
fn bucket() -> String {
    schema::bucket(1).name
}

/// The metadata of the streams and their consumers.
///
/// Returns [`Unreachable`] if the connection is lost or there is no quorum.
async fn found(nats: &Nats, only: &BTreeSet<String>) -> anyhow::Result<Found> {
    match list(nats, only).await {
        Ok(found) => Ok(found),
        Err(error) => {
            nats.expect_connected()?;
            if is_no_quorum(error.as_ref()) {
                return Err(Unreachable::Quorum.into());
            }
            Err(error).context("list the streams")
        }
    }
}

/// The state of all streams, and the names of those that do not report it: a list leaves out
/// streams without a leader.
async fn infos(nats: &Nats) -> anyhow::Result<(BTreeMap<String, Info>, Vec<String>)> {
    let (mut infos, mut silent) = (BTreeMap::new(), Vec::new());
    let mut listed = nats.jetstream.streams();
    while let Some(info) = listed.try_next().await? {
        infos.insert(info.config.name.clone(), info);
    }
    let mut names = nats.jetstream.stream_names();
    while let Some(name) = names.try_next().await? {
        if infos.contains_key(&name) {
            continue;
        }
        match nats.jetstream.get_stream(&name).await {
            Ok(stream) => drop(infos.insert(name, stream.cached_info().clone())),
            Err(_) => silent.push(name),
        }
    }
    Ok((infos, silent))
}

async fn list(nats: &Nats, only: &BTreeSet<String>) -> anyhow::Result<Found> {
    let (infos, silent) = infos(nats).await?;
    let bucket = infos.get(&bucket());
    let bucket = bucket.map(|info| Replicas::of_stream(info, 1));
    let mut streams = Vec::new();
    for info in infos.into_values() {
        let metadata = &info.config.metadata;
        let is_ours = metadata
            .get("headwater.kind")
            .is_some_and(|kind| kind == "events");
        let marked = metadata.get("headwater.source").filter(|_| is_ours);
        let source = marked.cloned().or_else(|| source_by_name(&info));
        let Some(source) = source.filter(|source| only.is_empty() || only.contains(source)) else {
            continue;
        };
        let readers = readers(nats, &info).await?;
        streams.push(Stream {
            source,
            is_marked: marked.is_some() || readers.iter().any(|it| it.projection.is_some()),
            info,
            readers,
        });
    }
    streams.sort_by(|one, other| one.source.cmp(&other.source));
    let is_fully_marked = silent.is_empty() && streams.iter().all(|stream| stream.is_marked);
    Ok(Found {
        described: if is_fully_marked || bucket.is_none() {
            BTreeSet::new()
        } else {
            described(nats).await.unwrap_or_default()
        },
        streams,
        bucket,
        silent,
    })
}

/// The sources that have an entry in the schema bucket.
async fn described(nats: &Nats) -> anyhow::Result<BTreeSet<String>> {
    let stream = nats.jetstream.get_stream_no_info(bucket()).await?;
    let entries = stream.info_with_subjects(">").await?;
    let subjects: Vec<(String, usize)> = entries.try_collect().await?;
    let keys = subjects
        .iter()
        .filter_map(|(subject, _)| subject.rsplit('.').next());
    Ok(keys.map(str::to_owned).collect())
}

/// The consumers of a stream; a stream without a leader does not report them.
async fn readers(nats: &Nats, info: &Info) -> anyhow::Result<Vec<Reader>> {
    let mut readers = Vec::new();
    if Replicas::of_stream(info, 1).is_leaderless() {
        return Ok(readers);
    }
    let stream = nats.jetstream.get_stream_no_info(&info.config.name).await?;
    let mut consumers = stream.consumers();
    while let Some(consumer) = consumers.try_next().await? {
        let projection = consumer.config.metadata.get("headwater.projection");
        let name = format!("the consumer {} of {}", consumer.name, info.config.name);
        let configured = match consumer.config.num_replicas {
            0 => info.config.num_replicas,
            replicas => replicas,
        };
        readers.push(Reader {
            projection: projection.cloned(),
            replicas: Replicas::of(&name, configured, 1, consumer.cluster.as_ref()),
            name: consumer.name,
        });
    }
    Ok(readers)
}
