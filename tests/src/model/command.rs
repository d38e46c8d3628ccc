//! The commands of the clients, planned from the seed before anything runs.

use std::fmt;

use uuid::Uuid;

use crate::data::Random;

/// The maximum number of products in an order.
const LINES_MAX: u64 = 5;

/// Something that a client made: the third user of client 3 is `3.3`, whatever id the service gave
/// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ref {
    pub(super) client: u64,
    pub(super) number: u64,
}

impl fmt::Display for Ref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.client, self.number)
    }
}

/// A request for something new. An equal value is the same request.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Creation {
    User {
        user: Ref,
        /// The id, if the client chooses it.
        id: Option<Uuid>,
    },
    Product {
        product: Ref,
        id: Option<Uuid>,
    },
    Order {
        order: Ref,
        id: Option<Uuid>,
        user: Ref,
        products: Vec<Ref>,
    },
}

#[derive(Debug, Clone)]
pub(super) enum Command {
    Create(Creation),
    /// Gives a product its title number `version`, and perhaps another image.
    Rename {
        product: Ref,
        version: u64,
        image: bool,
    },
    Erase {
        user: Ref,
    },
    /// Reads a user's purchases as of all answers so far, or as of the client's own.
    Read {
        user: Ref,
        after_all: bool,
    },
    /// Repeats an earlier request under its key.
    Repeat(Creation),
    Wrong(Wrong),
}

/// A request that must be refused without effect.
#[derive(Debug, Clone)]
pub(super) enum Wrong {
    NoTitle,
    NoAddress,
    NoLines(Ref),
    UnknownProduct(Ref),
    RenameUnknown,
    EraseUnknown,
    OrderForErased {
        user: Ref,
        product: Ref,
    },
    /// Another request under the key of this one.
    OtherBody(Creation),
}

impl Command {
    /// The kind, for the tally.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Create(Creation::User { .. }) => "register",
            Self::Create(Creation::Product { .. }) => "create",
            Self::Create(Creation::Order { .. }) => "place",
            Self::Rename { .. } => "rename",
            Self::Erase { .. } => "erase",
            Self::Read { .. } => "read",
            Self::Repeat(_) => "repeat",
            Self::Wrong(_) => "wrong",
        }
    }
}

impl Creation {
    /// The client that made it.
    pub(super) fn client(&self) -> u64 {
        let (Self::User { user: of, .. }
        | Self::Product { product: of, .. }
        | Self::Order { order: of, .. }) = self;
        of.client
    }

    /// The `Idempotency-Key` of the request.
    pub(super) fn key(&self) -> String {
        match self {
            Self::User { user, .. } => format!("user {user}"),
            Self::Product { product, .. } => format!("product {product}"),
            Self::Order { order, .. } => format!("order {order}"),
        }
    }
}

/// A client's plan, across all rounds.
#[derive(Debug)]
pub(super) struct Plan {
    client: u64,
    random: Random,
    users: Vec<Ref>,
    erased: Vec<Ref>,
    user_count: u64,
    /// How often each of the client's products was renamed.
    versions: Vec<u64>,
    order_count: u64,
    created: Vec<Creation>,
}

impl Plan {
    pub(super) fn new(seed: u64, client: u64) -> Self {
        // Distinct random numbers for each client.
        let mut random = Random(seed.wrapping_add(client << 32));
        random.below(2);
        Self {
            client,
            random,
            users: Vec::new(),
            erased: Vec::new(),
            user_count: 0,
            versions: Vec::new(),
            order_count: 0,
            created: Vec::new(),
        }
    }

    pub(super) fn products(&self) -> u64 {
        self.versions.len() as u64
    }

    /// The next `count` commands. `others` are products that other clients made in earlier rounds.
    pub(super) fn round(&mut self, count: usize, others: &[Ref]) -> Vec<Command> {
        (0..count).map(|_| self.next(others)).collect()
    }

    fn next(&mut self, others: &[Ref]) -> Command {
        if self.users.is_empty() {
            return self.register();
        }
        if self.versions.is_empty() {
            return self.create();
        }
        match self.random.below(100) {
            0..12 => self.register(),
            12..24 => self.create(),
            24..36 => self.rename(),
            36..70 => self.place(others),
            70..74 => {
                let chosen = self.random.below(self.users.len() as u64);
                let user = self.users.swap_remove(index(chosen));
                self.erased.push(user);
                Command::Erase { user }
            }
            74..88 => Command::Read {
                user: self.any_user(),
                after_all: self.random.below(2) == 0,
            },
            88..94 => Command::Repeat(self.any_creation()),
            _ => Command::Wrong(self.wrong()),
        }
    }

    fn register(&mut self) -> Command {
        self.user_count += 1;
        let user = self.own(self.user_count);
        self.users.push(user);
        let id = self.maybe_id();
        self.made(Creation::User { user, id })
    }

    fn create(&mut self) -> Command {
        self.versions.push(0);
        let product = self.own(self.products());
        let id = self.maybe_id();
        self.made(Creation::Product { product, id })
    }

    fn rename(&mut self) -> Command {
        let product = self.own_product();
        let version = &mut self.versions[index(product.number - 1)];
        *version += 1;
        Command::Rename {
            product,
            version: *version,
            image: self.random.below(2) == 0,
        }
    }

    fn place(&mut self, others: &[Ref]) -> Command {
        self.order_count += 1;
        let order = self.own(self.order_count);
        let user = pick(&mut self.random, &self.users);
        let lines = 1 + self.random.below(LINES_MAX);
        let products = (0..lines)
            .map(|_| {
                if others.is_empty() || self.random.below(2) == 0 {
                    self.own_product()
                } else {
                    pick(&mut self.random, others)
                }
            })
            .collect();
        let id = self.maybe_id();
        self.made(Creation::Order {
            order,
            id,
            user,
            products,
        })
    }

    fn wrong(&mut self) -> Wrong {
        match self.random.below(8) {
            0 => Wrong::NoTitle,
            1 => Wrong::NoAddress,
            2 => Wrong::NoLines(pick(&mut self.random, &self.users)),
            3 => Wrong::UnknownProduct(pick(&mut self.random, &self.users)),
            4 => Wrong::RenameUnknown,
            5 => Wrong::EraseUnknown,
            6 if !self.erased.is_empty() => Wrong::OrderForErased {
                user: pick(&mut self.random, &self.erased),
                product: self.own_product(),
            },
            _ => Wrong::OtherBody(self.any_creation()),
        }
    }

    fn made(&mut self, creation: Creation) -> Command {
        self.created.push(creation.clone());
        Command::Create(creation)
    }

    fn own(&self, number: u64) -> Ref {
        Ref {
            client: self.client,
            number,
        }
    }

    /// Half the time one of the newest three, to order what was just made.
    fn own_product(&mut self) -> Ref {
        let all = self.products();
        let among = if self.random.below(2) == 0 {
            all.min(3)
        } else {
            all
        };
        let back = self.random.below(among);
        self.own(all - back)
    }

    fn any_user(&mut self) -> Ref {
        if !self.erased.is_empty() && self.random.below(6) == 0 {
            pick(&mut self.random, &self.erased)
        } else {
            pick(&mut self.random, &self.users)
        }
    }

    fn any_creation(&mut self) -> Creation {
        let chosen = self.random.below(self.created.len() as u64);
        self.created[index(chosen)].clone()
    }

    /// A client chooses one id in three.
    fn maybe_id(&mut self) -> Option<Uuid> {
        let (high, low) = (self.random.below(u64::MAX), self.random.below(u64::MAX));
        let id = uuid::Builder::from_random_bytes(Uuid::from_u64_pair(high, low).into_bytes());
        (self.random.below(3) == 0).then(|| id.into_uuid())
    }
}

fn pick(random: &mut Random, from: &[Ref]) -> Ref {
    from[index(random.below(from.len() as u64))]
}

pub(super) fn index(number: u64) -> usize {
    usize::try_from(number).expect("a small number")
}
