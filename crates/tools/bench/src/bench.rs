//! The settings of a run.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tempfile::TempDir;

use crate::args::{Args, Form, workspace};

/// The settings that every figure gets.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) form: Form,
    pub(crate) binaries: Binaries,
    /// How long each load runs.
    pub(crate) time: Duration,
    /// Rounds of each comparison.
    pub(crate) rounds: usize,
    /// The folder for databases and streams: on a disk, not in memory as `/tmp` may be.
    pub(crate) root: PathBuf,
}

/// The folder with the services' binaries.
#[derive(Clone, Debug)]
pub(crate) struct Binaries(PathBuf);

impl Bench {
    pub(crate) fn new(args: &Args, form: Form) -> anyhow::Result<Self> {
        let own = std::env::current_exe().context("find this program's binary")?;
        let folder = own.parent().map(Path::to_owned).unwrap_or_default();
        let root = workspace().join("target/bench");
        std::fs::create_dir_all(&root).with_context(|| format!("create {}", root.display()))?;
        let times = form.pick(200, 1_500, 5_000);
        Ok(Self {
            form,
            binaries: Binaries(args.binaries.clone().unwrap_or(folder)),
            time: args.seconds.unwrap_or(Duration::from_millis(times)),
            rounds: args.rounds.map_or(form.pick(1, 3, 7), usize::from),
            root,
        })
    }

    /// A folder for databases and streams, removed when dropped.
    pub(crate) fn folder(&self) -> anyhow::Result<TempDir> {
        TempDir::with_prefix_in("run-", &self.root).context("create a folder")
    }
}

impl Binaries {
    /// The binary of a service.
    pub(crate) fn of(&self, service: &str) -> anyhow::Result<PathBuf> {
        self.named(&format!("headwater-{service}"))
    }

    /// A binary by its own name.
    pub(crate) fn named(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.0.join(name);
        if !path.is_file() {
            let release = if cfg!(debug_assertions) {
                ""
            } else {
                " --release"
            };
            bail!(
                "{} does not exist; build it: cargo build{release} --workspace --bins",
                path.display()
            );
        }
        Ok(path)
    }
}
