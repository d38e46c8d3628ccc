//! Finds or installs nats-server and runs it as a child process, for `cargo dev`, the tests and the bench.
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
//! Tests say `Broker::start_in_temp()?` and get the same thing on a free port in a folder that goes with it.
//!
//! [`Cluster`] is three of them, with each stream on all three.
//!
//! All of it is synchronous and blocks: a start takes well under a second, [`find`] some 10 s the first time on a
//! machine (it installs), 20 ms afterwards.
//!
//! **Why `sync_interval: always`.** The server's default is to fsync every 2 minutes.
//! A power cut on a fresh stream then lost the whole stream in 5 of 5 runs, although every event had been
//! acknowledged; with `always` no acknowledged event was lost in 12 of 12.
//! An outbox that marks rows as sent on such an acknowledgement needs it to be true.
//! The price is about 1,000 single publishes a second; atomic batches win it back (26,000 events a second at 1,000 a
//! batch). [`Sync::Default`] is there to measure the difference.
//!
//! **Invariant:** a broker does not outlive the process that started it: dropped, it is killed and reaped; if the
//! process dies without dropping it, a watchdog kills it.
//!
//! **Invariant:** one store has one server: its configuration file is locked for as long as the server lives.

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
