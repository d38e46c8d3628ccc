//! The flags of `headwater dead-letter`.

use clap::ArgGroup;
use clap::builder::{FalseyValueParser, NonEmptyStringValueParser};
use headwater::operator::Filter;

/// Filters. A letter must match all that are given.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Which {
    /// Only letters of this source
    #[arg(long, value_name = "SOURCE", env = "HEADWATER_DEAD_LETTER_SOURCE")]
    pub source: Option<String>,

    /// Only letters of this blocked key, as `list` shows it: `key 0193…`
    #[arg(long, value_name = "LANE", env = "HEADWATER_DEAD_LETTER_LANE")]
    pub lane: Option<String>,

    /// Only letters whose reason contains this text
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
    /// Only letters of this service [default: all services that answer]
    #[arg(long, value_name = "NAME", env = "HEADWATER_SERVICE")]
    pub service: Option<String>,

    #[command(flatten)]
    pub which: Which,

    /// Number of letters to list per service, the oldest first
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
    /// The letter's id, from `list`
    pub id: u64,

    /// The service that has the letter
    #[arg(long, value_name = "NAME", env = "HEADWATER_SERVICE")]
    pub service: String,
}

/// `retry`.
#[derive(Clone, Debug, clap::Args)]
#[command(group(ArgGroup::new("some").args(["id", "all", "source", "lane", "error"]).required(true).multiple(true)))]
pub struct Retry {
    /// The letter's id, from `list`: the first of its key
    #[arg(requires = "service", conflicts_with_all = ["all", "source", "lane", "error"])]
    pub id: Option<u64>,

    /// Retry the letters of every blocked key; with filters, of those whose first letter matches
    #[arg(long, env = "HEADWATER_DEAD_LETTER_ALL", value_parser = FalseyValueParser::new())]
    pub all: bool,

    #[command(flatten)]
    pub which: Which,

    /// The service that has the letters [default: all services with letters]
    #[arg(long, value_name = "NAME", env = "HEADWATER_SERVICE")]
    pub service: Option<String>,
}

/// `discard`.
#[derive(Clone, Debug, clap::Args)]
#[command(group(ArgGroup::new("some").args(["id", "all"]).required(true)))]
pub struct Discard {
    /// The letter's id, from `list`
    #[arg(requires = "service", conflicts_with_all = ["source", "lane", "error", "confirm"])]
    pub id: Option<u64>,

    /// Discard all dead letters, or those that match the filters; events waiting behind them are
    /// retried
    #[arg(long, env = "HEADWATER_DEAD_LETTER_ALL", value_parser = FalseyValueParser::new())]
    pub all: bool,

    #[command(flatten)]
    pub which: Which,

    /// The reason; kept with the events
    #[arg(long, value_name = "TEXT", env = "HEADWATER_DEAD_LETTER_REASON", value_parser = NonEmptyStringValueParser::new())]
    pub reason: String,

    /// Do not ask for confirmation
    #[arg(long, env = "HEADWATER_YES", value_parser = FalseyValueParser::new())]
    pub yes: bool,

    /// Do not ask if there are exactly N letters; otherwise do nothing
    #[arg(
        long,
        value_name = "N",
        env = "HEADWATER_DEAD_LETTER_CONFIRM",
        conflicts_with = "yes"
    )]
    pub confirm: Option<u64>,

    /// The service that has the letters [default: all services with letters]
    #[arg(long, value_name = "NAME", env = "HEADWATER_SERVICE")]
    pub service: Option<String>,
}
