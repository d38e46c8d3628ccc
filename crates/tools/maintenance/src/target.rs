//! The projection that a command names, and its service.

use std::collections::BTreeSet;
use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use anyhow::bail;
use client::{Nats, Unreachable};
use headwater::operator::{Endpoint, RebuildRequest, RebuildStatus};
use survey::Topology;

/// A projection that can be rebuilt.
#[derive(Clone, Debug)]
pub struct Target {
    pub service: String,
    /// `None` if the service has only one.
    pub projection: Option<String>,
}

impl Target {
    /// The projection of this name, or the only projection of the service of this name.
    pub(crate) async fn named(nats: &Nats, name: String) -> anyhow::Result<Self> {
        if !nats.instances().await?.contains_key(&name) {
            let topology = Topology::look(nats, &BTreeSet::new(), Duration::ZERO).await?;
            if let [service] = having(&topology, &name)[..] {
                return Ok(Self {
                    service: service.clone(),
                    projection: Some(name),
                });
            }
        }
        // The request to an unknown service returns the error.
        Ok(Self {
            service: name,
            projection: None,
        })
    }

    /// Calls `rebuild`, `fold` or `fold.stop`.
    pub async fn ask(
        &self,
        nats: &Nats,
        endpoint: Endpoint,
    ) -> Result<RebuildStatus, client::Error> {
        let request = RebuildRequest {
            projection: self.projection.clone(),
            is_partial: false,
        };
        nats.ask(&self.service, endpoint, &request).await
    }

    /// Calls `verify`. `is_partial`: see [`RebuildRequest`].
    pub(crate) async fn verify(
        &self,
        nats: &Nats,
        is_partial: bool,
    ) -> Result<RebuildStatus, client::Error> {
        let request = RebuildRequest {
            projection: self.projection.clone(),
            is_partial,
        };
        nats.ask(&self.service, Endpoint::Verify, &request).await
    }
}

impl Display for Target {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match &self.projection {
            Some(projection) if *projection != self.service => {
                write!(f, "{projection} of {}", self.service)
            }
            _ => f.write_str(&self.service),
        }
    }
}

/// A projection on the command line.
#[derive(Clone, Debug, clap::Args)]
pub struct Which {
    /// The projection's name, from `list`
    #[arg(value_name = "PROJECTION")]
    pub projection: String,

    /// The service that owns the projection, if several have one of this name
    #[arg(long, value_name = "NAME", env = "HEADWATER_SERVICE")]
    pub service: Option<String>,
}

impl Which {
    /// The service that has the projection. Returns [`Unreachable`] if a service that does not
    /// answer may have it.
    pub(crate) async fn service(&self, nats: &Nats) -> anyhow::Result<String> {
        if let Some(service) = &self.service {
            return Ok(service.clone());
        }
        let name = &self.projection;
        let mut topology = Topology::look(nats, &BTreeSet::new(), Duration::ZERO).await?;
        match having(&topology, name).as_slice() {
            [service] => return Ok((*service).clone()),
            [] => {}
            several => bail!(
                "several services have a projection {name}; choose one with --service: {}",
                several
                    .iter()
                    .map(|it| &***it)
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        }
        let is_it = |away: &mut Unreachable| matches!(away, Unreachable::Projection { projection, .. } if projection == name);
        if let Some(away) = topology.unreachable.extract_if(.., is_it).next() {
            return Err(away.into());
        }
        let names: BTreeSet<&str> = topology.projections().map(|(_, it)| &*it.name).collect();
        let names: Vec<&str> = names.into_iter().collect();
        bail!(
            "there is no projection {name}; there are: {}",
            names.join(", ")
        )
    }
}

/// The services that have a projection of this name.
fn having<'a>(topology: &'a Topology, name: &str) -> Vec<&'a String> {
    let having = topology.projections().filter(|(_, it)| it.name == name);
    having.map(|(service, _)| service).collect()
}
