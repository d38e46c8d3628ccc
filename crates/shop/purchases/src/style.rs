//! The three ways to get at data that others own.

/// The service's name. Never rename.
pub const NAME: &str = "purchases";

/// Where the answers come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Style {
    /// From HTTP requests to users, orders and products, made for each answer
    Composition,
    /// From question events to users, orders and products, asked for each answer
    RequestReply,
    /// From a copy of its own, kept up to date by their events
    #[default]
    Replica,
}

impl Style {
    /// What the service is called in this style: several may run side by side. Never rename.
    pub fn service(self) -> &'static str {
        match self {
            Self::Composition => "purchases-composition",
            Self::RequestReply => "purchases-inquiry",
            Self::Replica => NAME,
        }
    }
}
