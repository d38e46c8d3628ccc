//! A service in a container: what `Process` is for a child, with the same words.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use futures_util::StreamExt as _;
use testcontainers::bollard::models::{
    HealthStatusEnum, NetworkConnectRequest, NetworkDisconnectRequest, PortBinding,
};
use testcontainers::bollard::query_parameters::{
    InspectContainerOptions, KillContainerOptionsBuilder, LogsOptionsBuilder,
    StartContainerOptions, StopContainerOptionsBuilder,
};
use testcontainers::bollard::{self, models::ContainerInspectResponse};
use testcontainers::core::{Healthcheck, Mount, WaitFor};
use testcontainers::runners::AsyncRunner as _;
use testcontainers::{ContainerAsync, ContainerRequest, GenericImage, ImageExt as _};

use super::{ADMIN, Docker, HTTP, LABEL, image};
use crate::PATIENCE;
use crate::process::Address;

/// How long to wait between two looks at a container.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A container, which is removed when dropped.
#[derive(Debug)]
pub struct ContainerGuard {
    docker: &'static Docker,
    /// Taken when it is removed.
    container: Option<ContainerAsync<GenericImage>>,
    id: String,
}

impl ContainerGuard {
    /// Starts a container called `name`, with all that is taken from it. Waits while its port is
    /// somebody else's.
    ///
    /// # Errors
    /// The daemon's.
    pub fn start(
        docker: &'static Docker,
        name: &str,
        request: impl Fn() -> ContainerRequest<GenericImage>,
    ) -> anyhow::Result<Self> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let request = locked_down(request())
                .with_container_name(name)
                .with_network(docker.network())
                .with_label(LABEL, docker.network())
                .with_ready_conditions(vec![WaitFor::Nothing]);
            match docker.wait(async { request.start().await }) {
                Ok(container) => {
                    return Ok(Self {
                        docker,
                        id: container.id().to_owned(),
                        container: Some(container),
                    });
                }
                Err(error) => {
                    docker.remove(name);
                    let said = format!("{:#}", anyhow!(error));
                    // A container before it, which has ended, may still have the name.
                    let taken = [
                        "is already in use",
                        "is already allocated",
                        "address already in use",
                    ]
                    .iter()
                    .any(|taken| said.contains(taken));
                    anyhow::ensure!(taken && Instant::now() < deadline, "{said}");
                    std::thread::sleep(LOOK_EVERY);
                }
            }
        }
    }

    /// Its id, by which the daemon knows it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Asks the daemon for something.
    pub(super) fn ask<T: Send + 'static, F>(
        &self,
        question: impl FnOnce(bollard::Docker, String) -> F,
    ) -> anyhow::Result<T>
    where
        F: Future<Output = Result<T, bollard::errors::Error>> + Send + 'static,
    {
        let answer = question(self.docker.client(), self.id.clone());
        self.docker.wait(answer).context("ask the Docker daemon")
    }

    /// What the daemon knows of it.
    pub fn inspect(&self) -> ContainerInspectResponse {
        let known = self.ask(|docker, id| async move {
            let options = None::<InspectContainerOptions>;
            docker.inspect_container(&id, options).await
        });
        known.expect("inspect a container")
    }

    /// How it ended, if it has: the numbers above 128 of a shell are signals again.
    pub fn exited(&self) -> Option<ExitStatus> {
        let state = self.inspect().state.expect("it has a state");
        if state.running != Some(false) {
            return None;
        }
        let code = i32::try_from(state.exit_code.unwrap_or_default()).expect("a small number");
        let raw = if code > 128 { code - 128 } else { code << 8 };
        Some(ExitStatus::from_raw(raw))
    }

    /// What its health check says.
    pub fn health(&self) -> Option<HealthStatusEnum> {
        self.inspect().state?.health?.status
    }

    /// The address on this host that leads to its port.
    pub fn address(&self, port: u16) -> Option<SocketAddr> {
        let ports = self.inspect().network_settings?.ports?;
        let bindings = ports.get(&format!("{port}/tcp"))?.as_ref()?;
        let host = bindings.first()?.host_port.as_ref()?.parse().ok()?;
        Some(SocketAddr::from((Ipv4Addr::LOCALHOST, host)))
    }

    /// The addresses on this host that lead to a service in it.
    pub fn addresses(&self) -> Option<Address> {
        let (http, admin) = (self.address(HTTP)?, self.address(ADMIN)?);
        Some(Address { http, admin })
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&self) -> anyhow::Result<ExitStatus> {
        if let Some(status) = self.exited() {
            return Ok(status);
        }
        let killed = self.signal("SIGKILL");
        let status = self.ended();
        // Refused only if it has just ended by itself.
        status.or_else(|error| killed.and(Err(error)))
    }

    /// A signal for its first process.
    pub(crate) fn signal(&self, signal: &'static str) -> anyhow::Result<()> {
        self.ask(|docker, id| async move {
            let options = KillContainerOptionsBuilder::new().signal(signal).build();
            docker.kill_container(&id, Some(options)).await
        })
    }

    /// Its stop signal, and SIGKILL where that is not enough within `grace`.
    pub fn stop(&self, grace: Duration) -> anyhow::Result<ExitStatus> {
        self.ask(|docker, id| async move {
            let seconds = i32::try_from(grace.as_secs()).unwrap_or(i32::MAX);
            let options = StopContainerOptionsBuilder::new().t(seconds).build();
            docker.stop_container(&id, Some(options)).await
        })?;
        self.ended()
    }

    /// The same container once more, after it has ended.
    pub fn start_again(&self) -> anyhow::Result<()> {
        self.ask(|docker, id| async move {
            let options = None::<StartContainerOptions>;
            docker.start_container(&id, options).await
        })
    }

    /// Freezes all that is in it.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.ask(|docker, id| async move { docker.pause_container(&id).await })
    }

    /// Lets it go on.
    pub fn resume(&self) -> anyhow::Result<()> {
        self.ask(|docker, id| async move { docker.unpause_container(&id).await })
    }

    /// Takes it out of the network: nobody hears of it, and what is sent to it is lost.
    pub fn cut(&self) {
        let network = self.docker.network();
        let cut = self.ask(|docker, id| async move {
            let request = NetworkDisconnectRequest {
                container: id,
                force: Some(true),
            };
            docker.disconnect_network(network, request).await
        });
        cut.expect("disconnect a container");
    }

    /// Puts it back into the network.
    pub fn mend(&self) {
        let network = self.docker.network();
        let mended = self.ask(|docker, id| async move {
            let request = NetworkConnectRequest {
                container: id,
                ..NetworkConnectRequest::default()
            };
            docker.connect_network(network, request).await
        });
        mended.expect("connect a container");
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        let options = LogsOptionsBuilder::new().stdout(true).stderr(true);
        let options = options.tail("40").build();
        let mut frames = self.docker.client().logs(&self.id, Some(options));
        self.docker.wait(async move {
            let mut text = String::new();
            while let Some(Ok(frame)) = frames.next().await {
                text += &frame.to_string();
            }
            text
        })
    }

    /// Removes it, as it is.
    pub(super) fn remove(&mut self) {
        if let Some(container) = self.container.take() {
            // The reaper tries again.
            let _ = self.docker.wait(async { container.rm().await });
        }
    }

    fn ended(&self) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.exited() {
                return Ok(status);
            }
            anyhow::ensure!(Instant::now() < deadline, "it runs on");
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Copies its log to the end of `file`, from its start; the receiver ends when the log does.
    fn copy_log(&self, file: &Path) -> anyhow::Result<mpsc::Receiver<()>> {
        let mut file = OpenOptions::new().create(true).append(true).open(file)?;
        let options = LogsOptionsBuilder::new().stdout(true).stderr(true);
        let options = options.follow(true).build();
        let mut frames = self.docker.client().logs(&self.id, Some(options));
        let (copying, copied) = mpsc::channel();
        self.docker.runtime.spawn(async move {
            let _until_the_end: mpsc::Sender<()> = copying;
            while let Some(Ok(frame)) = frames.next().await {
                // A full disk must not stop the reading.
                let _ = file.write_all(&frame.into_bytes());
            }
        });
        Ok(copied)
    }
}

impl Drop for ContainerGuard {
    fn drop(&mut self) {
        self.remove();
    }
}

/// As `deploy/compose.yaml` runs it.
fn locked_down(request: ContainerRequest<GenericImage>) -> ContainerRequest<GenericImage> {
    request
        .with_readonly_rootfs(true)
        .with_cap_drop("ALL")
        .with_security_opt("no-new-privileges")
}

/// Who we are: files in the folder of a test must be the test's own.
pub(super) fn ourselves() -> String {
    let (user, group) = (rustix::process::getuid(), rustix::process::getgid());
    format!("{}:{}", user.as_raw(), group.as_raw())
}

/// Ports of a container become ports of the loopback address; 0 is any.
pub fn published<const COUNT: usize>(
    request: ContainerRequest<GenericImage>,
    ports: [(u16, u16); COUNT],
) -> ContainerRequest<GenericImage> {
    request.with_host_config_modifier(move |config| {
        let bindings = ports.map(|(port, host)| {
            let binding = PortBinding {
                host_ip: Some(Ipv4Addr::LOCALHOST.to_string()),
                host_port: (host != 0).then(|| host.to_string()),
            };
            (format!("{port}/tcp"), Some(vec![binding]))
        });
        config.publish_all_ports = Some(false);
        config.port_bindings = Some(bindings.into());
    })
}

/// A service in a container.
#[derive(Debug)]
pub struct Container {
    held: ContainerGuard,
    log: PathBuf,
    /// Where its own log begins in the file, which all runs of the service share.
    log_from: u64,
    copied: mpsc::Receiver<()>,
    address: Option<Address>,
    ended: Option<ExitStatus>,
}

impl Container {
    /// Starts what `command` says, with the program of the image, in a container called `name`, which sees
    /// `folder` under the same path; on `port` of this host, or on any if that is 0.
    pub fn start(
        docker: &'static Docker,
        name: &str,
        command: &Command,
        folder: &Path,
        port: u16,
        log: PathBuf,
    ) -> Self {
        let text = |text: &std::ffi::OsStr| text.to_str().expect("UTF-8").to_owned();
        let program = Path::new(command.get_program()).file_name();
        let args = program.into_iter().chain(command.get_args()).map(text);
        let args: Vec<String> = args.collect();
        let place = folder.to_str().expect("UTF-8");
        let request = || {
            let mut request = image::services(docker.network())
                .with_cmd(args.clone())
                .with_user(ourselves())
                .with_working_dir(place)
                .with_mount(Mount::bind_mount(place, place))
                // The tests ask for themselves.
                .with_health_check(Healthcheck::none());
            for (variable, value) in command.get_envs() {
                request = request.with_env_var(text(variable), value.map(text).unwrap_or_default());
            }
            published(request, [(HTTP, port), (ADMIN, 0)])
        };
        let log_from = std::fs::metadata(&log).map_or(0, |file| file.len());
        let held = ContainerGuard::start(docker, name, request);
        let held = held.unwrap_or_else(|error| panic!("start {name}: {error:#}"));
        Self {
            copied: held.copy_log(&log).expect("follow the log"),
            address: held.addresses(),
            held,
            log,
            log_from,
            ended: None,
        }
    }

    /// The container.
    pub fn held(&self) -> &ContainerGuard {
        &self.held
    }

    /// How it ended, if it has; its log is whole then.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.held.exited();
            if self.ended.is_some() {
                // Nothing is ever sent: it waits for the end.
                let _ = self.copied.recv_timeout(PATIENCE);
            }
        }
        self.ended
    }

    /// Where it is on this host, once it says that it listens.
    pub fn address(&self) -> Option<Address> {
        Address::logged(&self.log()).and(self.address)
    }

    /// What this run has logged.
    pub fn log(&self) -> String {
        crate::process::log_from(&self.log, self.log_from)
    }
}
