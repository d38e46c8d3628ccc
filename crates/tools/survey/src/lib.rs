//! The state of a shop and its diagnosis, which `status`, `doctor` and `check` each present.

pub use plan::{Plan, source};
pub use survey::{Projection, Relay, Survey};
pub use topology::Topology;

mod brokers;
pub mod check;
mod diagnosis;
pub mod doctor;
mod finding;
mod limits;
pub mod plan;
mod replicas;
pub mod status;
mod survey;
mod topology;
