//! The services of the shop.

use purchases::Style;

/// One of the four services; the query service has three styles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// Source of users.
    Users,
    /// Source of products.
    Products,
    /// Source of orders.
    Orders,
    /// The query service in the style replica.
    Purchases,
    /// The query service in the style composition: it asks over HTTP.
    Composition,
    /// The query service in the style request-reply: it asks over NATS.
    RequestReply,
}

impl Service {
    /// The services that run by default.
    pub const ALL: [Self; 4] = [Self::Users, Self::Products, Self::Orders, Self::Purchases];

    /// The services that publish events.
    pub const SOURCES: [Self; 3] = [Self::Users, Self::Products, Self::Orders];

    /// The query service in all its styles.
    pub const STYLES: [Self; 3] = [Self::Purchases, Self::Composition, Self::RequestReply];

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

    /// The shipped program.
    pub fn program(self) -> &'static str {
        match self {
            Self::Users => "headwater-users",
            Self::Products => "headwater-products",
            Self::Orders => "headwater-orders",
            Self::Purchases | Self::Composition | Self::RequestReply => "headwater-purchases",
        }
    }

    /// Its value of `--style`, if it keeps no database.
    pub(super) fn style(self) -> Option<&'static str> {
        match self {
            Self::Composition => Some("composition"),
            Self::RequestReply => Some("request-reply"),
            _ => None,
        }
    }
}
