//! The harness of the end-to-end tests: a [`World`] of all four services and a broker.
//!
//! Each service is a child process or a container. Its port and its database file stay the same
//! when the test stops or kills it and starts it again. The broker is a `nats-server` with
//! `sync_interval: always`, as shipped. Services and broker run in containers if a Docker daemon
//! answers, else as child processes; `HEADWATER_E2E` overrides that.

pub mod accounts;
pub mod backlog;
pub mod broker;
pub mod browser;
pub mod checkers;
pub mod client;
pub mod cluster;
pub mod collector;
pub mod data;
pub mod docker;
pub mod events;
pub mod faults;
pub mod hammer;
pub mod installed;
pub mod load;
pub mod locked;
pub mod model;
pub mod operator;
pub mod oracle;
pub mod process;
pub mod receiver;
pub mod styles;
pub mod systemd;
pub mod world;

pub use client::{Client, Reply};
pub use docker::Docker;
pub use process::Process;
pub use world::{Service, World};

pub use headwater_testkit::{
    PATIENCE, eventually, eventually_within, has_built, program, programs,
};
