//! The flags of `headwater verify`.

use std::time::Duration;

use terminal::output::duration;

/// Prove that all copies agree
///
/// Compares each source's outbox with its stream, event by event, and the tables of each
/// projection with a fold of the outboxes, while everything goes on running.
///
/// Exit codes: 0 all agree, 3 something differs, 4 the broker or a service cannot be reached, 2
/// the command line cannot be followed, 1 anything else.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Only this source and the projections that read it; may be given again
    #[arg(
        long = "source",
        value_name = "SOURCE",
        env = "HEADWATER_VERIFY_SOURCES",
        value_delimiter = ','
    )]
    pub sources: Vec<String>,

    /// How long relays and projections have to catch up, and services to answer
    #[arg(long, value_name = "SECONDS", env = "HEADWATER_VERIFY_WAIT", default_value = "10", value_parser = duration)]
    pub wait: Duration,
}
