//! What must be shown: a plain fold of what was answered. No code of the services is in it.

use std::collections::{BTreeMap, BTreeSet};

use headwater::Positions;

use crate::world::Service;

/// A product as it looks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Look {
    pub(super) title: String,
    pub(super) image: String,
}

/// What a user is shown, by the ids of the products: each once. A product has no look until the
/// news of it has come.
pub(super) type Shown = BTreeMap<String, Option<Look>>;

/// A user, as far as the answers have told. The numbers are positions.
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

/// All that was acknowledged, by the services' ids.
#[derive(Debug, Default)]
pub(super) struct Expected {
    users: BTreeMap<String, User>,
    /// How each product looked, and from which position on.
    products: BTreeMap<String, Vec<(u64, Look)>>,
    /// How many effects each source has acknowledged: how long its outbox must be.
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

    /// A product was created, or changed.
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

    /// How many effects `source` has acknowledged.
    pub(super) fn effects(&self, source: Service) -> u64 {
        self.effects.get(&source).copied().unwrap_or(0)
    }

    pub(super) fn users(&self) -> impl ExactSizeIterator<Item = &String> {
        self.users.keys()
    }

    pub(super) fn is_erased(&self, user: &str) -> bool {
        self.users[user].erased.is_some()
    }

    /// The image that the product has now.
    pub(super) fn image(&self, product: &str) -> Option<String> {
        let (_, look) = self.products.get(product)?.last()?;
        Some(look.image.clone())
    }

    /// The orders that `orders` must show; none of an erased user.
    pub(super) fn orders(&self, user: &str) -> BTreeSet<String> {
        let user = &self.users[user];
        let all = user.orders.keys().cloned();
        all.filter(|_| user.erased.is_none()).collect()
    }

    /// What the user must be shown when everything has come; `None` if they were erased.
    pub(super) fn shown(&self, user: &str) -> Option<Shown> {
        let all = Service::SOURCES.map(|source| (source.name().to_owned(), u64::MAX));
        self.shown_at(user, &Positions(all.into()))
    }

    /// What the user must be shown as of `at`, to the letter; `None` if there must be no such
    /// user.
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
