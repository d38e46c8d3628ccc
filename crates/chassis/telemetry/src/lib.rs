//! The surroundings of a service: [logs](log), metrics and [traces](trace), the
//! [health](Health) of its components, the [supervisor](Supervisor) of its tasks, the
//! [service manager](systemd), and the [clock](Clock). It knows no database and no broker.

#![warn(missing_docs)]

mod causes;
pub mod clock;
pub mod crash;
mod duration;
mod error;
pub mod health;
mod journal;
mod lines;
mod list;
pub mod log;
mod otlp;
pub mod process;
mod renamed;
pub mod supervisor;
pub mod systemd;
pub mod trace;

pub use causes::causes;
pub use clock::Clock;
pub use duration::duration;
pub use error::{BoxError, Error};
pub use health::Health;
pub use lines::flush;
pub use log::{
    Config, Counted, Format, Telemetry, check, fail, init, metrics_handle, renew_filter,
    warn_when_started,
};
pub use otlp::{Config as TraceConfig, Sampler};
pub use process::note as note_process;
pub use renamed::with_old_names;
pub use supervisor::Supervisor;
