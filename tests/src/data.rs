//! Data sets for the importer, and an expected answer that shares no code with the services.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Parser as _;
use serde_json::{Value, json};
use shop_import::{Args, Kind, Summary, mapped};

use crate::oracle::{self, Shown, look};
use crate::world::{Service, World};

/// Three JSON Lines files.
#[derive(Debug)]
pub struct DataSet {
    folder: PathBuf,
    /// Keeps the files of a made-up data set.
    _temporary: Option<tempfile::TempDir>,
}

impl DataSet {
    /// The sample data next to the project, if it exists.
    pub fn sample() -> Option<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
        folder.join("orders.jsonl").exists().then(|| Self {
            folder,
            _temporary: None,
        })
    }

    /// A shop generated from `seed`: foreign ids of both kinds, users without orders, repeated
    /// orders of the same products.
    pub fn made_up(seed: u64, users: u64, products: u64, orders: u64) -> Self {
        let folder = tempfile::TempDir::new().expect("make a folder");
        let mut random = Random(seed);
        let write = |name: &str, lines: Vec<Value>| {
            let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
            let text = lines.join("\n") + "\n";
            std::fs::write(folder.path().join(name), text).expect("write a file");
        };
        let user_id = |n: u64| {
            if n.is_multiple_of(3) {
                json!(format!("u-{n}"))
            } else {
                json!(n)
            }
        };
        write(
            "users.jsonl",
            (0..users)
                .map(|n| json!({"id": user_id(n), "name": format!("Ü {n}"), "email": format!("u{n}.{seed}@example.com")}))
                .collect(),
        );
        write(
            "products.jsonl",
            (0..products)
                .map(|n| json!({"id": n, "title": format!("Thing {n} “{seed}”"), "image": format!("https://example.com/{n}.webp")}))
                .collect(),
        );
        write(
            "orders.jsonl",
            (0..orders)
                .map(|n| {
                    let lines = 1 + random.below(9);
                    let ids: Vec<u64> = (0..lines).map(|_| random.below(products)).collect();
                    json!({"id": format!("o{n}"), "user_id": user_id(random.below(users)), "product_ids": ids})
                })
                .collect(),
        );
        Self {
            folder: folder.path().to_owned(),
            _temporary: Some(folder),
        }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Imports all three files through the public APIs.
    pub async fn import(&self, world: &World) -> Summary {
        let file = |name: &str| self.file(name).display().to_string();
        let url = |service| world.client(service).base().to_owned();
        let args = Args::parse_from([
            "shop-import",
            "--users",
            &file("users.jsonl"),
            "--users-url",
            &url(Service::Users),
            "--products",
            &file("products.jsonl"),
            "--products-url",
            &url(Service::Products),
            "--orders",
            &file("orders.jsonl"),
            "--orders-url",
            &url(Service::Orders),
        ]);
        shop_import::run(args, std::future::pending())
            .await
            .expect("import")
    }

    /// What each user must be shown, by foreign id.
    pub fn expected(&self) -> BTreeMap<String, Shown> {
        let orders: Vec<Value> = self.lines("orders.jsonl").collect();
        oracle::shown_to_each(
            self.lines("users.jsonl").map(|line| id(&line["id"])),
            self.lines("products.jsonl")
                .map(|line| (id(&line["id"]), look(&line))),
            orders.iter(),
            id,
        )
    }

    /// Asserts that `purchases` shows every user what [`expected`](Self::expected) says.
    pub async fn assert_shown(&self, world: &World) {
        self.assert_shown_by(Service::Purchases, world).await;
    }

    /// [`assert_shown`](Self::assert_shown) for the query service in the style `style`.
    pub async fn assert_shown_by(&self, style: Service, world: &World) {
        let mapped = |foreign: String| mapped(Kind::Users, &foreign).to_string();
        let expected = self.expected().into_iter();
        let expected = expected.map(|(foreign, shown)| (mapped(foreign), shown));
        oracle::shows(world, style, expected.collect()).await;
    }

    fn lines(&self, name: &str) -> impl Iterator<Item = Value> {
        let text = std::fs::read_to_string(self.file(name)).expect("read a file");
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("a JSON line"))
            .collect();
        lines.into_iter()
    }
}

/// A foreign id as text: `1` and `"1"` are the same.
fn id(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// `SplitMix64`: the same seed always gives the same numbers.
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}
