//! The four services, and the two other styles of the query service.

/// A service, which runs as a separate process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    Purchases,
    Users,
    Products,
    Orders,
    /// `purchases` that asks the others over HTTP.
    Composition,
    /// `purchases` that asks the others over the bus.
    RequestReply,
}

impl Service {
    /// In the order of their ports.
    pub(crate) const ALL: [Self; 6] = [
        Self::Purchases,
        Self::Users,
        Self::Products,
        Self::Orders,
        Self::Composition,
        Self::RequestReply,
    ];

    /// The query service in all its styles.
    pub(crate) const STYLES: [Self; 3] = [Self::Purchases, Self::Composition, Self::RequestReply];

    /// The order in which they stop: readers before their sources.
    pub(crate) const STOP_ORDER: [Self; 6] = [
        Self::Composition,
        Self::RequestReply,
        Self::Purchases,
        Self::Orders,
        Self::Products,
        Self::Users,
    ];

    /// The name of the service.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Purchases => "purchases",
            Self::Users => "users",
            Self::Products => "products",
            Self::Orders => "orders",
            Self::Composition => "purchases-composition",
            Self::RequestReply => "purchases-inquiry",
        }
    }

    /// The style of the query service.
    pub(crate) const fn style(self) -> Option<&'static str> {
        match self {
            Self::Purchases => Some("replica"),
            Self::Composition => Some("composition"),
            Self::RequestReply => Some("request-reply"),
            Self::Users | Self::Products | Self::Orders => None,
        }
    }

    /// The name of its package.
    pub(crate) const fn package(self) -> &'static str {
        match self.style() {
            Some(_) => "purchases",
            None => self.name(),
        }
    }

    /// The name of its binary.
    pub(crate) fn binary(self) -> String {
        format!("headwater-{}", self.package())
    }

    /// The colour of its log lines, as an ANSI code.
    pub(crate) const fn colour(self) -> u8 {
        match self {
            Self::Purchases => 32,
            Self::Users => 36,
            Self::Products => 33,
            Self::Orders => 35,
            Self::Composition => 34,
            Self::RequestReply => 31,
        }
    }
}
