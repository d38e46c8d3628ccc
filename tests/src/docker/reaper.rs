//! Removes what a test process made in Docker after that process has ended: normally, by a panic,
//! by Ctrl-C or by `kill -9`.
//!
//! The reaper is a separate process that reads from a pipe. The test holds the other end; when the
//! test is gone, the kernel closes the pipe.

use std::collections::HashMap;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::Context as _;
use testcontainers::bollard::Docker;
use testcontainers::bollard::query_parameters::{
    ListContainersOptionsBuilder, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveImageOptionsBuilder, RemoveVolumeOptions,
};
use testcontainers::core::client::docker_client_instance;

use super::{LABEL, image};
use crate::program;

/// Waits until the process that started it is gone.
#[derive(Debug)]
pub struct Reaper(
    /// Its standard input stays open as long as this process lives.
    Child,
);

impl Reaper {
    /// Starts a reaper for the process `run`, in a process group that Ctrl-C does not reach.
    pub fn over(run: &str) -> std::io::Result<Self> {
        let process = Command::new(program("e2e"))
            .args(["reap", run])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(Self(process))
    }

    /// Acts as if the process had ended; waits until everything is removed.
    pub fn end(mut self) -> std::io::Result<ExitStatus> {
        drop(self.0.stdin.take());
        self.0.wait()
    }
}

/// Waits until standard input ends, then removes what the test process `run` made.
pub async fn reap(run: &str) -> anyhow::Result<()> {
    let input = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    input.await.context("wait")?.context("read the pipe")?;
    let docker = docker_client_instance().await?;
    let label = HashMap::from([("label".to_owned(), vec![format!("{LABEL}={run}")])]);
    remove_containers(&docker, &label).await?;
    let filter = ListVolumesOptionsBuilder::new().filters(&label).build();
    let volumes = docker.list_volumes(Some(filter)).await?.volumes;
    for volume in volumes.unwrap_or_default() {
        let options = None::<RemoveVolumeOptions>;
        docker.remove_volume(&volume.name, options).await?;
    }
    let filter = ListNetworksOptionsBuilder::new().filters(&label).build();
    for network in docker.list_networks(Some(filter)).await? {
        docker
            .remove_network(&network.id.unwrap_or_default())
            .await?;
    }
    for image in image::names(run) {
        let options = RemoveImageOptionsBuilder::new().force(true).build();
        // The process may have ended before it built them.
        let _ = docker.remove_image(&image, Some(options), None).await;
    }
    Ok(())
}

async fn remove_containers(
    docker: &Docker,
    label: &HashMap<String, Vec<String>>,
) -> anyhow::Result<()> {
    let filter = ListContainersOptionsBuilder::new().all(true).filters(label);
    for container in docker.list_containers(Some(filter.build())).await? {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true);
        let id = container.id.unwrap_or_default();
        // Its own removal may be in progress.
        let _ = docker.remove_container(&id, Some(options.build())).await;
    }
    Ok(())
}
