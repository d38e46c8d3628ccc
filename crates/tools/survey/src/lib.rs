//! What is there at one moment, and what of it is wrong: one survey and one diagnosis, which
//! `status`, `doctor` and `check` show, each in its way.

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
