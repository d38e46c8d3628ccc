//! The flags of `headwater verify`.

use std::time::Duration;

use terminal::output::duration;

/// Verify that streams and projections agree with the outboxes
///
/// Compares each source's outbox with its stream, event by event, and the tables of each projection
/// with a rebuild from the outboxes. Services continue to run meanwhile.
///
/// Exit codes: 0 all agree, 1 other failure, 2 usage error, 3 something differs, 4 the broker or a
/// service cannot be reached.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Verify only this source and the projections that read it; can be repeated
    #[arg(
        long = "source",
        value_name = "SOURCE",
        env = "HEADWATER_VERIFY_SOURCES",
        value_delimiter = ','
    )]
    pub sources: Vec<String>,

    /// Time for relays and projections to catch up, and for services to answer
    #[arg(long, value_name = "SECONDS", env = "HEADWATER_VERIFY_WAIT", default_value = "10", value_parser = duration)]
    pub wait: Duration,
}
