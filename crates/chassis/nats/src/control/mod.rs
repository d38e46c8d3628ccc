//! The admin endpoints of a service: the [endpoints](Endpoint) on the NATS Services API for
//! operators and other services, with the types of their requests and answers. The crate
//! `headwater` answers them.

mod backup;
mod endpoint;
mod events;
mod letters;
pub mod rebuild;
mod status;

pub use backup::{BackupCopy, BackupRequest, BackupState, BackupStatus};
pub use endpoint::{Endpoint, ask};
pub use events::{EventsAnswer, EventsRequest, fetch_events};
pub use letters::{
    DISCARD_MAX, DiscardAnswer, DiscardManyAnswer, DiscardRequest, Filter, InOutbox, Letter,
    ListAnswer, ListRequest, RetryAnswer, RetryRequest, ShowRequest,
};
pub use rebuild::{
    Difference, Differences, RebuildPurpose, RebuildRequest, RebuildState, RebuildStatus,
    ReplayRequest, Side,
};
pub use status::{
    Pause, PauseRequest, ProjectionStatus, ResumeRequest, SourceStatus, StatusAnswer, StatusRequest,
};
