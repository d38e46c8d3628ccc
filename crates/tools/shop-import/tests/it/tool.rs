//! Files to import, and the program as a library and as a process.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use clap::Parser as _;
use headwater_testkit::PATIENCE;
use headwater_testkit::Tool;
use rustix::process::{Pid, Signal, kill_process};
use shop_import::{Args, Summary};
use tempfile::TempDir;

use crate::shop::Shop;

/// A folder of files to import.
pub(crate) struct Files(TempDir);

impl Files {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("temporary folder"))
    }

    /// Two users, three products, two orders.
    pub(crate) fn small() -> Self {
        let files = Self::new();
        files.write("users", users(2));
        files.write(
            "products",
            "{\"id\": 1, \"title\": \"Cup\", \"image\": \"http://i/1\"}\n\
             {\"id\": 2, \"title\": \"Pot\", \"image\": \"http://i/2\"}\n\
             {\"id\": \"3\", \"title\": \"Jug\", \"image\": \"http://i/3\"}\n",
        );
        files.write(
            "orders",
            "{\"id\": 1, \"user_id\": 1, \"product_ids\": [1, 2]}\n\
             {\"id\": 2, \"user_id\": \"2\", \"product_ids\": [3, 3, \"1\"]}\n",
        );
        files
    }

    /// A folder whose only file has users `user 1`, `user 2` …
    pub(crate) fn of_users(count: usize) -> Self {
        let files = Self::new();
        files.write("users", users(count));
        files
    }

    pub(crate) fn write(&self, kind: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(kind), content).expect("write file");
    }

    pub(crate) fn path(&self, kind: &str) -> PathBuf {
        self.0.path().join(format!("{kind}.jsonl"))
    }

    /// A flag for each file of the folder.
    fn flags(&self) -> Vec<String> {
        let present = ["users", "products", "orders"]
            .into_iter()
            .filter(|kind| self.path(kind).exists());
        present
            .flat_map(|kind| [format!("--{kind}"), text(&self.path(kind))])
            .collect()
    }

    /// The text without the folder, which differs in each run.
    pub(crate) fn anonymous(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.0.path().display()), "")
    }
}

pub(crate) fn users(count: usize) -> String {
    let line =
        |n| format!("{{\"id\": {n}, \"name\": \"user {n}\", \"email\": \"{n}@example.org\"}}\n");
    (1..=count).map(line).collect()
}

fn text(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

fn command_line(urls: [&str; 3], files: &Files, flags: &[&str]) -> Vec<String> {
    let [users, products, orders] = urls;
    let mut line = vec!["shop-import".to_owned()];
    line.push(format!("--users-url={users}"));
    line.push(format!("--products-url={products}"));
    line.push(format!("--orders-url={orders}"));
    line.extend(files.flags());
    line.extend(flags.iter().map(|flag| (*flag).to_owned()));
    line
}

/// Imports inside this process.
pub(crate) async fn import(shop: &Shop, files: &Files, flags: &[&str]) -> Summary {
    let line = command_line([&shop.url; 3], files, flags);
    let args = Args::try_parse_from(line).expect("command line");
    tokio::time::timeout(PATIENCE, shop_import::run(args, std::future::pending()))
        .await
        .expect("in time")
        .expect("import")
}

/// The program.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_shop-import");

/// The program as a process.
pub(crate) fn start(args: &[impl AsRef<OsStr>], environment: &[(&str, &str)]) -> Tool {
    Tool::start(PROGRAM, args, environment)
}

/// The program, with `url` for each of users, products, orders.
pub(crate) fn import_by(url: &str, files: &Files, flags: &[&str]) -> Tool {
    import_at([url; 3], files, flags)
}

/// As `import_by`, with a different address for each.
pub(crate) fn import_at(urls: [&str; 3], files: &Files, flags: &[&str]) -> Tool {
    start(&command_line(urls, files, flags)[1..], &[])
}

pub(crate) fn signal(tool: &Tool, signal: Signal) {
    let pid = tool.id().and_then(|pid| i32::try_from(pid).ok());
    let pid = pid.and_then(Pid::from_raw).expect("it runs");
    kill_process(pid, signal).expect("sent");
}
