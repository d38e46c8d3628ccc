//! The services of the shop, from the list of the crate `shop`: a service that has other styles runs
//! in each of them.

use std::sync::OnceLock;

use anyhow::Context as _;

use crate::args::workspace;

/// A service, which runs as a separate process: its number in [`listed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Service(usize);

#[derive(Debug)]
struct Listed {
    name: String,
    package: String,
    style: Option<String>,
    port: u16,
    colour: u8,
    is_source: bool,
}

/// The style of a service that has others, too.
const OWN_STYLE: &str = "replica";

static LISTED: OnceLock<Vec<Listed>> = OnceLock::new();

/// In the order of their ports.
fn listed() -> &'static [Listed] {
    LISTED.get_or_init(|| read().expect("the list of services is as it was read before"))
}

fn read() -> anyhow::Result<Vec<Listed>> {
    let services = shop::services(&workspace()).context("read the list of services")?;
    let mut listed = Vec::new();
    for service in services {
        listed.extend(service.styles.iter().map(|style| Listed {
            name: style.name.clone(),
            package: service.name.clone(),
            style: Some(style.style.clone()),
            port: style.port,
            colour: style.colour,
            is_source: false,
        }));
        listed.push(Listed {
            package: service.name.clone(),
            style: (!service.styles.is_empty()).then(|| OWN_STYLE.to_owned()),
            port: service.port,
            colour: service.colour,
            is_source: service.source,
            name: service.name,
        });
    }
    listed.sort_by_key(|service| service.port);
    Ok(listed)
}

impl Service {
    /// Reads the list.
    ///
    /// # Errors
    /// Those of [`shop::services`].
    pub(crate) fn load() -> anyhow::Result<()> {
        let read = read()?;
        LISTED.get_or_init(|| read);
        Ok(())
    }

    /// In the order of their ports.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..listed().len()).map(Self)
    }

    /// The service of this name.
    ///
    /// # Panics
    /// The shop has none.
    pub(crate) fn named(name: &str) -> Self {
        let found = Self::all().find(|service| service.name() == name);
        found.unwrap_or_else(|| panic!("the shop has a service {name}"))
    }

    /// The order in which they stop: readers before their sources.
    pub(crate) fn stop_order() -> Vec<Self> {
        let mut all: Vec<Self> = Self::all().collect();
        all.sort_by_key(|service| {
            let Listed {
                is_source, port, ..
            } = *service.listed();
            // A source may read those with smaller ports.
            let order = i32::from(port) * if is_source { -1 } else { 1 };
            (is_source, service.has_database(), order)
        });
        all
    }

    fn listed(self) -> &'static Listed {
        &listed()[self.0]
    }

    /// Its number in the order of their ports.
    pub(crate) fn number(self) -> usize {
        self.0
    }

    /// The distance of its port from the first one.
    pub(crate) fn offset(self) -> u16 {
        self.listed().port - listed()[0].port
    }

    /// The name of the service.
    pub(crate) fn name(self) -> &'static str {
        &self.listed().name
    }

    /// Its style, if the program has several.
    pub(crate) fn style(self) -> Option<&'static str> {
        self.listed().style.as_deref()
    }

    /// Whether it publishes events.
    pub(crate) fn is_source(self) -> bool {
        self.listed().is_source
    }

    /// Whether it has a database.
    pub(crate) fn has_database(self) -> bool {
        self.style().is_none_or(|style| style == OWN_STYLE)
    }

    /// The name of its package.
    pub(crate) fn package(self) -> &'static str {
        &self.listed().package
    }

    /// The name of its binary.
    pub(crate) fn binary(self) -> String {
        format!("headwater-{}", self.package())
    }

    /// The colour of its log lines, as an ANSI code.
    pub(crate) fn colour(self) -> u8 {
        self.listed().colour
    }
}
