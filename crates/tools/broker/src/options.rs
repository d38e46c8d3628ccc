//! Options of a broker.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use crate::member::Member;

/// Options of a broker; `Options { port: Port::Fixed(4222), ..Options::new(store) }`.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder for `nats-server.conf` and the JetStream data (`jetstream/`); created if missing.
    pub store: PathBuf,
    /// The port on 127.0.0.1.
    pub port: Port,
    /// When stored events are synced to disk.
    pub sync: Sync,
    /// Where the server's log goes.
    pub log: Log,
    /// How long a start may take until JetStream answers; a large store takes time after a crash.
    pub ready_within: Duration,
    /// A file in the store's folder that the configuration includes, for users or TLS.
    pub include: Option<String>,
    /// Set by a [`Cluster`](crate::Cluster).
    pub member: Option<Member>,
}

impl Options {
    /// A free port, [`Sync::Always`], no log, ready within 10 s, no cluster.
    pub fn new(store: impl Into<PathBuf>) -> Self {
        Self {
            store: store.into(),
            port: Port::Free,
            sync: Sync::Always,
            log: Log::Null,
            ready_within: Duration::from_secs(10),
            include: None,
            member: None,
        }
    }
}

/// A port on 127.0.0.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// Chosen by the operating system; a restart keeps it.
    Free,
    /// This one, or an [`Error::PortTaken`](crate::Error::PortTaken).
    Fixed(u16),
}

/// When stored events are synced to disk; the crate's documentation explains why it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// Before they are acknowledged.
    Always,
    /// Every two minutes, the server's default: a power cut may lose acknowledged events.
    Default,
}

/// Where the server's log goes. Its last lines are always kept for errors.
#[derive(Clone)]
pub enum Log {
    /// Nowhere.
    Null,
    /// To the end of this file.
    File(PathBuf),
    /// Line by line to this function, on a separate thread; while it blocks, the server may block.
    Lines(Arc<dyn Fn(&str) + Send + std::marker::Sync>),
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("Null"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Lines(_) => f.write_str("Lines"),
        }
    }
}
