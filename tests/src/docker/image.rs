//! The images, from the Dockerfiles that are shipped.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use testcontainers::runners::AsyncBuilder as _;
use testcontainers::{GenericBuildableImage, GenericImage};

use crate::process;

/// The tag of the image with all services: `shop`, under the name of the operator's tool.
const SERVICES: &str = "services";

/// The tag of the image with nats-server.
const BROKER: &str = "broker";

/// Builds both, under the name `run`.
pub(super) async fn build(run: &str) -> anyhow::Result<()> {
    let shop = format!("{}:headwater", process::program("shop").display());
    let nats_server = broker::find(&|_| {}).context("find nats-server")?.path;
    let nats_server = format!("{}:nats-server", nats_server.display());
    let context = tempfile::TempDir::new().context("make a folder")?;
    let rootfs = context.path().join("rootfs");
    make_rootfs(&rootfs, &[&shop])?;
    build_one(run, SERVICES, "Dockerfile", &rootfs).await?;
    make_rootfs(&rootfs, &[&nats_server])?;
    build_one(run, BROKER, "nats.Dockerfile", &rootfs).await
}

async fn build_one(run: &str, tag: &str, file: &str, rootfs: &Path) -> anyhow::Result<()> {
    let config = shipped("nats-server.conf");
    let image = GenericBuildableImage::new(run, tag)
        .with_dockerfile(shipped(file))
        .with_file(rootfs, "rootfs")
        .with_file(config, "nats-server.conf")
        // A context from the API has no empty folders.
        .with_data("", "data/.keep");
    let built = image.build_image().await;
    built
        .map(drop)
        .with_context(|| format!("build an image from {file}"))
}

/// The image of the services of the process `run`.
pub(super) fn services(run: &str) -> GenericImage {
    GenericImage::new(run, SERVICES)
}

/// The image of the broker of the process `run`.
pub(super) fn server(run: &str) -> GenericImage {
    GenericImage::new(run, BROKER)
}

/// The names of the images of the process `run`.
pub(super) fn names(run: &str) -> [String; 2] {
    [SERVICES, BROKER].map(|tag| format!("{run}:{tag}"))
}

/// As `deploy/docker/build` does it.
fn make_rootfs(rootfs: &Path, programs: &[&str]) -> anyhow::Result<()> {
    let made = Command::new("bash")
        .arg(shipped("rootfs"))
        .arg(rootfs)
        .args(programs)
        .output()
        .context("run deploy/docker/rootfs")?;
    if !made.status.success() {
        bail!(
            "deploy/docker/rootfs: {}",
            String::from_utf8_lossy(&made.stderr)
        );
    }
    Ok(())
}

fn shipped(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/docker");
    folder.join(name)
}
