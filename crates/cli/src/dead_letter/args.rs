//! The flags of `headwater dead-letter`.

use clap::ArgGroup;
use clap::builder::{FalseyValueParser, NonEmptyStringValueParser};

/// `list` and `discarded`.
#[derive(Clone, Debug, clap::Args)]
pub struct List {
    /// Only those of this service; all that answer otherwise
    #[arg(long, value_name = "NAME", env = "HEADWATER_SERVICE")]
    pub service: Option<String>,

    /// How many to list of each service, the oldest first
    #[arg(
        long,
        value_name = "N",
        env = "HEADWATER_DEAD_LETTER_LIMIT",
        default_value_t = 1000,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub limit: u32,
}

/// `show`.
#[derive(Clone, Debug, clap::Args)]
pub struct Show {
    /// Its number, from `list`
    pub id: u64,

    /// The service whose letter it is
    #[arg(long, value_name = "NAME", env = "HEADWATER_SERVICE")]
    pub service: String,
}

/// `retry`.
#[derive(Clone, Debug, clap::Args)]
#[command(group(ArgGroup::new("which").args(["id", "lane", "all"]).required(true)))]
pub struct Retry {
    /// The number of one, from `list`: the first of its lane
    pub id: Option<u64>,

    /// All of a lane, as `list` has it: `key 0193…`
    #[arg(long, value_name = "LANE", env = "HEADWATER_DEAD_LETTER_LANE")]
    pub lane: Option<String>,

    /// All of the service
    #[arg(long, env = "HEADWATER_DEAD_LETTER_ALL", value_parser = FalseyValueParser::new())]
    pub all: bool,

    /// The service whose letters they are
    #[arg(long, value_name = "NAME", env = "HEADWATER_SERVICE")]
    pub service: String,
}

/// `discard`.
#[derive(Clone, Debug, clap::Args)]
pub struct Discard {
    /// Its number, from `list`
    pub id: u64,

    /// Why; kept with the event
    #[arg(long, value_name = "TEXT", env = "HEADWATER_DEAD_LETTER_REASON", value_parser = NonEmptyStringValueParser::new())]
    pub reason: String,

    /// Do not ask whether it is meant
    #[arg(long, env = "HEADWATER_YES", value_parser = FalseyValueParser::new())]
    pub yes: bool,

    /// The service whose letter it is
    #[arg(long, value_name = "NAME", env = "HEADWATER_SERVICE")]
    pub service: String,
}
