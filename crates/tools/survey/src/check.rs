//! `headwater check`: for monitoring, in the forms of Nagios and of Prometheus.

use std::fmt::{self, Display, Formatter};

use clap::ValueEnum;
use serde::Serialize;
use terminal::Exit;
use terminal::output::Format;

use crate::nats::Unreachable;
use crate::survey::Survey;
use crate::{Common, complain};
use limits::{Limits, Values};
use verdict::Verdict;

mod limits;
mod nagios;
mod prometheus;
mod verdict;

/// Check all of it against limits, for monitoring
///
/// A limit is a number of events, an age of the oldest of them, or both: `10000,60s`; what is
/// above it counts.
///
/// Exit codes: these follow Nagios and not the other commands: 0 OK, 1 WARNING, 2 CRITICAL (the
/// broker or a service cannot be reached, something has failed, a limit), 3 UNKNOWN. In the form
/// of Prometheus 0 when it could be seen, whatever was seen, and 4 when the broker cannot be
/// reached; `headwater_check_up` says so, too.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// For whom; -o json is for others
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
}

/// For whom the result is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// One line with performance data
    #[default]
    Nagios,
    /// Text exposition, for the textfile collector of the node exporter
    Prometheus,
}

/// What was seen and what is to be thought of it.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    verdict: Verdict,
    survey: Option<Survey>,
}

/// Text of a form, whatever the output format.
struct Text(String);

impl Display for Text {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str(self.0.trim_end())
    }
}

impl Serialize for Text {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

/// Looks, and says what it comes to.
pub(crate) async fn command(common: &Common, args: Args) -> anyhow::Result<Exit> {
    let report = match look(common).await {
        Ok(survey) => Report {
            verdict: Verdict::of(&survey, &args.limits),
            survey: Some(survey),
        },
        Err(error) => Report {
            verdict: unseen(&error),
            survey: None,
        },
    };
    if common.output == Format::Json {
        common.print(&Json(&report))?;
        return Ok(report.verdict.exit());
    }
    match args.format {
        Form::Nagios => {
            let values = report.survey.as_ref().map(Values::of);
            let line = nagios::line(&report.verdict, values.as_ref(), &args.limits);
            common.print(&Text(line))?;
            Ok(report.verdict.exit())
        }
        Form::Prometheus => {
            common.print(&Text(prometheus::exposition(report.survey.as_ref())))?;
            if report.survey.is_some() {
                return Ok(Exit::Done);
            }
            complain(&report.verdict.to_string());
            Ok(Exit::Unreachable)
        }
    }
}

async fn look(common: &Common) -> anyhow::Result<Survey> {
    Survey::take(&common.connect().await?).await
}

/// What to say where nothing could be seen.
fn unseen(error: &anyhow::Error) -> Verdict {
    let what = headwater::causes(error);
    if error.is::<Unreachable>() {
        Verdict::critical(what)
    } else {
        Verdict::unknown(what)
    }
}

/// The report for programs; only printed as JSON.
#[derive(Serialize)]
#[serde(transparent)]
struct Json<'a>(&'a Report);

impl Display for Json<'_> {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        write!(f, "{}", self.0.verdict)
    }
}
