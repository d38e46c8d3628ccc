//! A service in a container: the counterpart of a child process, with the same methods.

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

/// The pause between two looks at a container.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A container; it is removed when dropped.
#[derive(Debug)]
pub struct ContainerGuard {
    docker: &'static Docker,
    /// `None` once it is removed.
    container: Option<ContainerAsync<GenericImage>>,
    id: String,
}

impl ContainerGuard {
    /// Starts a container called `name`. Waits while its name or its port is taken.
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
                    let text = format!("{:#}", anyhow!(error));
                    // An ended container may still have the name.
                    let taken = [
                        "is already in use",
                        "is already allocated",
                        "address already in use",
                    ]
                    .iter()
                    .any(|taken| text.contains(taken));
                    anyhow::ensure!(taken && Instant::now() < deadline, "{text}");
                    std::thread::sleep(LOOK_EVERY);
                }
            }
        }
    }

    /// The id by which the daemon knows it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Sends a request to the daemon.
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

    pub fn inspect(&self) -> ContainerInspectResponse {
        let known = self.ask(|docker, id| async move {
            let options = None::<InspectContainerOptions>;
            docker.inspect_container(&id, options).await
        });
        known.expect("inspect a container")
    }

    /// The exit status, if it has ended. Docker reports a signal as 128 plus its number, as a shell
    /// does.
    pub fn exited(&self) -> Option<ExitStatus> {
        let state = self.inspect().state.expect("it has a state");
        if state.running != Some(false) {
            return None;
        }
        let code = i32::try_from(state.exit_code.unwrap_or_default()).expect("a small number");
        let raw = if code > 128 { code - 128 } else { code << 8 };
        Some(ExitStatus::from_raw(raw))
    }

    /// The result of its health check.
    pub fn health(&self) -> Option<HealthStatusEnum> {
        self.inspect().state?.health?.status
    }

    /// The address on this host that leads to `port`.
    pub fn address(&self, port: u16) -> Option<SocketAddr> {
        let ports = self.inspect().network_settings?.ports?;
        let bindings = ports.get(&format!("{port}/tcp"))?.as_ref()?;
        let host = bindings.first()?.host_port.as_ref()?.parse().ok()?;
        Some(SocketAddr::from((Ipv4Addr::LOCALHOST, host)))
    }

    /// The addresses on this host that lead to the service.
    pub fn addresses(&self) -> Option<Address> {
        let (http, admin) = (self.address(HTTP)?, self.address(ADMIN)?);
        Some(Address { http, admin })
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(&self) -> anyhow::Result<ExitStatus> {
        if let Some(status) = self.exited() {
            return Ok(status);
        }
        let killed = self.signal("SIGKILL");
        let status = self.ended();
        // The daemon refuses the signal only if the container has just ended.
        status.or_else(|error| killed.and(Err(error)))
    }

    /// Sends a signal to its first process.
    pub(crate) fn signal(&self, signal: &'static str) -> anyhow::Result<()> {
        self.ask(|docker, id| async move {
            let options = KillContainerOptionsBuilder::new().signal(signal).build();
            docker.kill_container(&id, Some(options)).await
        })
    }

    /// Sends its stop signal, and SIGKILL after `grace`.
    pub fn stop(&self, grace: Duration) -> anyhow::Result<ExitStatus> {
        self.ask(|docker, id| async move {
            let seconds = i32::try_from(grace.as_secs()).unwrap_or(i32::MAX);
            let options = StopContainerOptionsBuilder::new().t(seconds).build();
            docker.stop_container(&id, Some(options)).await
        })?;
        self.ended()
    }

    /// Starts the same container again after it has ended.
    pub fn start_again(&self) -> anyhow::Result<()> {
        self.ask(|docker, id| async move {
            let options = None::<StartContainerOptions>;
            docker.start_container(&id, options).await
        })
    }

    /// Freezes all its processes.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.ask(|docker, id| async move { docker.pause_container(&id).await })
    }

    pub fn resume(&self) -> anyhow::Result<()> {
        self.ask(|docker, id| async move { docker.unpause_container(&id).await })
    }

    /// Disconnects it from the network: messages to it and from it are lost.
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

    /// Connects it to the network again.
    pub fn reconnect(&self) {
        let network = self.docker.network();
        let reconnected = self.ask(|docker, id| async move {
            let request = NetworkConnectRequest {
                container: id,
                ..NetworkConnectRequest::default()
            };
            docker.connect_network(network, request).await
        });
        reconnected.expect("connect a container");
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
            anyhow::ensure!(Instant::now() < deadline, "the container has not ended");
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Copies its whole log to the end of `file`; the receiver disconnects when the log ends.
    fn copy_log(&self, file: &Path) -> anyhow::Result<mpsc::Receiver<()>> {
        let mut file = OpenOptions::new().create(true).append(true).open(file)?;
        let options = LogsOptionsBuilder::new().stdout(true).stderr(true);
        let options = options.follow(true).build();
        let mut frames = self.docker.client().logs(&self.id, Some(options));
        let (copying, copied) = mpsc::channel();
        self.docker.runtime.spawn(async move {
            let _until_the_end: mpsc::Sender<()> = copying;
            while let Some(Ok(frame)) = frames.next().await {
                // Keep reading even if the disk is full.
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

/// The same restrictions as in `deploy/compose.yaml`.
fn locked_down(request: ContainerRequest<GenericImage>) -> ContainerRequest<GenericImage> {
    request
        .with_readonly_rootfs(true)
        .with_cap_drop("ALL")
        .with_security_opt("no-new-privileges")
}

/// User and group of this process, so that the test owns the files in its folder.
pub(super) fn ourselves() -> String {
    let (user, group) = (rustix::process::getuid(), rustix::process::getgid());
    format!("{}:{}", user.as_raw(), group.as_raw())
}

/// Publishes ports of a container on the loopback address; 0 means any port.
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
    guard: ContainerGuard,
    log: PathBuf,
    /// Where this run begins in the log file, which all runs of the service share.
    log_from: u64,
    copied: mpsc::Receiver<()>,
    address: Option<Address>,
    ended: Option<ExitStatus>,
}

impl Container {
    /// Starts `command` in a container called `name`, with the image's program of that name. The
    /// container sees `folder` under the same path. It listens on `port` of this host, or on any
    /// port if `port` is 0.
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
                // The tests check health themselves.
                .with_health_check(Healthcheck::none());
            for (variable, value) in command.get_envs() {
                request = request.with_env_var(text(variable), value.map(text).unwrap_or_default());
            }
            published(request, [(HTTP, port), (ADMIN, 0)])
        };
        let log_from = std::fs::metadata(&log).map_or(0, |file| file.len());
        let guard = ContainerGuard::start(docker, name, request);
        let guard = guard.unwrap_or_else(|error| panic!("start {name}: {error:#}"));
        Self {
            copied: guard.copy_log(&log).expect("follow the log"),
            address: guard.addresses(),
            guard,
            log,
            log_from,
            ended: None,
        }
    }

    pub fn guard(&self) -> &ContainerGuard {
        &self.guard
    }

    /// The exit status, if it has ended; then its log is complete.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.guard.exited();
            if self.ended.is_some() {
                // Nothing is ever sent: this waits until the log has ended.
                let _ = self.copied.recv_timeout(PATIENCE);
            }
        }
        self.ended
    }

    /// Its addresses on this host, once its log says that it listens.
    pub fn address(&self) -> Option<Address> {
        Address::logged(&self.log()).and(self.address)
    }

    /// What this run has logged.
    pub fn log(&self) -> String {
        crate::process::log_from(&self.log, self.log_from)
    }
}
