//! How a broker is to run.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use crate::member::Member;

/// How a broker is to run; `Options { port: Port::Fixed(4222), ..Options::new(store) }`.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder for `nats-server.conf` and the JetStream data (`jetstream/`); made if it is not there.
    pub store: PathBuf,
    /// Where to listen, on 127.0.0.1.
    pub port: Port,
    /// When stored events reach the disk.
    pub sync: Sync,
    /// Where the server's log goes.
    pub log: Log,
    /// How long it may take from the start until JetStream answers; a large store after a crash takes its time.
    pub ready_within: Duration,
    /// A file in the store's folder that the configuration includes: users, TLS.
    pub include: Option<String>,
    /// Its part in a [`Cluster`](crate::Cluster), which gives it.
    pub member: Option<Member>,
}

impl Options {
    /// A free port, [`Sync::Always`], no log, ready within 10 s, alone.
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

/// Where to listen, on 127.0.0.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// One that the operating system chooses; a restart keeps it.
    Free,
    /// This one, or an [`Error::PortTaken`](crate::Error::PortTaken).
    Fixed(u16),
}

/// When stored events reach the disk; why it matters is in the crate's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// Before they are acknowledged.
    Always,
    /// Every two minutes, the server's default: what was acknowledged may be lost in a power cut.
    Default,
}

/// Where the server's log goes; its last lines are kept for errors in any case.
#[derive(Clone)]
pub enum Log {
    /// Nowhere.
    Null,
    /// To the end of this file.
    File(PathBuf),
    /// Line by line to this function, on a thread of its own; while it blocks, the server may block.
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
