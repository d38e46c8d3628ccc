//! The images, built from the shipped Dockerfiles.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use testcontainers::GenericImage;
use testcontainers::bollard::query_parameters::{BuildImageOptionsBuilder, BuilderVersion};
use testcontainers::bollard::{Docker, body_full};

use crate::{Service, program};

/// The tag of the image with all services and the operator's tool.
const SERVICES: &str = "services";

/// The tag of the image with nats-server.
const BROKER: &str = "broker";

/// Builds both images under the name `run`.
pub(super) async fn build(client: &Docker, run: &str) -> anyhow::Result<()> {
    let path = |name| program(name).display().to_string();
    let services = ["headwater"]
        .into_iter()
        .chain(Service::ALL.map(Service::program));
    let services: Vec<String> = services.map(path).collect();
    let nats_server = broker::find(&|_| {}).context("find nats-server")?.path;
    let nats_server = format!("{}:nats-server", nats_server.display());
    let folder = tempfile::TempDir::new().context("make a folder")?;
    let context = folder.path();
    std::fs::create_dir(context.join("data")).context("make a folder")?;
    std::fs::copy(
        shipped("nats-server.conf"),
        context.join("nats-server.conf"),
    )
    .context("copy the broker's configuration")?;
    make_rootfs(context, &services)?;
    build_one(client, &format!("{run}:{SERVICES}"), "Dockerfile", context).await?;
    make_rootfs(context, &[path("headwater"), nats_server])?;
    build_one(
        client,
        &format!("{run}:{BROKER}"),
        "nats.Dockerfile",
        context,
    )
    .await
}

/// Uses the daemon's classic builder: its layers are removed with the image, while those of
/// `BuildKit` stay in a cache.
async fn build_one(client: &Docker, name: &str, file: &str, context: &Path) -> anyhow::Result<()> {
    std::fs::copy(shipped(file), context.join("Dockerfile")).context("copy the Dockerfile")?;
    let archive = Command::new("tar")
        .arg("-C")
        .arg(context)
        .args(["-c", "."])
        .output();
    let archive = archive.context("run tar")?;
    if !archive.status.success() {
        bail!("tar: {}", String::from_utf8_lossy(&archive.stderr));
    }
    let options = BuildImageOptionsBuilder::new()
        .version(BuilderVersion::BuilderV1)
        .t(name)
        .rm(true)
        .forcerm(true)
        .build();
    let body = body_full(Bytes::from(archive.stdout));
    let steps = client.build_image(options, None, Some(body));
    let built: Result<Vec<_>, _> = steps.try_collect().await;
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

/// Does what `deploy/docker/build` does.
fn make_rootfs(context: &Path, programs: &[String]) -> anyhow::Result<()> {
    let rootfs = context.join("rootfs");
    if rootfs.exists() {
        std::fs::remove_dir_all(&rootfs).context("remove the files of another image")?;
    }
    let made = Command::new("bash")
        .arg(shipped("rootfs"))
        .arg(&rootfs)
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
