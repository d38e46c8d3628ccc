//! The flags of `headwater dead-letter`.

use clap::ArgGroup;
use clap::builder::{FalseyValueParser, NonEmptyStringValueParser};
use headwater::operator::Filter;

/// Which letters: those for which everything holds that is given.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Which {
    /// Only those of this source
    #[arg(long, value_name = "SOURCE", env = "HEADWATER_DEAD_LETTER_SOURCE")]
    pub source: Option<String>,

    /// Only those of this lane, as `list` has it: `key 0193…`
    #[arg(long, value_name = "LANE", env = "HEADWATER_DEAD_LETTER_LANE")]
    pub lane: Option<String>,

    /// Only those whose reason contains this text
    #[arg(long, value_name = "TEXT", env = "HEADWATER_DEAD_LETTER_ERROR", value_parser = NonEmptyStringValueParser::new())]
    pub error: Option<String>,
}

impl Which {
    pub(crate) fn filter(&self) -> Filter {
        Filter {
            source: self.source.clone(),
            lane: self.lane.clone(),
            error: self.error.clone(),
            waiting: None,
        }
    }
}

/// `list` and `discarded`.
#[derive(Clone, Debug, clap::Args)]
pub struct List {
    /// Only those of this service; all that answer otherwise
    #[arg(long, value_name = "NAME", env = "HEADWATER_SERVICE")]
    pub service: Option<String>,

    #[command(flatten)]
    pub which: Which,

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
#[command(group(ArgGroup::new("some").args(["id", "all", "source", "lane", "error"]).required(true).multiple(true)))]
pub struct Retry {
    /// The number of one, from `list`: the first of its lane
    #[arg(requires = "service", conflicts_with_all = ["all", "source", "lane", "error"])]
    pub id: Option<u64>,

    /// All of them, or all lanes whose first letter is one of those that are meant
    #[arg(long, env = "HEADWATER_DEAD_LETTER_ALL", value_parser = FalseyValueParser::new())]
    pub all: bool,

    #[command(flatten)]
    pub which: Which,

    /// The service whose letters they are; all that have some otherwise
    #[arg(long, value_name = "NAME", env = "HEADWATER_SERVICE")]
    pub service: Option<String>,
}

/// `discard`.
#[derive(Clone, Debug, clap::Args)]
#[command(group(ArgGroup::new("some").args(["id", "all"]).required(true)))]
pub struct Discard {
    /// The number of one, from `list`
    #[arg(requires = "service", conflicts_with_all = ["source", "lane", "error", "confirm"])]
    pub id: Option<u64>,

    /// All that are at fault, or those of them that are meant; what waits behind them is tried
    #[arg(long, env = "HEADWATER_DEAD_LETTER_ALL", value_parser = FalseyValueParser::new())]
    pub all: bool,

    #[command(flatten)]
    pub which: Which,

    /// Why; kept with the events
    #[arg(long, value_name = "TEXT", env = "HEADWATER_DEAD_LETTER_REASON", value_parser = NonEmptyStringValueParser::new())]
    pub reason: String,

    /// Do not ask whether it is meant
    #[arg(long, env = "HEADWATER_YES", value_parser = FalseyValueParser::new())]
    pub yes: bool,

    /// Do not ask if there are so many; do nothing if there are more or fewer
    #[arg(
        long,
        value_name = "N",
        env = "HEADWATER_DEAD_LETTER_CONFIRM",
        conflicts_with = "yes"
    )]
    pub confirm: Option<u64>,

    /// The service whose letters they are; all that have some otherwise
    #[arg(long, value_name = "NAME", env = "HEADWATER_SERVICE")]
    pub service: Option<String>,
}
