//! `headwater doctor`: checks everything in the order of dependency, and says what to do.

use std::fmt::{self, Display, Formatter};
use std::io::IsTerminal as _;
use std::time::Duration;

use client::{Common, exit_of};
use serde::Serialize;
use terminal::output::{self, Format, duration, printable};
use terminal::{ErrorObject, Exit};

use crate::brokers::Brokers;
use crate::finding::{Finding, Grade};
use crate::limits::Limits;
use crate::survey::Survey;
use crate::{diagnosis, plan};

mod broker;
mod units;

/// Check everything in order, and say how to fix each problem
///
/// Exit codes: 0 nothing failed, 1 other failure, 2 usage error, invalid context or credentials
/// file, 3 a check failed, 4 the broker cannot be reached.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// How long an event may wait to be published or applied
    #[arg(long, value_name = "DURATION", env = "HEADWATER_DOCTOR_MAX_LAG", default_value = "10s", value_parser = duration)]
    pub max_lag: Duration,

    #[command(flatten)]
    pub plan: plan::Args,
}

#[derive(Debug, Default, Serialize)]
struct Report {
    findings: Vec<Finding>,
    /// Why nothing more could be checked.
    #[serde(flatten)]
    stopped: Option<ErrorObject>,
    #[serde(skip)]
    is_coloured: bool,
}

/// Checks as far as possible and prints the findings.
pub async fn command(common: &Common, args: Args) -> anyhow::Result<Exit> {
    let mut report = Report {
        is_coloured: std::io::stdout().is_terminal() && !output::is_plain(),
        ..Report::default()
    };
    let stopped = look(common, &args, &mut report.findings).await;
    if let (Err(error), Format::Json) = (&stopped, common.output) {
        let exit = exit_of(error);
        report.stopped = Some(ErrorObject::of(error, exit));
        common.print(&report)?;
        return Ok(exit);
    }
    common.print(&report)?;
    match stopped {
        Err(error) => Err(error),
        Ok(()) if report.count(Grade::Fail) > 0 => Ok(Exit::Different),
        Ok(()) => Ok(Exit::Done),
    }
}

/// Returns an error when nothing more can be checked.
async fn look(common: &Common, args: &Args, findings: &mut Vec<Finding>) -> anyhow::Result<()> {
    findings.extend(units::look().await);
    let plan = args.plan.load()?;
    let nats = broker::connect(common, findings).await?;
    let brokers = Brokers::look(&nats).await?;
    findings.push(broker::version(&nats));
    findings.extend(diagnosis::brokers::jetstream(&brokers));
    findings.push(broker::sync(&brokers));
    if brokers.is_without_jetstream() {
        return Ok(());
    }
    let survey = Survey::of(&nats, brokers, &plan).await?;
    let mut of_survey = diagnosis::of(&survey, &Limits::failure(args.max_lag));
    if survey.brokers.is_usable() {
        findings.push(broker::clock(&nats, &survey).await);
    } else {
        of_survey.retain(|finding| finding.check == diagnosis::SERVICES);
    }
    findings.extend(of_survey);
    Ok(())
}

impl Report {
    fn count(&self, grade: Grade) -> usize {
        let findings = self.findings.iter();
        findings.filter(|finding| finding.grade == grade).count()
    }

    fn word(&self, grade: Grade) -> String {
        let (word, colour) = match grade {
            Grade::Ok => ("ok  ", "32"),
            Grade::Warn => ("warn", "33"),
            Grade::Fail => ("FAIL", "31"),
            Grade::Unknown => ("?   ", "2"),
        };
        if self.is_coloured {
            format!("\x1b[{colour}m{word}\x1b[0m")
        } else {
            word.to_owned()
        }
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        for finding in &self.findings {
            let (word, what) = (self.word(finding.grade), printable(&finding.what));
            writeln!(f, "{word}  {:13} {what}", finding.check)?;
            if let Some(fix) = &finding.fix {
                writeln!(f, "{:20}-> {}", "", printable(fix))?;
            }
        }
        let (failed, warned) = (self.count(Grade::Fail), self.count(Grade::Warn));
        match (failed, warned) {
            (0, 0) => write!(f, "all is well"),
            _ => write!(f, "{failed} failed, {warned} to look at"),
        }
    }
}
