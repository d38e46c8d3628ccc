//! Finds or installs nats-server and runs it as a child process, for `cargo dev`, the tests and the
//! bench.
//!
//! ```no_run
//! # use broker::{Broker, Options};
//! let binary = broker::find(&|line| eprintln!("{line}"))?;
//! let mut broker = Broker::start(&binary, Options::new("target/dev/nats"))?;
//! println!("nats-server answers at {}", broker.url());
//! broker.stop()?;
//! # Ok::<(), broker::Error>(())
//! ```
//!
//! `Broker::start_in_temp()?` does the same for tests, on a free port and in a temporary folder.
//!
//! [`Cluster`] runs three of them, with each stream on all three.
//!
//! Everything is synchronous and blocks. A start takes well under a second. [`find`] takes about
//! ten seconds the first time on a machine, when it installs, and 20 ms afterwards.
//!
//! **Why `sync_interval: always`.** By default, the server calls fsync every 2 minutes. With that
//! default, a power cut lost a fresh stream completely in 5 of 5 runs, although every event had
//! been acknowledged. With `always`, no acknowledged event was lost in 12 of 12 runs. An outbox
//! that marks rows as sent needs acknowledgements to be true. The price: about 1,000 single
//! publishes per second. Atomic batches make up for it (26,000 events per second in batches of
//! 1,000). [`Sync::Default`] exists to measure the difference.
//!
//! **Invariant:** a broker does not outlive the process that started it. It is killed and reaped on
//! drop; if the process dies without dropping it, a watchdog kills it.
//!
//! **Invariant:** a store has at most one server: its configuration file is locked while the server
//! lives.

mod child;
mod cluster;
mod config;
mod deadline;
mod error;
mod find;
mod install;
mod member;
mod options;
mod paths;
mod ready;
mod server;
mod tail;
mod version;
mod watchdog;

pub use child::Child;
pub use cluster::{Cluster, free_listener};
pub use error::Error;
pub use find::{find, find_in};
pub use install::PINNED;
pub use member::Member;
pub use options::{Log, Options, Port, Sync};
pub use paths::{Binary, SearchPaths};
pub use server::Broker;
pub use tail::Tail;
pub use version::{OLDEST, Version};
pub use watchdog::Watchdog;
