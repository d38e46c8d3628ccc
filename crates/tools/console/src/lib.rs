//! `headwater console`: web pages on this machine that show a system, and act on it.
//!
//! The console speaks to any Headwater system over NATS only: it asks services, reads streams and
//! schemas, and was built with no event. It shows what `headwater status`, `doctor`, `tail` and
//! `dead-letter` print, and does what the other commands do, with the same functions.

use std::fmt::{self, Display, Formatter};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::builder::FalseyValueParser;
use client::schemas::Schemas;
use client::{Common, Nats, complain};
use serde::Serialize;
use terminal::output::duration;
use terminal::{Exit, output};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, Semaphore};
use tokio_util::sync::CancellationToken;

use app::App;
use journal::{Journal, Who};
use local_page::Access;
use sample::Samples;

mod act;
mod actions;
mod app;
mod chart;
mod event;
mod events;
mod job;
mod journal;
mod letters;
mod listen;
mod live;
mod log;
mod masks;
mod overview;
mod page;
mod params;
mod readable;
mod sample;
mod server;
mod text;
mod verb;

/// Show the system in a browser: a web page on this machine
///
/// Prints one address with a token, and serves until Ctrl-C: services, streams, projections and
/// their lag over the last hour, what is wrong and what to do, events as they come, one event end to
/// end, and dead letters. It reads over NATS only.
///
/// It changes nothing unless it was started with --as-operator: then it retries and discards dead
/// letters, pauses, resumes, rebuilds and verifies projections, restores streams, and has services
/// back up their databases, each after a confirmation. Fields that the events' `.proto` files mark as personal are masked unless they are
/// asked for. Who did what is in the log.
///
/// Exit codes: 0 ended by Ctrl-C or SIGTERM; 1 other failure; 2 usage error; 4 the broker cannot be
/// reached.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Loopback address to listen on; with port 0, any free port
    #[arg(long, value_name = "ADDRESS", env = "HEADWATER_CONSOLE_LISTEN", default_value = "127.0.0.1:0", value_parser = listen::loopback)]
    pub listen: SocketAddr,

    /// Allow actions; the login to NATS must be the operator's
    #[arg(long, env = "HEADWATER_CONSOLE_AS_OPERATOR", value_parser = FalseyValueParser::new())]
    pub as_operator: bool,

    /// The log of who did what [default: headwater/console.log in
    /// `XDG_STATE_HOME` or `~/.local/state`]
    #[arg(long, value_name = "FILE", env = "HEADWATER_CONSOLE_LOG")]
    pub log: Option<PathBuf>,

    /// Time between two looks at the system
    #[arg(long, value_name = "DURATION", env = "HEADWATER_CONSOLE_EVERY", default_value = "5s", value_parser = duration)]
    pub every: Duration,

    /// How long an event may wait to be published or applied
    #[arg(long, value_name = "DURATION", env = "HEADWATER_CONSOLE_MAX_LAG", default_value = "10s", value_parser = duration)]
    pub max_lag: Duration,

    #[command(flatten)]
    pub plan: survey::plan::Args,
}

/// The shortest time between two looks.
const EVERY_MIN: Duration = Duration::from_millis(200);

/// Where the console is.
#[derive(Debug, Serialize)]
struct Open {
    url: String,
}

impl Display for Open {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str(&self.url)
    }
}

/// Serves the console until a signal ends it.
pub async fn command(common: &Common, args: Args) -> anyhow::Result<Exit> {
    let plan = args.plan.load()?;
    let settings = common.nats.resolve()?;
    let path = args.log.map_or_else(journal::default_path, Ok)?;
    let nats = Nats::connect_to(&settings).await?;
    let who = Who {
        nats: match &settings.context {
            Some(context) => format!("{} (context {context})", settings.who()),
            None => settings.who(),
        },
        user: journal::user(),
    };
    let journal = Arc::new(Journal::open(path, who)?);
    let listener = TcpListener::bind(args.listen).await;
    let listener = listener.with_context(|| format!("listen on {}", args.listen))?;
    let address = listener.local_addr().context("read the address")?;
    let access = Access::new("headwater-console", "headwater console", address)?;
    let open = Open { url: access.url() };
    let stop = CancellationToken::new();
    let app = Arc::new(App {
        place: settings.place(),
        is_operator: args.as_operator,
        journal,
        jobs: job::Jobs::default(),
        samples: Samples::new(),
        schemas: Mutex::new(Schemas::new(nats.clone())),
        following: Arc::new(Semaphore::new(live::PAGES_MAX)),
        stop: stop.clone(),
        nats,
    });
    let mode = if args.as_operator {
        "with actions"
    } else {
        "read-only"
    };
    output::print(&open, common.output)?;
    complain(&format!("the console serves {mode}, until Ctrl-C"));
    let times = (args.every.max(EVERY_MIN), args.max_lag);
    let serving = async {
        let served = server::serve(Arc::clone(&app), access, listener).await;
        stop.cancel();
        served
    };
    let sampling = app.samples.run(&app.nats, &plan, times, &stop);
    let (served, (), signalled) = tokio::join!(serving, sampling, signalled(&stop));
    app.jobs.abandon(&app.journal);
    served.and(signalled).map(|()| Exit::Done)
}

/// Waits for Ctrl-C or SIGTERM, and stops everything.
async fn signalled(stop: &CancellationToken) -> anyhow::Result<()> {
    let _stopped = stop.clone().drop_guard();
    let context = "listen for signals";
    let mut interrupt = signal(SignalKind::interrupt()).context(context)?;
    let mut terminate = signal(SignalKind::terminate()).context(context)?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        () = stop.cancelled() => {}
    }
    Ok(())
}
