//! `headwater status`: services, streams, relays and projections on one page.

use std::fmt::{self, Display, Formatter};
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::Context as _;
use clap::builder::FalseyValueParser;
use client::{Common, Nats};
use headwater::Clock;
use headwater::health::State;
use headwater::operator::SourceStatus;
use headwater::replicas::Replicas;
use serde::Serialize;
use terminal::Exit;
use terminal::output::{self, Format, duration, printable};
use terminal::table::{Table, age, bytes, count};

use crate::finding::{Finding, Grade};
use crate::limits::Limits;
use crate::survey::{Lag, Projection, Survey};
use crate::{diagnosis, plan};

/// Show services, streams, relays and projections
///
/// Lag is shown in events, and as the age of the oldest event that is not applied yet.
///
/// Exit codes: 0 all is well; 1 other failure; 2 usage error; 3 something has failed, has a
/// warning, is missing, is ahead of its source, is paused, lags by more than --max-lag or has dead
/// letters; 4 the broker cannot be reached.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Refresh repeatedly: in place on a terminal, otherwise one after another
    #[arg(short, long, env = "HEADWATER_STATUS_WATCH", value_parser = FalseyValueParser::new())]
    pub watch: bool,

    /// Time between two refreshes
    #[arg(long, value_name = "DURATION", env = "HEADWATER_STATUS_EVERY", default_value = "2s", value_parser = duration)]
    pub every: Duration,

    /// How long an event may wait to be published or applied
    #[arg(long, value_name = "DURATION", env = "HEADWATER_STATUS_MAX_LAG", default_value = "10s", value_parser = duration)]
    pub max_lag: Duration,

    #[command(flatten)]
    pub plan: plan::Args,
}

#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    survey: Survey,
    /// What needs an operator.
    troubles: Vec<Trouble>,
}

/// A problem.
#[derive(Debug, Serialize)]
struct Trouble {
    level: &'static str,
    what: String,
}

impl From<Finding> for Trouble {
    fn from(Finding { grade, what, .. }: Finding) -> Self {
        let level = match grade {
            Grade::Fail => "critical",
            _ => "warning",
        };
        Self { level, what }
    }
}

/// Shows the status, once or until stdout is closed.
pub async fn command(common: &Common, args: Args) -> anyhow::Result<Exit> {
    let nats = common.connect().await?;
    if !args.watch {
        let report = Report::take(&nats, &args).await?;
        common.print(&report)?;
        return Ok(report.exit());
    }
    let is_redrawn =
        common.output == Format::Text && std::io::stdout().is_terminal() && !output::is_plain();
    loop {
        let report = Report::take(&nats, &args).await?;
        if is_redrawn {
            // Move to the upper left corner and clear what is below.
            write!(std::io::stdout(), "\x1b[H\x1b[J").context("write to stdout")?;
        }
        output::line(&report, common.output)?;
        tokio::time::sleep(args.every).await;
    }
}

impl Report {
    async fn take(nats: &Nats, args: &Args) -> anyhow::Result<Self> {
        let survey = Survey::take(nats, &args.plan.load()?).await?;
        let troubles = diagnosis::alarms(&survey, &Limits::warning(args.max_lag));
        let troubles = troubles.into_iter().map(Trouble::from).collect();
        Ok(Self { survey, troubles })
    }

    fn exit(&self) -> Exit {
        if self.troubles.is_empty() {
            Exit::Done
        } else {
            Exit::Different
        }
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let survey = &self.survey;
        writeln!(f, "{}\n", Clock::text(survey.at_ms))?;
        writeln!(f, "{}", services(survey))?;
        writeln!(f, "{}", streams(survey))?;
        writeln!(f, "{}", relays(survey))?;
        writeln!(f, "{}", projections(&survey.projections))?;
        for trouble in &self.troubles {
            let level = trouble.level.replace("critical", "CRITICAL");
            writeln!(f, "{level}: {}", printable(&trouble.what))?;
        }
        f.write_str(if self.troubles.is_empty() {
            "all is well"
        } else {
            "for what to do, run `headwater doctor`"
        })
    }
}

/// One row per service.
pub fn services(survey: &Survey) -> Table<4> {
    let mut table = Table::new(["SERVICE", "INSTANCES", "VERSION", "COMPONENTS"]);
    for service in &survey.services {
        let versions: Vec<&str> = service.versions().into_iter().collect();
        let parts = service
            .parts
            .iter()
            .filter_map(|(part, state)| match state {
                State::Ok(_) => None,
                State::Degraded(why) => Some(format!("{part}: {why}")),
                State::Failed(why) => Some(format!("{part} FAILED: {why}")),
            });
        let parts: Vec<String> = parts.map(|part| printable(&part)).collect();
        table.row([
            printable(&service.name),
            service.instances.len().to_string(),
            printable(&versions.join(", ")),
            if parts.is_empty() {
                "ok".to_owned()
            } else {
                parts.join("; ")
            },
        ]);
    }
    table
}

/// One row per stream.
pub fn streams(survey: &Survey) -> Table<7> {
    let mut table = Table::new([
        "STREAM", "SOURCE", "EVENTS", "SIZE", "LAST", "REPLICAS", "CREATED",
    ]);
    for stream in &survey.streams {
        table.row([
            printable(&stream.name),
            printable(&stream.source),
            stream.events.to_string(),
            bytes(stream.bytes),
            stream.last_sequence.to_string(),
            copies(&stream.replicas),
            Clock::text(stream.created_ms),
        ]);
    }
    table
}

/// The number of replicas; how many are current, if not all.
fn copies(replicas: &Replicas) -> String {
    let (current, configured) = (replicas.current, replicas.configured);
    if current == configured {
        configured.to_string()
    } else {
        format!("{current} of {configured}")
    }
}

/// One row per outbox.
pub fn relays(survey: &Survey) -> Table<6> {
    let mut table = Table::new(["RELAY", "OUTBOX", "PUBLISHED", "WAITING", "OLDEST", "STATE"]);
    for relay in &survey.relays {
        let state = match &relay.state {
            None if relay.head.is_some() => "no relay".to_owned(),
            None => "?".to_owned(),
            Some(State::Ok(_)) => "ok".to_owned(),
            Some(State::Degraded(why)) => printable(why),
            Some(State::Failed(why)) => format!("FAILED: {}", printable(why)),
        };
        table.row([
            printable(&relay.source),
            count(relay.head),
            count(relay.published),
            count(relay.depth.events),
            age(relay.depth.seconds),
            state,
        ]);
    }
    table
}

/// What a projection has met in a source, in few words.
fn met(met: &SourceStatus) -> Vec<String> {
    let counts = [
        (met.faults.len() as u64, "FAULTS"),
        (met.dead_letters, "DEAD LETTERS"),
        (met.foreign_epoch, "OF ANOTHER EPOCH"),
        (met.altered, "ALTERED"),
        (met.missing, "fetched from the outbox"),
        (met.by_hand, "by hand"),
    ];
    let counts = counts.iter().filter(|(count, _)| *count > 0);
    counts
        .map(|(count, what)| format!("{count} {what}"))
        .collect()
}

/// One row per projection and source.
pub fn projections(projections: &[Projection]) -> Table<8> {
    let mut table = Table::new([
        "PROJECTION",
        "SERVICE",
        "SOURCE",
        "APPLIED",
        "OF",
        "LAG",
        "OLDEST",
        "STATE",
    ]);
    for projection in projections {
        for (source, lag) in &projection.sources {
            table.row([
                printable(&projection.name),
                printable(&projection.service),
                printable(source),
                lag.position.to_string(),
                count(lag.head),
                count(lag.waiting.events),
                age(lag.waiting.seconds),
                state(projection, lag),
            ]);
        }
    }
    table
}

/// The state of a projection with respect to one of its sources.
fn state(projection: &Projection, lag: &Lag) -> String {
    let pause = projection.paused.as_ref();
    let paused = pause.map(|pause| format!("PAUSED: {}", printable(&pause.reason)));
    let unfinished = (!projection.is_complete).then(|| "not complete yet".to_owned());
    let mut states: Vec<String> = paused.into_iter().chain(unfinished).collect();
    states.extend(met(&lag.met));
    match &lag.state {
        Some(State::Failed(why)) => states.push(format!("FAILED: {}", printable(why))),
        Some(State::Degraded(why)) if states.is_empty() => states.push(printable(why)),
        _ if states.is_empty() => states.push("ok".to_owned()),
        _ => {}
    }
    states.join("; ")
}
