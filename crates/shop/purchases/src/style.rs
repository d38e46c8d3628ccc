//! The three styles of access to data that other services own.

use clap::ValueEnum;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use headwater::telemetry::warn_when_started;

/// The service's name. Never rename.
pub const NAME: &str = "purchases";

/// The name of style request-reply before the next version (0.2), which still accepts it.
const OLD_REQUEST_REPLY: &str = "inquiry";

/// Where the answers come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Style {
    /// From HTTP requests to users, orders and products, made for each answer
    Composition,
    /// From questions to users, orders and products over the bus, asked for each answer
    #[value(alias = OLD_REQUEST_REPLY)]
    RequestReply,
    /// From its own read store, kept up to date by their events
    #[default]
    Replica,
}

impl Style {
    /// Reads the setting; warns of an old name.
    pub(crate) fn parser() -> impl TypedValueParser<Value = Self> {
        let values = Self::value_variants().iter();
        let values = values.filter_map(ValueEnum::to_possible_value);
        PossibleValuesParser::new(values).try_map(|name: String| {
            if name == OLD_REQUEST_REPLY {
                warn_when_started("style `inquiry` is deprecated: use `request-reply`".to_owned());
            }
            Self::from_str(&name, false)
        })
    }

    /// The service's name in this style: services of several styles may run at once. Never rename.
    pub fn service(self) -> &'static str {
        match self {
            Self::Composition => "purchases-composition",
            Self::RequestReply => "purchases-inquiry",
            Self::Replica => NAME,
        }
    }
}
