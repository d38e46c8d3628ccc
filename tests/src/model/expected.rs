//! The model: what must be shown according to the acknowledged commands, without code of the
//! services.

use std::collections::{BTreeMap, BTreeSet};

use headwater::Positions;

use crate::world::Service;

/// A product as it looks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Look {
    pub(super) title: String,
    pub(super) image: String,
}

/// What a user is shown, by product id: each product once. A product has no look until its event is
/// applied.
pub(super) type Shown = BTreeMap<String, Option<Look>>;

/// A user, as far as the answers show. The numbers are positions.
#[derive(Debug, Clone, Default)]
struct User {
    registered: u64,
    erased: Option<u64>,
    orders: BTreeMap<String, Order>,
}

#[derive(Debug, Clone)]
struct Order {
    position: u64,
    products: Vec<String>,
}

/// All acknowledged effects, by the ids of the services.
#[derive(Debug, Default)]
pub(super) struct Expected {
    users: BTreeMap<String, User>,
    /// The looks of each product, each from its position on.
    products: BTreeMap<String, Vec<(u64, Look)>>,
    /// How many effects each source has acknowledged, which is the length of its outbox.
    effects: BTreeMap<Service, u64>,
}

impl Expected {
    pub(super) fn registered(&mut self, user: &str, position: u64) {
        let registered = User {
            registered: position,
            ..User::default()
        };
        self.users.insert(user.to_owned(), registered);
        self.count(Service::Users);
    }

    pub(super) fn erased(&mut self, user: &str, position: u64) {
        self.user(user).erased = Some(position);
        self.count(Service::Users);
    }

    /// Records that a product was created or changed.
    pub(super) fn looks(&mut self, product: &str, look: Look, position: u64) {
        let looks = self.products.entry(product.to_owned()).or_default();
        looks.push((position, look));
        self.count(Service::Products);
    }

    pub(super) fn placed(&mut self, user: &str, order: &str, products: Vec<String>, position: u64) {
        let placed = Order { position, products };
        self.user(user).orders.insert(order.to_owned(), placed);
        self.count(Service::Orders);
    }

    fn user(&mut self, id: &str) -> &mut User {
        self.users.get_mut(id).expect("they registered before")
    }

    fn count(&mut self, source: Service) {
        *self.effects.entry(source).or_default() += 1;
    }

    pub(super) fn effects(&self, source: Service) -> u64 {
        self.effects.get(&source).copied().unwrap_or(0)
    }

    pub(super) fn users(&self) -> impl ExactSizeIterator<Item = &String> {
        self.users.keys()
    }

    pub(super) fn is_erased(&self, user: &str) -> bool {
        self.users[user].erased.is_some()
    }

    /// The current image of a product.
    pub(super) fn image(&self, product: &str) -> Option<String> {
        let (_, look) = self.products.get(product)?.last()?;
        Some(look.image.clone())
    }

    /// The orders that `orders` must show; none for an erased user.
    pub(super) fn orders(&self, user: &str) -> BTreeSet<String> {
        let user = &self.users[user];
        let all = user.orders.keys().cloned();
        all.filter(|_| user.erased.is_none()).collect()
    }

    /// What the user must be shown once everything has caught up; `None` if erased.
    pub(super) fn shown(&self, user: &str) -> Option<Shown> {
        let all = Service::SOURCES.map(|source| (source.name().to_owned(), u64::MAX));
        self.shown_at(user, &Positions(all.into()))
    }

    /// What the user must be shown exactly as of `at`; `None` if there must be no such user.
    pub(super) fn shown_at(&self, user: &str, at: &Positions) -> Option<Shown> {
        let user = &self.users[user];
        let users = at.get(Service::Users.name());
        let all = user.orders.values();
        let orders = all.filter(|order| order.position <= at.get(Service::Orders.name()));
        let is_heard_of = user.registered <= users || orders.clone().next().is_some();
        let is_erased = user.erased.is_some_and(|position| position <= users);
        (is_heard_of && !is_erased).then(|| {
            let products = orders.flat_map(|order| &order.products);
            products
                .map(|id| (id.clone(), self.look_at(id, at)))
                .collect()
        })
    }

    fn look_at(&self, product: &str, at: &Positions) -> Option<Look> {
        let looks = self.products.get(product)?.iter().rev();
        let mut known = looks.filter(|(position, _)| *position <= at.get(Service::Products.name()));
        known.next().map(|(_, look)| look.clone())
    }
}
