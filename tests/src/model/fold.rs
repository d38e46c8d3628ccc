//! What must be shown: a plain fold of what was answered. No code of the services is in it.

use std::collections::{BTreeMap, BTreeSet};

use crate::world::Service;

/// A product as it looks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Look {
    pub(super) title: String,
    pub(super) image: String,
}

/// A user, as far as the answers have told.
#[derive(Debug, Clone, Default)]
pub(super) struct User {
    pub(super) is_erased: bool,
    /// The ids of their orders.
    pub(super) orders: BTreeSet<String>,
    /// The ids of what they ordered.
    pub(super) ordered: BTreeSet<String>,
}

/// All that was acknowledged, by the services' ids.
#[derive(Debug, Default)]
pub(super) struct Fold {
    pub(super) users: BTreeMap<String, User>,
    pub(super) products: BTreeMap<String, Look>,
    /// How many effects each source has acknowledged: how long its outbox must be.
    effects: BTreeMap<Service, u64>,
}

impl Fold {
    pub(super) fn registered(&mut self, user: &str) {
        self.users.insert(user.to_owned(), User::default());
        self.count(Service::Users);
    }

    pub(super) fn erased(&mut self, user: &str) {
        self.user(user).is_erased = true;
        self.count(Service::Users);
    }

    /// A product was created, or changed.
    pub(super) fn looks(&mut self, product: &str, look: Look) {
        self.products.insert(product.to_owned(), look);
        self.count(Service::Products);
    }

    pub(super) fn placed(&mut self, user: &str, order: &str, products: &[String]) {
        let user = self.user(user);
        user.orders.insert(order.to_owned());
        user.ordered.extend(products.iter().cloned());
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

    /// What the user must be shown, by the ids of the products; `None` if they were erased.
    pub(super) fn shown(&self, user: &str) -> Option<BTreeMap<String, Look>> {
        let user = &self.users[user];
        let look = |id: &String| (id.clone(), self.products[id].clone());
        (!user.is_erased).then(|| user.ordered.iter().map(look).collect())
    }
}
