//! The flags of `bench`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Measure the figures in the documents, each as a ratio to its limit within the same run
///
/// Exit codes: 0 success, 1 failure, 2 usage error, 3 (with --check) a ratio is worse than the
/// baseline's.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "bench", version)]
pub struct Args {
    /// The action
    #[arg(value_enum, default_value_t)]
    pub what: What,

    /// Measure only these figures, separated by commas; `bench list` names them
    #[arg(long, value_name = "FIGURES", value_delimiter = ',')]
    pub only: Vec<String>,

    /// Seconds that each load runs, instead of the form's default
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub seconds: Option<Duration>,

    /// Rounds of each comparison, instead of the form's default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub rounds: Option<u16>,

    /// The JSON file for the figures; figures that are not measured now stay in it
    #[arg(long, value_name = "FILE", default_value_os_t = workspace().join("target/bench/last.json"))]
    pub out: PathBuf,

    /// The JSON file to compare with
    #[arg(long, value_name = "FILE", default_value_os_t = workspace().join("crates/tools/bench/baseline.json"))]
    pub against: PathBuf,

    /// Exit with code 3 if a ratio is worse than in the baseline file
    #[arg(long)]
    pub check: bool,

    /// Write the tables between the markers in the documents, and the plot
    #[arg(long)]
    pub docs: bool,

    /// The folder of the services' binaries [default: the folder of this binary]
    #[arg(long, value_name = "DIR")]
    pub binaries: Option<PathBuf>,

    /// Serve this store as the baseline of `reads`; used internally
    #[arg(long, hide = true)]
    pub rival: Option<PathBuf>,
}

/// The action.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum What {
    /// Check that everything can be measured, in under a minute; the figures mean nothing
    Smoke,
    /// Measure in three to five minutes, with less data
    #[default]
    Quick,
    /// Measure with all data and more rounds, as in the documents
    Full,
    /// List the figures and what each is compared with
    List,
    /// Write the documents from the JSON file, without measuring
    Docs,
}

impl What {
    /// The form, if the action measures.
    pub(crate) fn form(self) -> Option<Form> {
        match self {
            Self::Smoke => Some(Form::Smoke),
            Self::Quick => Some(Form::Quick),
            Self::Full => Some(Form::Full),
            Self::List | Self::Docs => None,
        }
    }
}

/// The amount of data and rounds. Only figures of the same form are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Form {
    Smoke,
    Quick,
    Full,
}

impl Form {
    /// The one of three values for this form.
    pub(crate) fn pick<T>(self, smoke: T, quick: T, full: T) -> T {
        match self {
            Self::Smoke => smoke,
            Self::Quick => quick,
            Self::Full => full,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        self.pick("smoke", "quick", "full")
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "must be a number of seconds")?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(Duration::ZERO) => Err("must be more than zero".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(error.to_string()),
    }
}

/// The root of the workspace that this program was built from.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(3)
        .expect("this crate is in crates/tools/bench")
        .to_owned()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }
}
