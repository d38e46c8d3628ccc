//! What is seeded, as it stands in `catalogue/`.

use serde::{Deserialize, Serialize};

/// Each file of `catalogue/images`, under the name that `products.jsonl` has for it.
macro_rules! images {
    ($($name:literal),* $(,)?) => {
        &[$((
            concat!("images/", $name, ".svg"),
            include_str!(concat!("../catalogue/images/", $name, ".svg")),
        )),*]
    };
}

/// The pictures: name and SVG.
pub(crate) const IMAGES: &[(&str, &str)] = images![
    "backpack",
    "binoculars",
    "brass-compass",
    "camp-stove",
    "canoe-paddle",
    "canvas-tent",
    "cast-iron-pan",
    "ceramic-teapot",
    "coffee-dripper",
    "desk-lamp",
    "enamel-mug",
    "field-notebook",
    "fly-rod",
    "hammock",
    "headlamp",
    "hiking-boots",
    "lantern",
    "map-tube",
    "pocket-knife",
    "rain-jacket",
    "thermos-flask",
    "water-bottle",
    "wooden-stool",
    "wool-blanket",
];

/// A user, as `POST /users` takes it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct User {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) email: String,
}

/// A product, as `POST /products` takes it, but for the name of its image.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Product {
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) image: String,
}

/// An order, as `POST /orders` takes it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Order {
    pub(crate) id: String,
    pub(crate) user_id: String,
    pub(crate) product_ids: Vec<String>,
}

/// All of it but the pictures.
#[derive(Clone, Debug)]
pub(crate) struct Catalogue {
    pub(crate) users: Vec<User>,
    pub(crate) products: Vec<Product>,
    pub(crate) orders: Vec<Order>,
}

impl Catalogue {
    pub(crate) fn new() -> Self {
        Self {
            users: records(include_str!("../catalogue/users.jsonl")),
            products: records(include_str!("../catalogue/products.jsonl")),
            orders: records(include_str!("../catalogue/orders.jsonl")),
        }
    }

    /// A product that is in no order of the user's.
    pub(crate) fn new_to(&self, user: &User) -> Option<&Product> {
        let ordered = |product: &Product| {
            let mut orders = self.orders.iter().filter(|order| order.user_id == user.id);
            orders.any(|order| order.product_ids.contains(&product.id))
        };
        self.products.iter().find(|product| !ordered(product))
    }
}

fn records<R: for<'de> Deserialize<'de>>(lines: &str) -> Vec<R> {
    let records = lines.lines().map(serde_json::from_str);
    records
        .collect::<Result<_, _>>()
        .expect("a test reads the catalogue")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::*;

    #[test]
    fn every_picture_is_some_products_and_every_products_picture_is_there() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/catalogue/images");
        let files: BTreeSet<_> = fs::read_dir(folder)
            .unwrap()
            .map(|file| format!("images/{}", file.unwrap().file_name().display()))
            .collect();
        let embedded: BTreeSet<_> = IMAGES.iter().map(|(name, _)| (*name).to_owned()).collect();
        let shown: BTreeSet<_> = Catalogue::new()
            .products
            .into_iter()
            .map(|product| product.image)
            .collect();
        assert_eq!(embedded, files);
        assert_eq!(shown, files);
    }

    #[test]
    fn orders_are_of_users_and_products_that_are_in_it() {
        let Catalogue {
            users,
            products,
            orders,
        } = Catalogue::new();
        for order in &orders {
            assert!(users.iter().any(|user| user.id == order.user_id));
            for id in &order.product_ids {
                assert!(products.iter().any(|product| product.id == *id), "{id}");
            }
        }
    }

    #[test]
    fn the_first_user_has_ordered_something_but_not_everything() {
        let catalogue = Catalogue::new();
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
