//! The state of a shop and its diagnosis, which `status`, `doctor` and `check` each present.

pub use diagnosis::troubles;
pub use finding::{Finding, Grade};
pub use plan::{Plan, source};
pub use survey::{Lag, Projection, Relay, Survey, Waiting};
pub use topology::Topology;

mod brokers;
pub mod check;
mod diagnosis;
pub mod doctor;
pub mod event;
mod finding;
mod limits;
pub mod plan;
mod replicas;
pub mod status;
mod survey;
mod topology;
