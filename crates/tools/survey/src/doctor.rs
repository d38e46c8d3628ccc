//! `headwater doctor`: looks at everything in the order in which it depends on each other, and
//! says what to do.

use std::fmt::{self, Display, Formatter};
use std::io::IsTerminal as _;
use std::time::Duration;

use serde::Serialize;
use terminal::output::{self, Format, duration, printable};
use terminal::{ErrorObject, Exit};

use crate::brokers::{Brokers, JetStream};
use crate::survey::Survey;
use crate::{Common, shop};

mod broker;
mod copies;
mod sources;
mod units;

/// Check everything in order, and say what to do about what is not as it should be
///
/// Exit codes: 0 nothing failed, 3 something did, 4 the broker cannot be reached, 2 the command
/// line, a context or a credentials file cannot be followed, 1 anything else.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// How old an event may be that is not published or applied yet
    #[arg(long, value_name = "DURATION", env = "HEADWATER_DOCTOR_MAX_LAG", default_value = "10s", value_parser = duration)]
    pub max_lag: Duration,
}

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Grade {
    Ok,
    /// It works, and should be looked at.
    Warn,
    Fail,
    /// It cannot be seen from here.
    Unknown,
}

/// What one look came to.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    grade: Grade,
    what: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self {
            check,
            grade: Grade::Ok,
            what: what.into(),
            fix: None,
        }
    }

    fn not_ok(
        check: &'static str,
        grade: Grade,
        what: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            check,
            grade,
            what: what.into(),
            fix: Some(fix.into()),
        }
    }

    fn warn(check: &'static str, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::not_ok(check, Grade::Warn, what, fix)
    }

    fn fail(check: &'static str, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::not_ok(check, Grade::Fail, what, fix)
    }
}

#[derive(Debug, Default, Serialize)]
struct Report {
    findings: Vec<Finding>,
    /// Why nothing more could be seen.
    #[serde(flatten)]
    stopped: Option<ErrorObject>,
    #[serde(skip)]
    is_coloured: bool,
}

/// Looks, as far as it gets, and prints what it saw.
pub(crate) async fn command(common: &Common, args: Args) -> anyhow::Result<Exit> {
    let mut report = Report {
        is_coloured: std::io::stdout().is_terminal() && !output::is_plain(),
        ..Report::default()
    };
    let stopped = look(common, &args, &mut report.findings).await;
    if let (Err(error), Format::Json) = (&stopped, common.output) {
        let exit = crate::exit_of(error);
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

/// Errors where nothing more can be seen.
async fn look(common: &Common, args: &Args, findings: &mut Vec<Finding>) -> anyhow::Result<()> {
    findings.extend(units::look().await);
    let nats = broker::connect(common, findings).await?;
    let brokers = Brokers::look(&nats).await?;
    findings.push(broker::version(&nats));
    findings.extend(broker::jetstream(&brokers));
    findings.push(broker::sync(&brokers));
    if matches!(
        brokers.jetstream,
        JetStream::Down(_) | JetStream::NotForUser
    ) {
        return Ok(());
    }
    let shop = shop::see(&nats, &brokers).await?;
    let survey = Survey::of(&nats, &shop, brokers).await?;
    if !survey.brokers.is_usable() {
        findings.extend(sources::services(&shop, &survey));
        return Ok(());
    }
    findings.push(broker::clock(&nats, &shop).await);
    findings.extend(sources::streams(&shop, &survey));
    findings.extend(sources::replicas(&survey));
    findings.extend(sources::services(&shop, &survey));
    findings.extend(sources::relays(&survey, args.max_lag));
    findings.extend(sources::positions(&survey));
    findings.extend(copies::consumers(&shop, &survey));
    findings.extend(copies::projections(&survey, args.max_lag));
    findings.extend(copies::dead_letters(&survey));
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
