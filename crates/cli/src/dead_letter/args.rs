//! The flags of `headwater dead-letter`.

use clap::ArgGroup;
use clap::builder::NonEmptyStringValueParser;

use crate::nats;
use crate::output::Format;

/// What all of them take.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Common {
    /// How to print the result
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        env = "HEADWATER_OUTPUT",
        value_enum,
        default_value_t
    )]
    pub output: Format,

    /// NATS.
    #[command(flatten)]
    pub nats: nats::Args,
}

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

    #[command(flatten)]
    pub common: Common,
}

/// `show`.
#[derive(Clone, Debug, clap::Args)]
pub struct Show {
    /// Its number, from `list`
    pub id: u64,

    /// The service whose letter it is
    #[arg(long, value_name = "NAME", env = "HEADWATER_SERVICE")]
    pub service: String,

    #[command(flatten)]
    pub common: Common,
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
    #[arg(long, env = "HEADWATER_DEAD_LETTER_ALL")]
    pub all: bool,

    /// The service whose letters they are
    #[arg(long, value_name = "NAME", env = "HEADWATER_SERVICE")]
    pub service: String,

    #[command(flatten)]
    pub common: Common,
}

/// `discard`.
#[derive(Clone, Debug, clap::Args)]
pub struct Discard {
    /// Its number, from `list`
    pub id: u64,

    /// Why; kept with the event
    #[arg(long, value_name = "TEXT", env = "HEADWATER_DEAD_LETTER_REASON", value_parser = NonEmptyStringValueParser::new())]
    pub reason: String,

    /// The service whose letter it is
    #[arg(long, value_name = "NAME", env = "HEADWATER_SERVICE")]
    pub service: String,

    #[command(flatten)]
    pub common: Common,
}
