//! The four services.

/// One of the services, each a process of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    Purchases,
    Users,
    Products,
    Orders,
}

impl Service {
    /// In the order of their ports.
    pub(crate) const ALL: [Self; 4] = [Self::Purchases, Self::Users, Self::Products, Self::Orders];

    /// In the order in which they stop: whoever reads before whom it reads from.
    pub(crate) const STOP_ORDER: [Self; 4] =
        [Self::Purchases, Self::Orders, Self::Products, Self::Users];

    /// Its name, which is also that of its crate.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Purchases => "purchases",
            Self::Users => "users",
            Self::Products => "products",
            Self::Orders => "orders",
        }
    }

    /// Its binary.
    pub(crate) fn binary(self) -> String {
        format!("headwater-{}", self.name())
    }

    /// The colour of its lines, as the number in an ANSI escape.
    pub(crate) const fn colour(self) -> u8 {
        match self {
            Self::Purchases => 32,
            Self::Users => 36,
            Self::Products => 33,
            Self::Orders => 35,
        }
    }
}
