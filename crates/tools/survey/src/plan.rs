//! The plan: the sources and projections that should exist, even before any of them ran.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use client::Misconfigured;
use serde::Deserialize;

/// The plan's path in an installation.
const INSTALLED: &str = "/etc/headwater/plan.json";

/// The sources and projections that should exist. `deploy/nats/plan.json` is an example.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    pub sources: BTreeSet<String>,
    /// The sources that each projection reads.
    #[serde(default)]
    pub projections: BTreeMap<String, BTreeSet<String>>,
}

/// The path of the plan.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Args {
    /// The file that lists the sources and projections that should exist [default:
    /// /etc/headwater/plan.json, if it exists]
    #[arg(long, value_name = "FILE", env = "HEADWATER_PLAN")]
    pub plan: Option<PathBuf>,
}

impl Args {
    /// Reads the named file, or that of the installation. Without either, the plan is empty.
    pub fn load(&self) -> Result<Plan, Misconfigured> {
        let file = self.plan.as_deref().unwrap_or(Path::new(INSTALLED));
        let wrong = |why: String| {
            let file = file.display();
            anyhow!("the plan {file} is not valid: {why}; write it like deploy/nats/plan.json, or name another file with --plan").into()
        };
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound && self.plan.is_none() => {
                return Ok(Plan::default());
            }
            Err(error) => return Err(wrong(error.to_string())),
        };
        Plan::parse(&text).map_err(wrong)
    }
}

impl Plan {
    fn parse(text: &str) -> Result<Self, String> {
        let plan: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        for name in plan.sources.iter().chain(plan.projections.keys()) {
            source(name).map_err(|why| format!("`{name}` {why}"))?;
        }
        for (projection, sources) in &plan.projections {
            if let Some(other) = sources.difference(&plan.sources).next() {
                return Err(format!(
                    "{projection} reads {other}, which is not one of its sources"
                ));
            }
        }
        Ok(plan)
    }
}

/// Checks a source's name: it is the first token of subjects and, in capitals, the stream's name.
pub fn source(text: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
    if text.is_empty() || !text.chars().all(is_plain) {
        return Err(
            "must be the name of a service: lower-case letters, digits, - and _".to_owned(),
        );
    }
    Ok(text.to_owned())
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

    #[test]
    fn a_plan_that_is_wrong_says_what_is() {
        let wrong = |text| Plan::parse(text).expect_err(text);
        assert!(wrong("{").contains("EOF"));
        assert!(wrong(r#"{"streams": []}"#).contains("unknown field `streams`"));
        assert!(wrong(r#"{"projections": {}}"#).contains("missing field `sources`"));
        assert!(wrong(r#"{"sources": ["a.b"]}"#).contains("`a.b` must be the name of a service"));
        let reader = r#"{"sources": ["a"], "projections": {"p": ["a", "b"]}}"#;
        assert_eq!(wrong(reader), "p reads b, which is not one of its sources");
    }

    #[test]
    fn the_plan_of_the_shop_can_be_followed() {
        let text = include_str!("../../../../deploy/nats/plan.json");
        let plan = Plan::parse(text).expect("a plan");
        for source in ["users", "products", "orders"] {
            assert!(plan.sources.contains(source), "{plan:?}");
        }
        for projection in ["purchases", "orders-catalogue"] {
            assert!(plan.projections.contains_key(projection), "{plan:?}");
        }
    }

    #[test]
    fn a_plan_that_was_named_has_to_be_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let plan = Some(folder.path().join("plan.json"));
        let error = Args { plan }.load().expect_err("there is none").to_string();
        assert!(
            error.contains("plan.json is not valid: No such file"),
            "{error}"
        );
    }
}
