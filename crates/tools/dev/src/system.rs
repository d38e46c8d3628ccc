//! All processes: the broker and the services.

use std::convert::Infallible;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use broker::{Binary, Broker, Log, Options, Port, Tail};
use tokio::task::spawn_blocking;

use crate::Args;
use crate::build::Binaries;
use crate::child::Child;
use crate::data::Data;
use crate::ports::Ports;
use crate::screen::Screen;
use crate::service::Service;
use crate::signals::Signals;

/// How often the processes are checked.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long a service waits for requests in progress: less than we wait before we kill it.
const DRAIN: &str = "--drain-timeout=7s";

/// All running processes; they are killed on drop.
#[derive(Debug)]
pub(crate) struct System {
    screen: Screen,
    services: Vec<Child>,
    broker: Option<Broker>,
}

/// A started service.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) service: Service,
    pub(crate) url: String,
    /// The URL for health and metrics.
    pub(crate) admin_url: String,
    pub(crate) pid: u32,
    pub(crate) tail: Tail,
}

impl System {
    pub(crate) fn new(screen: Screen) -> Self {
        Self {
            screen,
            services: Vec::new(),
            broker: None,
        }
    }

    /// Starts the broker, unless an external one is used.
    pub(crate) async fn start_broker(
        &mut self,
        server: Option<Binary>,
        args: &Args,
        data: &Data,
    ) -> anyhow::Result<()> {
        let Some(server) = server else { return Ok(()) };
        let options = Options {
            port: match args.nats_port {
                0 => Port::Free,
                port => Port::Fixed(port),
            },
            log: Log::File(data.nats_log()),
            ..Options::new(data.nats())
        };
        self.screen
            .say(&format!("starting nats-server {} …", server.version));
        let started = spawn_blocking(move || Broker::start(&server, options));
        self.broker = Some(started.await.context("start nats-server")??);
        Ok(())
    }

    /// Starts the services; none waits for another.
    pub(crate) fn start_services(
        &mut self,
        binaries: &Binaries,
        ports: &Ports,
        args: &Args,
        data: &Data,
    ) -> anyhow::Result<()> {
        self.screen.say("starting the services …");
        for service in Service::all() {
            let mut command = Command::new(binaries.of(service)?);
            command
                .arg(format!("--listen=127.0.0.1:{}", ports.of(service)))
                .arg(format!("--admin-listen=127.0.0.1:{}", ports.admin(service)))
                .args(["--nats-url", &self.nats_url(args)])
                .args(["--log-format=pretty", DRAIN]);
            if let Some(style) = service.style() {
                command.args(["--style", style]);
                command.args(["--images-url", &ports.url(Service::named("products"))]);
                // The order form of every style sends there.
                command.args(["--orders-url", &ports.url(Service::named("orders"))]);
            }
            if service == Service::named("purchases-composition") {
                for source in [Service::named("users"), Service::named("products")] {
                    command.arg(format!("--{}-url={}", source.name(), ports.url(source)));
                }
            }
            if service.has_database() {
                command.arg("--database").arg(data.database(service));
            }
            let child = Child::spawn(service, command, self.screen)?;
            self.services.push(child);
        }
        Ok(())
    }

    fn nats_url(&self, args: &Args) -> String {
        match (&self.broker, &args.nats_url) {
            (Some(broker), _) => broker.url(),
            (None, Some(url)) => url.clone(),
            (None, None) => unreachable!("a broker is started unless there is a URL"),
        }
    }

    /// The URL of the broker, and its process id if we started it.
    pub(crate) fn nats(&self, args: &Args) -> (String, Option<u32>) {
        (self.nats_url(args), self.broker.as_ref().map(Broker::pid))
    }

    /// The started services.
    pub(crate) fn running(&self, ports: &Ports) -> Vec<Running> {
        let running = self.services.iter().map(|child| Running {
            service: child.service,
            url: ports.url(child.service),
            admin_url: format!("http://127.0.0.1:{}", ports.admin(child.service)),
            pid: child.pid(),
            tail: child.tail.clone(),
        });
        running.collect()
    }

    /// Waits until a process ends by itself; returns an error with its name, status and last log
    /// lines.
    pub(crate) async fn ended(&mut self) -> anyhow::Result<Infallible> {
        loop {
            for child in &mut self.services {
                let name = child.service.name();
                if let Some(status) = child.exited()? {
                    return Err(last_words(name, status, &child.tail.text()));
                }
            }
            if let Some(broker) = &mut self.broker
                && let Some(status) = broker.exited()
            {
                return Err(last_words("nats-server", status, &broker.log_tail()));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Stops the services one after another, then the broker; a signal meanwhile kills the rest.
    pub(crate) async fn stop(mut self, signals: &mut Signals) -> anyhow::Result<()> {
        if self.services.is_empty() && self.broker.is_none() {
            return Ok(());
        }
        self.screen.say("stopping; Ctrl-C kills at once …");
        tokio::select! {
            stopped = self.drain() => stopped,
            () = signals.next() => Err(anyhow!("killed before all had stopped")),
        }
    }

    async fn drain(&mut self) -> anyhow::Result<()> {
        for service in Service::stop_order() {
            let mut services = self.services.iter_mut();
            if let Some(child) = services.find(|child| child.service == service) {
                let stopped = child.stop(self.screen).await;
                stopped.with_context(|| format!("stop {}", service.name()))?;
            }
        }
        if let Some(mut broker) = self.broker.take() {
            let stopped = spawn_blocking(move || broker.stop());
            stopped.await.context("stop nats-server")??;
        }
        self.screen.say("stopped");
        Ok(())
    }
}

fn last_words(name: &str, status: ExitStatus, log: &str) -> anyhow::Error {
    let log = indented(log);
    anyhow!("{name} ended unexpectedly ({status}), so everything was stopped; its last lines:{log}")
}

/// Each line of a log on a separate, indented line.
pub(crate) fn indented(log: &str) -> String {
    log.lines().flat_map(|line| ["\n  ", line]).collect()
}
