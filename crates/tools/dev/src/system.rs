//! All processes: the broker and the services. One task owns them; the control room sends it
//! commands.

use std::convert::Infallible;
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use broker::{Binary, Broker, Log, Options, Port, Tail};
use headwater_testkit::Link;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::Args;
use crate::build::Binaries;
use crate::child::{Child, Recipe, is_paused};
use crate::control::{Command, Commands, Seen, State, Verb};
use crate::data::Data;
use crate::ports::Ports;
use crate::screen::Screen;
use crate::service::Service;
use crate::signals::Signals;

/// How often the processes are checked.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long a service waits for requests in progress: less than we wait before we kill it.
const DRAIN: &str = "--drain-timeout=7s";

/// The broker's name among the processes.
pub(crate) const BROKER: &str = "nats-server";

/// The service whose link can be slowed.
pub(crate) const SLOWED: &str = "orders";

/// All running processes; they are killed on drop.
#[derive(Debug)]
pub(crate) struct System {
    screen: Screen,
    services: Vec<Child>,
    broker: Server,
    /// See [`Links`].
    links: Option<Arc<Links>>,
    /// What commands came to. It is sent when the states of the processes show it.
    answers: Vec<(Answer, Result<(), String>)>,
}

type Answer = oneshot::Sender<Result<(), String>>;

/// The broker.
#[derive(Debug)]
enum Server {
    /// It is not started yet, or runs elsewhere.
    None,
    Ours {
        broker: Box<Broker>,
        /// Whether the control room ended it.
        may_end: bool,
    },
    /// It is being started or stopped, which blocks.
    Busy {
        state: State,
        pid: u32,
        work: JoinHandle<(Box<Broker>, Result<(), broker::Error>)>,
        answer: Answer,
    },
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

/// The links between [`SLOWED`] and the broker and between it and API composition, on which the
/// control room sets a delay. They cost two more copies on this machine.
#[derive(Debug)]
pub(crate) struct Links {
    broker: Link,
    service: Link,
}

impl Links {
    async fn new(broker: u16, service: u16) -> Self {
        let to = async |port: u16| {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            Link::to(address, u64::MAX, Duration::ZERO).await
        };
        Self {
            broker: to(broker).await,
            service: to(service).await,
        }
    }

    /// Sets the delay of each direction.
    pub(crate) fn set_delay(&self, delay: Duration) {
        self.broker.set_delay(delay);
        self.service.set_delay(delay);
    }
}

impl System {
    pub(crate) fn new(screen: Screen) -> Self {
        Self {
            screen,
            services: Vec::new(),
            broker: Server::None,
            links: None,
            answers: Vec::new(),
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
        self.broker = Server::Ours {
            broker: Box::new(started.await.context("start nats-server")??),
            may_end: false,
        };
        Ok(())
    }

    /// Opens the links that the control room can slow; none with a broker elsewhere. They last until
    /// the services have stopped.
    pub(crate) async fn open_links(&mut self, ports: &Ports) {
        if let Server::Ours { broker, .. } = &self.broker {
            let service = ports.of(Service::named(SLOWED));
            self.links = Some(Arc::new(Links::new(broker.port(), service).await));
        }
    }

    pub(crate) fn links(&self) -> Option<Arc<Links>> {
        self.links.clone()
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
        let links = self.links.clone();
        let links = links.as_deref();
        for service in Service::all() {
            let is_slowed = service == Service::named(SLOWED);
            let nats_url = match links.filter(|_| is_slowed) {
                Some(links) => links.broker.url(),
                None => self.nats_url(args),
            };
            let mut arguments: Vec<OsString> = vec![
                format!("--listen=127.0.0.1:{}", ports.of(service)).into(),
                format!("--admin-listen=127.0.0.1:{}", ports.admin(service)).into(),
                "--nats-url".into(),
                nats_url.into(),
                "--log-format=pretty".into(),
                DRAIN.into(),
            ];
            if let Some(style) = service.style() {
                arguments.extend(["--style".into(), style.into()]);
                let images = ports.url(Service::named("products"));
                arguments.extend(["--images-url".into(), images.into()]);
                // Also the order form of each style sends there.
                let link = links.filter(|_| style == "composition");
                let orders = match link {
                    Some(links) => format!("http://{}", links.service.address()),
                    None => ports.url(Service::named("orders")),
                };
                arguments.extend(["--orders-url".into(), orders.into()]);
            }
            if service == Service::named("purchases-composition") {
                for source in ["users", "products"] {
                    let url = ports.url(Service::named(source));
                    arguments.push(format!("--{source}-url={url}").into());
                }
            }
            if service.has_database() {
                arguments.extend(["--database".into(), data.database(service).into()]);
            }
            let recipe = Recipe {
                program: binaries.of(service)?.to_owned(),
                arguments,
            };
            self.services
                .push(Child::spawn(service, recipe, self.screen)?);
        }
        Ok(())
    }

    fn nats_url(&self, args: &Args) -> String {
        match (&self.broker, &args.nats_url) {
            (Server::Ours { broker, .. }, _) => broker.url(),
            (_, Some(url)) => url.clone(),
            (_, None) => unreachable!("a broker is started unless there is a URL"),
        }
    }

    /// The URL of the broker, and its process id if we started it.
    pub(crate) fn nats(&self, args: &Args) -> (String, Option<u32>) {
        let pid = match &self.broker {
            Server::Ours { broker, .. } => Some(broker.pid()),
            Server::None | Server::Busy { .. } => None,
        };
        (self.nats_url(args), pid)
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

    /// Obeys commands until a process ends by itself; returns an error with its name, status and
    /// last log lines.
    pub(crate) async fn supervise(&mut self, mut room: Commands) -> anyhow::Result<Infallible> {
        loop {
            let seen = self.look().await?;
            room.seen.send_if_modified(|now| {
                let is_new = *now != seen;
                *now = seen;
                is_new
            });
            for (answer, done) in self.answers.drain(..) {
                let _unheard = answer.send(done);
            }
            tokio::select! {
                Some(command) = room.commands.recv() => self.obey(command),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// The states of all processes.
    async fn look(&mut self) -> anyhow::Result<Vec<Seen>> {
        let mut all = Vec::new();
        for child in &mut self.services {
            let name = child.service.name();
            match child.look(self.screen)? {
                Ok(state) => all.push(Seen {
                    name,
                    state,
                    pid: child.pid(),
                }),
                Err(status) => return Err(last_words(name, status, &child.tail.text())),
            }
        }
        if let Some((state, pid)) = self.look_at_broker().await? {
            all.push(Seen {
                name: BROKER,
                state,
                pid,
            });
        }
        Ok(all)
    }

    async fn look_at_broker(&mut self) -> anyhow::Result<Option<(State, u32)>> {
        if matches!(&self.broker, Server::Busy { work, .. } if work.is_finished())
            && let Server::Busy {
                state,
                work,
                answer,
                ..
            } = std::mem::replace(&mut self.broker, Server::None)
        {
            let (broker, done) = work.await.context("start or stop nats-server")?;
            let may_end = state == State::Stopping || done.is_err();
            self.broker = Server::Ours { broker, may_end };
            self.answers.push((answer, done.map_err(said)));
        }
        match &mut self.broker {
            Server::None => Ok(None),
            Server::Busy { state, pid, .. } => Ok(Some((*state, *pid))),
            Server::Ours { broker, may_end } => {
                let state = match broker.exited() {
                    Some(_) if *may_end => State::Stopped,
                    Some(status) => return Err(last_words(BROKER, status, &broker.log_tail())),
                    None if is_paused(broker.pid()) => State::Paused,
                    None => State::Running,
                };
                Ok(Some((state, broker.pid())))
            }
        }
    }

    fn obey(&mut self, command: Command) {
        let Command { name, verb, answer } = command;
        if name == BROKER {
            return self.obey_broker(verb, answer);
        }
        let mut services = self.services.iter_mut();
        let done = match services.find(|child| child.service.name() == name) {
            Some(child) => obey_service(child, verb, self.screen),
            None => Err(format!("There is no process {name}.")),
        };
        self.answers.push((answer, done));
    }

    fn obey_broker(&mut self, verb: Verb, answer: Answer) {
        let refused = match &mut self.broker {
            Server::None => Some(format!("{BROKER} runs elsewhere.")),
            Server::Busy { state, .. } => Some(format!("{BROKER} is {}.", state.name())),
            Server::Ours { broker, .. } => fits(verb, broker.exited().is_none(), BROKER).err(),
        };
        if let Some(refused) = refused {
            self.answers.push((answer, Err(refused)));
            return;
        }
        let Server::Ours {
            mut broker,
            mut may_end,
        } = std::mem::replace(&mut self.broker, Server::None)
        else {
            unreachable!("checked above");
        };
        let pid = broker.pid();
        self.broker = match verb {
            Verb::Start => Server::Busy {
                state: State::Starting,
                pid,
                work: spawn_blocking(move || {
                    let done = broker.restart();
                    (broker, done)
                }),
                answer,
            },
            Verb::Stop => Server::Busy {
                state: State::Stopping,
                pid,
                work: spawn_blocking(move || {
                    let done = broker.stop().map(|_| ());
                    (broker, done)
                }),
                answer,
            },
            Verb::Pause | Verb::Continue | Verb::Kill => {
                let done = match verb {
                    Verb::Pause => broker.pause(),
                    Verb::Continue => broker.resume(),
                    _ => {
                        may_end = true;
                        broker.kill().map(|_| ())
                    }
                };
                self.answers.push((answer, done.map_err(said)));
                Server::Ours { broker, may_end }
            }
        };
    }

    /// Stops the services one after another, then the broker; a signal meanwhile kills the rest.
    pub(crate) async fn stop(mut self, signals: &mut Signals) -> anyhow::Result<()> {
        if self.services.is_empty() && matches!(self.broker, Server::None) {
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
        let broker = match std::mem::replace(&mut self.broker, Server::None) {
            Server::None => None,
            Server::Ours { broker, .. } => Some(broker),
            Server::Busy { work, .. } => Some(work.await.context("start or stop nats-server")?.0),
        };
        if let Some(mut broker) = broker {
            let stopped = spawn_blocking(move || broker.stop());
            stopped.await.context("stop nats-server")??;
        }
        self.screen.say("stopped");
        Ok(())
    }
}

fn obey_service(child: &mut Child, verb: Verb, screen: Screen) -> Result<(), String> {
    let state = child.look(screen).map_err(said)?;
    let is_running = matches!(state, Ok(state) if state != State::Stopped);
    fits(verb, is_running, child.service.name())?;
    let done = match verb {
        Verb::Start => child.restart(screen),
        Verb::Stop => child.terminate(),
        Verb::Pause => child.pause(),
        Verb::Continue => child.resume(),
        Verb::Kill => child.kill(),
    };
    done.map_err(said)
}

/// Whether a process can do what is asked of it.
fn fits(verb: Verb, is_running: bool, name: &str) -> Result<(), String> {
    match (verb, is_running) {
        (Verb::Start, true) => Err(format!("{name} is running already.")),
        (Verb::Start, false) | (_, true) => Ok(()),
        (_, false) => Err(format!("{name} is not running.")),
    }
}

/// An error as a sentence.
fn said(error: broker::Error) -> String {
    format!("That failed: {:#}.", anyhow::Error::new(error))
}

fn last_words(name: &str, status: ExitStatus, log: &str) -> anyhow::Error {
    let log = indented(log);
    anyhow!("{name} ended unexpectedly ({status}), so everything was stopped; its last lines:{log}")
}

/// Each line of a log on a separate, indented line.
pub(crate) fn indented(log: &str) -> String {
    log.lines().flat_map(|line| ["\n  ", line]).collect()
}
