//! `headwater provision`: makes the streams of sources, and brings those there are to their
//! settings.

use std::collections::BTreeSet;
use std::fmt::{self, Display, Formatter};

use anyhow::Context as _;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::Config;
use clap::builder::FalseyValueParser;
use headwater::stream::{self, Difference};
use serde::Serialize;

use crate::common::confirm;
use crate::nats::Nats;
use crate::output::printable;
use crate::{Common, Exit, complain};

/// The sources of the shop, which `headwater import` knows, too.
pub(crate) const SHOP: [&str; 3] = ["users", "products", "orders"];

/// Make the streams of sources, and bring those there are to their settings
///
/// For where services may not do it themselves. Limits, placement, and all that no service has a
/// wish about stay as they are; what is in a stream is never touched. What JetStream does not let
/// anybody change is shown and left alone, with the stream.
///
/// Exit codes: 0 all is as it should be now, 3 something is not: with --dry-run what would be
/// changed, without it what cannot be; 4 the broker cannot be reached, 2 the command line cannot be
/// followed, or a change needs --yes, 1 anything else.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The sources [default: those of the shop, and those that have a stream or a relay]
    #[arg(value_name = "SOURCE", value_parser = source)]
    pub sources: Vec<String>,

    /// Only show what would be done
    #[arg(long, env = "HEADWATER_PROVISION_DRY_RUN", value_parser = FalseyValueParser::new())]
    pub dry_run: bool,

    /// Copies of each stream [default: 1 for new ones; others keep theirs]
    #[arg(long, value_name = "N", env = "HEADWATER_NATS_REPLICAS", value_parser = clap::value_parser!(u8).range(1..=5))]
    pub replicas: Option<u8>,

    /// Do not ask before a stream that is there is changed
    #[arg(long, env = "HEADWATER_YES", value_parser = FalseyValueParser::new())]
    pub yes: bool,
}

/// A source's name is the first token of its subjects, and in capitals its stream's name.
pub(crate) fn source(text: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
    if text.is_empty() || !text.chars().all(is_plain) {
        return Err("must be the name of a service: small letters, digits, - and _".to_owned());
    }
    Ok(text.to_owned())
}

#[derive(Debug, Serialize)]
struct Report {
    is_dry_run: bool,
    streams: Vec<Provided>,
}

#[derive(Debug, Serialize)]
struct Provided {
    stream: String,
    source: String,
    outcome: Outcome,
    /// Whether it was done, too.
    is_done: bool,
    differences: Vec<Difference>,
}

/// What became of a stream, or would.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Same,
    Made,
    Changed,
    /// Something would have to be changed that JetStream does not let anybody change.
    Refused,
}

/// A stream as it is to become.
struct Plan {
    source: String,
    /// As it is; none where it is not there.
    is: Option<Config>,
    wanted: Config,
}

/// Compares, asks, and does it.
pub(crate) async fn command(common: &Common, args: Args) -> anyhow::Result<Exit> {
    let nats = common.connect().await?;
    let mut plans = Vec::new();
    for source in sources(&nats, &args.sources).await? {
        plans.push(Plan::of(&nats, &source, args.replicas).await?);
    }
    if !args.dry_run {
        let changed: Vec<&str> = plans
            .iter()
            .filter(|plan| plan.outcome() == Outcome::Changed)
            .map(|plan| &*plan.wanted.name)
            .collect();
        if !changed.is_empty() {
            for plan in &plans {
                complain(&plan.provided(false).to_string());
            }
            confirm(&format!("change {}", changed.join(", ")), args.yes)?;
        }
        for plan in &plans {
            plan.carry_out(&nats).await?;
        }
    }
    let report = Report {
        is_dry_run: args.dry_run,
        streams: plans
            .iter()
            .map(|plan| plan.provided(!args.dry_run))
            .collect(),
    };
    common.print(&report)?;
    Ok(report.exit())
}

/// Those that are named, or all that are known.
async fn sources(nats: &Nats, named: &[String]) -> anyhow::Result<BTreeSet<String>> {
    if !named.is_empty() {
        return Ok(named.iter().cloned().collect());
    }
    let found = crate::survey::Survey::take(nats).await?;
    let found = found.relays.into_iter().map(|relay| relay.source);
    Ok(found.chain(SHOP.map(str::to_owned)).collect())
}

impl Plan {
    async fn of(nats: &Nats, source: &str, replicas: Option<u8>) -> anyhow::Result<Self> {
        let name = stream::name(source);
        let is = match nats.jetstream.get_stream(&name).await {
            Ok(stream) => Some(stream.cached_info().config.clone()),
            Err(error) if is_missing(&error.kind()) => None,
            Err(error) => {
                nats.expect_connected()?;
                return Err(error).with_context(|| format!("look at the stream {name}"));
            }
        };
        let kept = is.as_ref().map_or(1, |config| config.num_replicas);
        let wanted = stream::settings(source, replicas.map_or(kept, usize::from));
        Ok(Self {
            source: source.to_owned(),
            is,
            wanted,
        })
    }

    fn differences(&self) -> Vec<Difference> {
        let is = self.is.as_ref();
        is.map_or_else(Vec::new, |is| stream::differences(is, &self.wanted))
    }

    fn outcome(&self) -> Outcome {
        let differences = self.differences();
        match &self.is {
            None => Outcome::Made,
            Some(_) if differences.is_empty() => Outcome::Same,
            Some(_) if differences.iter().all(|found| found.can_change) => Outcome::Changed,
            Some(_) => Outcome::Refused,
        }
    }

    async fn carry_out(&self, nats: &Nats) -> anyhow::Result<()> {
        let name = &self.wanted.name;
        match (self.outcome(), &self.is) {
            (Outcome::Made, _) => {
                let made = nats.jetstream.create_stream(self.wanted.clone()).await;
                made.with_context(|| format!("make the stream {name}"))?;
            }
            (Outcome::Changed, Some(is)) => {
                let mut config = is.clone();
                stream::bring(&mut config, &self.wanted);
                let changed = nats.jetstream.update_stream(&config).await;
                changed.with_context(|| format!("change the stream {name}"))?;
            }
            _ => {}
        }
        Ok(())
    }

    fn provided(&self, is_done: bool) -> Provided {
        Provided {
            is_done,
            stream: self.wanted.name.clone(),
            source: self.source.clone(),
            outcome: self.outcome(),
            differences: self.differences(),
        }
    }
}

pub(crate) fn is_missing(kind: &GetStreamErrorKind) -> bool {
    matches!(kind, GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

impl Report {
    fn exit(&self) -> Exit {
        let mut outcomes = self.streams.iter().map(|stream| stream.outcome);
        let is_well = outcomes.all(|outcome| match outcome {
            Outcome::Same => true,
            Outcome::Made | Outcome::Changed => !self.is_dry_run,
            Outcome::Refused => false,
        });
        if is_well { Exit::Done } else { Exit::Different }
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        for stream in &self.streams {
            writeln!(f, "{stream}")?;
        }
        f.write_str(match (self.is_dry_run, self.exit()) {
            (true, Exit::Done) => "nothing to do",
            (true, _) => "nothing was done",
            (false, Exit::Done) => "all are as they should be",
            (false, _) => "NOT ALL are as they should be",
        })
    }
}

impl Display for Provided {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let (stream, source) = (&self.stream, &self.source);
        write!(f, "{stream}: ")?;
        f.write_str(match (self.outcome, self.is_done) {
            (Outcome::Same, _) => "as it should be",
            (Outcome::Made, true) => "made",
            (Outcome::Made, false) => "to be made",
            (Outcome::Changed, true) => "changed",
            (Outcome::Changed, false) => "to be changed",
            (Outcome::Refused, _) => "NOT as it should be, and left as it is",
        })?;
        for difference in &self.differences {
            let Difference {
                setting,
                is,
                wanted,
                can_change,
            } = difference;
            write!(f, "\n  {setting}\n    - {}\n    + {wanted}", printable(is))?;
            if !can_change {
                write!(
                    f,
                    "\n    no stream's {setting} can be changed: when {source} runs, delete the stream (`nats stream rm {stream}`), and its relay makes it anew and fills it from the outbox; or keep it as it is"
                )?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_a_plain_name() {
        assert_eq!(source("order-lines_2"), Ok("order-lines_2".to_owned()));
        for bad in ["", "Orders", "a.b", "a b", "orders.>"] {
            assert!(source(bad).is_err(), "{bad}");
        }
    }
}
