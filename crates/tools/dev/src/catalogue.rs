//! The seed data in `catalogue/`.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::args::workspace;

/// A user in the format of `POST /users`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct User {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) email: String,
}

/// A product in the format of `POST /products`, but its image is a file of the catalogue.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Product {
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) image: String,
}

/// An order in the format of `POST /orders`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Order {
    pub(crate) id: String,
    pub(crate) user_id: String,
    pub(crate) product_ids: Vec<String>,
}

/// The whole catalogue except the pictures.
#[derive(Debug)]
pub(crate) struct Catalogue {
    pub(crate) users: Vec<User>,
    pub(crate) products: Vec<Product>,
    pub(crate) orders: Vec<Order>,
}

impl Catalogue {
    pub(crate) fn read() -> anyhow::Result<Self> {
        Ok(Self {
            users: records("users.jsonl")?,
            products: records("products.jsonl")?,
            orders: records("orders.jsonl")?,
        })
    }

    /// A product that the user has not ordered.
    pub(crate) fn new_to(&self, user: &User) -> Option<&Product> {
        let ordered = |product: &Product| {
            let mut orders = self.orders.iter().filter(|order| order.user_id == user.id);
            orders.any(|order| order.product_ids.contains(&product.id))
        };
        self.products.iter().find(|product| !ordered(product))
    }
}

/// A file of the catalogue.
pub(crate) fn file(name: &str) -> anyhow::Result<String> {
    let path = folder().join(name);
    fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}

fn folder() -> PathBuf {
    workspace().join("crates/tools/dev/catalogue")
}

fn records<R: for<'de> Deserialize<'de>>(name: &str) -> anyhow::Result<Vec<R>> {
    let text = file(name)?;
    let records = text.lines().map(serde_json::from_str);
    let records: Result<_, _> = records.collect();
    records.with_context(|| format!("read {name}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_picture_is_some_products_and_every_products_picture_is_there() {
        let files: BTreeSet<_> = fs::read_dir(folder().join("images"))
            .unwrap()
            .map(|file| format!("images/{}", file.unwrap().file_name().display()))
            .collect();
        let products = Catalogue::read().unwrap().products;
        let shown: BTreeSet<_> = products.into_iter().map(|product| product.image).collect();
        assert_eq!(shown, files);
    }

    #[test]
    fn orders_are_of_users_and_products_that_are_in_it() {
        let Catalogue {
            users,
            products,
            orders,
        } = Catalogue::read().unwrap();
        for order in &orders {
            assert!(users.iter().any(|user| user.id == order.user_id));
            for id in &order.product_ids {
                assert!(products.iter().any(|product| product.id == *id), "{id}");
            }
        }
    }

    #[test]
    fn the_first_user_has_ordered_something_but_not_everything() {
        let catalogue = Catalogue::read().unwrap();
        let demo = &catalogue.users[0];
        assert!(
            catalogue
                .orders
                .iter()
                .any(|order| order.user_id == demo.id)
        );
        assert!(catalogue.new_to(demo).is_some());
    }
}
