//! The services of the shop.

use purchases::Style;

/// One of the four services; the query service in one of its styles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// Source of users.
    Users,
    /// Source of products.
    Products,
    /// Source of orders.
    Orders,
    /// The query service, with its own copy.
    Purchases,
    /// The query service that asks over HTTP.
    Composition,
    /// The query service that asks over the bus.
    RequestReply,
}

impl Service {
    /// All that run by default.
    pub const ALL: [Self; 4] = [Self::Users, Self::Products, Self::Orders, Self::Purchases];

    /// Those that publish events.
    pub const SOURCES: [Self; 3] = [Self::Users, Self::Products, Self::Orders];

    /// The query service in all its styles.
    pub const STYLES: [Self; 3] = [Self::Purchases, Self::Composition, Self::RequestReply];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Users => users::NAME,
            Self::Products => products::NAME,
            Self::Orders => orders::NAME,
            Self::Purchases => Style::Replica.service(),
            Self::Composition => Style::Composition.service(),
            Self::RequestReply => Style::RequestReply.service(),
        }
    }

    /// The program that is shipped.
    pub fn program(self) -> &'static str {
        match self {
            Self::Users => "headwater-users",
            Self::Products => "headwater-products",
            Self::Orders => "headwater-orders",
            Self::Purchases | Self::Composition | Self::RequestReply => "headwater-purchases",
        }
    }

    /// How it gets its answers, where it keeps no database.
    pub(super) fn style(self) -> Option<&'static str> {
        match self {
            Self::Composition => Some("composition"),
            Self::RequestReply => Some("request-reply"),
            _ => None,
        }
    }
}
