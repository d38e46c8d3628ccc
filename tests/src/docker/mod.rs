//! Services and broker in containers, where a Docker daemon answers.
//!
//! Each test process has one [`Docker`]: two images, built once from the programs next to the test
//! and the shipped Dockerfiles; one network, in which containers find each other by name; and a
//! reaper, which removes everything when the process ends, however it ends.

mod container;
mod image;
mod reaper;
mod server;
mod turn;

use std::future::Future;
use std::io::Write as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{OnceLock, mpsc};

use anyhow::Context as _;
use testcontainers::GenericImage;
use testcontainers::bollard;
use testcontainers::bollard::models::{
    ContainerCreateBody, HostConfig, Mount, MountType, NetworkCreateRequest,
};
use testcontainers::bollard::query_parameters::{
    CreateContainerOptions, RemoveContainerOptionsBuilder, StartContainerOptions,
};
use testcontainers::core::client::docker_client_instance;
use tokio::runtime::Runtime;

pub use container::{Container, ContainerGuard, published};
pub use reaper::{Reaper, reap};
pub use server::Server;
pub use turn::Turn;

/// The label of everything that a test process makes; its value is the process's name.
pub const LABEL: &str = "io.headwater.e2e";

/// The port on which services listen in their containers.
pub const HTTP: u16 = 8080;

/// The port for health and metrics in their containers.
pub const ADMIN: u16 = 9080;

/// What the tests of this process need from Docker.
#[derive(Debug)]
pub struct Docker {
    /// A separate runtime: a connection to the daemon belongs to one runtime, and each test has its
    /// own.
    runtime: Runtime,
    client: bollard::Docker,
    /// Names this process in everything that it makes.
    run: String,
    names: AtomicU32,
    _reaper: Reaper,
}

impl Docker {
    /// The daemon, if one answers, prepared for the tests.
    pub fn find() -> Option<&'static Self> {
        Self::found().ok()
    }

    /// Like [`find`](Self::find), with the reason if no daemon answers.
    fn found() -> Result<&'static Self, &'static str> {
        static FOUND: OnceLock<Result<Docker, String>> = OnceLock::new();
        let found = FOUND.get_or_init(|| Self::start().map_err(|error| format!("{error:#}")));
        let must = std::env::var("HEADWATER_REQUIRE_DOCKER").is_ok_and(|value| value == "1");
        match found {
            Err(why) if must => panic!("HEADWATER_REQUIRE_DOCKER=1, but {why}"),
            found => found.as_ref().map_err(String::as_str),
        }
    }

    /// Where tests run that can run anywhere: `HEADWATER_E2E` decides, else whether a daemon
    /// answers. Reports the choice once.
    pub fn chosen() -> Option<&'static Self> {
        static CHOSEN: OnceLock<Option<&'static Docker>> = OnceLock::new();
        *CHOSEN.get_or_init(|| {
            let wanted = std::env::var("HEADWATER_E2E").unwrap_or_default();
            let found = match wanted.as_str() {
                "children" => Err("HEADWATER_E2E=children"),
                "containers" => match Self::found() {
                    Err(why) => panic!("HEADWATER_E2E=containers, but {why}"),
                    found => found,
                },
                "" => Self::found(),
                other => panic!("HEADWATER_E2E is `{other}`; use `children` or `containers`"),
            };
            let which = match found {
                Ok(_) => "in containers, where a test does not need them on the host".to_owned(),
                Err(why) => format!("as child processes: {why}"),
            };
            // A closed stderr must not fail the test.
            let _ = writeln!(std::io::stderr(), "e2e: services and broker run {which}");
            found.ok()
        })
    }

    fn start() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("docker")
            .enable_all()
            .build()
            .context("start a runtime")?;
        let run = format!("headwater-e2e-{}", uuid::Uuid::now_v7().simple());
        match Self::engine(&runtime, &run) {
            Ok((client, reaper)) => Ok(Self {
                runtime,
                client,
                run,
                names: AtomicU32::new(1),
                _reaper: reaper,
            }),
            Err(error) => {
                // A drop would block on the runtime's threads, which an async test may not.
                runtime.shutdown_background();
                Err(error)
            }
        }
    }

    /// The daemon with the images of `run`, and the reaper that removes them.
    fn engine(runtime: &Runtime, run: &str) -> anyhow::Result<(bollard::Docker, Reaper)> {
        let client = block_on(runtime, async {
            let client = docker_client_instance().await?;
            client.ping().await?;
            anyhow::Ok(client)
        });
        let client = client.context("no Docker daemon answers")?;
        // Starts before there is anything to remove.
        let reaper = Reaper::over(run).context("start the reaper")?;
        block_on(runtime, prepare(client.clone(), run.to_owned()))?;
        Ok((client, reaper))
    }

    /// A unique name for a container, also in the network.
    pub fn name(&self, what: &str) -> String {
        let number = self.names.fetch_add(1, Ordering::Relaxed);
        format!("{}-{number}-{what}", self.run)
    }

    /// The client, for a test's own requests to the daemon.
    pub fn client(&self) -> bollard::Docker {
        self.client.clone()
    }

    /// The image with all services.
    pub fn services(&self) -> GenericImage {
        image::services(&self.run)
    }

    /// The network of all containers of this process.
    pub fn network(&self) -> &str {
        &self.run
    }

    /// Removes a container that could not be started.
    fn remove(&self, name: &str) {
        let (client, name) = (self.client.clone(), name.to_owned());
        // The container may not even exist.
        let _ = self.wait(async move {
            let options = RemoveContainerOptionsBuilder::new().force(true).v(true);
            client.remove_container(&name, Some(options.build())).await
        });
    }

    /// Runs `work` on the runtime of the connection to the daemon and blocks until it is done. The
    /// harness blocks on child processes, too.
    pub fn wait<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        block_on(&self.runtime, work)
    }
}

/// Makes the images and the network of the process `run`, and checks that the daemon can mount
/// folders of this machine.
async fn prepare(client: bollard::Docker, run: String) -> anyhow::Result<()> {
    image::build(&client, &run).await?;
    sees_our_folders(&client, &run)
        .await
        .context("the Docker daemon cannot mount a folder of this machine")?;
    let network = NetworkCreateRequest {
        name: run.clone(),
        labels: Some([(LABEL.to_owned(), run)].into()),
        ..NetworkCreateRequest::default()
    };
    let made = client.create_network(network).await;
    made.context("make a network").map(drop)
}

async fn sees_our_folders(client: &bollard::Docker, run: &str) -> anyhow::Result<()> {
    let folder = tempfile::TempDir::new()?;
    let place = folder.path().display();
    let request = ContainerCreateBody {
        image: Some(format!("{run}:services")),
        labels: Some([(LABEL.to_owned(), run.to_owned())].into()),
        host_config: Some(HostConfig {
            mounts: Some(vec![Mount {
                source: Some(place.to_string()),
                target: Some(place.to_string()),
                typ: Some(MountType::BIND),
                ..Mount::default()
            }]),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let options = None::<CreateContainerOptions>;
    let id = client.create_container(options, request).await?.id;
    let options = None::<StartContainerOptions>;
    client.start_container(&id, options).await?;
    let options = RemoveContainerOptionsBuilder::new().force(true).v(true);
    Ok(client.remove_container(&id, Some(options.build())).await?)
}

/// Like `Runtime::block_on`, but also works on another runtime.
fn block_on<T: Send + 'static>(
    runtime: &Runtime,
    work: impl Future<Output = T> + Send + 'static,
) -> T {
    let (done, outcome) = mpsc::channel();
    runtime.spawn(async move {
        // The receiver waits below.
        let _ = done.send(work.await);
    });
    outcome.recv().expect("the work does not panic")
}
