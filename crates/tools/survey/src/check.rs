//! `headwater check`: `doctor`'s findings about the shop, for monitoring: one line for Nagios, or
//! text for Prometheus.

use std::fmt::{self, Display, Formatter};

use clap::ValueEnum;
use client::{Common, complain};
use serde::Serialize;
use terminal::{Exit, Format, printable};

use crate::finding::Grade;
use crate::limits::Limits;
use crate::survey::Survey;
use crate::{diagnosis, plan};

mod nagios;
mod prometheus;

/// Check the whole shop against limits, for monitoring
///
/// A limit is a number of waiting events, an age of the oldest of them, or both: `10000,60s`.
/// Values above the limit count.
///
/// Exit codes follow Nagios, not the other commands: 0 OK, 1 WARNING, 2 CRITICAL (the broker or a
/// service cannot be reached, something has failed, or a critical limit is exceeded), 3 UNKNOWN.
/// With --format prometheus: 0 whenever the shop could be checked, 4 if the broker cannot be
/// reached; `headwater_check_up` is then 0.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Output format; for JSON use -o json
    #[arg(
        long,
        value_name = "FORM",
        env = "HEADWATER_CHECK_FORMAT",
        value_enum,
        default_value_t
    )]
    pub format: Form,

    #[command(flatten)]
    pub limits: Limits,

    #[command(flatten)]
    pub plan: plan::Args,
}

/// The output format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// One line with performance data
    #[default]
    Nagios,
    /// Text exposition, for the textfile collector of the node exporter
    Prometheus,
}

/// The result of a check.
#[derive(Debug, Serialize)]
struct Report {
    state: State,
    /// The worst first; a summary if all is well.
    messages: Vec<String>,
    survey: Option<Survey>,
}

/// The states of Nagios.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum State {
    Ok,
    Warning,
    Critical,
    Unknown,
}

/// Checks and prints the result.
pub async fn command(common: &Common, args: Args) -> anyhow::Result<Exit> {
    let report = match look(common, &args).await {
        Ok(survey) => Report::of(survey, &args.limits),
        Err(error) => Report::unseen(&error),
    };
    match (common.output, args.format) {
        (Format::Json, _) => common.print(&report)?,
        (Format::Text, Form::Nagios) => {
            let data = report.survey.as_ref();
            let data = data.map(|survey| nagios::data(survey, &args.limits));
            // A bar ends the text.
            let text = report.to_string().replace('|', "/");
            common.print(&match data.filter(|data| !data.is_empty()) {
                Some(data) => format!("{text}|{}", data.join(" ")),
                None => text,
            })?;
        }
        (Format::Text, Form::Prometheus) => {
            let exposition = prometheus::exposition(report.survey.as_ref());
            common.print(&exposition.trim_end())?;
            if report.survey.is_some() {
                return Ok(Exit::Done);
            }
            complain(&report.to_string());
            return Ok(Exit::Unreachable);
        }
    }
    Ok(report.exit())
}

async fn look(common: &Common, args: &Args) -> anyhow::Result<Survey> {
    let plan = args.plan.load()?;
    Survey::take(&common.connect().await?, &plan).await
}

impl Report {
    fn of(survey: Survey, limits: &Limits) -> Self {
        let alarms = diagnosis::alarms(&survey, limits);
        let state = match alarms.first().map(|worst| worst.grade) {
            None => State::Ok,
            Some(Grade::Fail) => State::Critical,
            Some(_) => State::Warning,
        };
        let mut messages: Vec<String> = alarms.into_iter().map(|alarm| alarm.what).collect();
        if messages.is_empty() {
            messages.push(format!(
                "{} services, {} outboxes, {} projections",
                survey.services.len(),
                survey.relays.len(),
                survey.projections.len()
            ));
        }
        Self {
            state,
            messages,
            survey: Some(survey),
        }
    }

    /// The report when nothing could be checked.
    fn unseen(error: &anyhow::Error) -> Self {
        let state = if client::unreachable(error).is_some() {
            State::Critical
        } else {
            State::Unknown
        };
        Self {
            state,
            messages: vec![headwater::causes(error.as_ref())],
            survey: None,
        }
    }

    fn exit(&self) -> Exit {
        match self.state {
            State::Ok => Exit::Done,
            State::Warning => Exit::Warning,
            State::Critical => Exit::Critical,
            State::Unknown => Exit::Unknown,
        }
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let word = format!("{:?}", self.state).to_uppercase();
        write!(f, "{word} - {}", printable(&self.messages.join("; ")))
    }
}
