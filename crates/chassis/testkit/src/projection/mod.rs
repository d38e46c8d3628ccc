//! Tests of projections and of outboxes, without a broker.

mod clock;
mod converge;
mod course;
mod given;
mod outbox;
mod report;
mod run;
mod store;

pub use clock::TestClock;
pub use converge::{Converges, converges};
pub use given::{Given, envelope};
pub use outbox::recorded;
pub use store::Store;
