//! The flags of `bench`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Measure the figures in the documents, each as a ratio to its limit within the same run
///
/// Exit codes: 0 all went well, 1 something failed, 2 the command line cannot be followed, 3 (with
/// --check) a ratio is worse than the baseline's.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "bench", version)]
pub struct Args {
    /// What to do
    #[arg(value_enum, default_value_t)]
    pub what: What,

    /// Only these figures, with commas; `bench list` names them
    #[arg(long, value_name = "FIGURES", value_delimiter = ',')]
    pub only: Vec<String>,

    /// How long each load runs, instead of the form's own length
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub seconds: Option<Duration>,

    /// Rounds of each comparison, instead of the form's own number
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub rounds: Option<u16>,

    /// The JSON file that keeps the figures; those that are not measured now stay in it
    #[arg(long, value_name = "FILE", default_value_os_t = workspace().join("target/bench/last.json"))]
    pub out: PathBuf,

    /// The JSON file to compare with
    #[arg(long, value_name = "FILE", default_value_os_t = workspace().join("crates/tools/bench/baseline.json"))]
    pub against: PathBuf,

    /// End with exit code 3 if a ratio is worse than in the file to compare with
    #[arg(long)]
    pub check: bool,

    /// Write the tables between the markers in the documents, and the plot
    #[arg(long)]
    pub docs: bool,

    /// Where the services' binaries are, if not beside this one
    #[arg(long, value_name = "DIR")]
    pub binaries: Option<PathBuf>,

    /// Serve this store as the rival of `reads`: how the figure starts it
    #[arg(long, hide = true)]
    pub rival: Option<PathBuf>,
}

/// What to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum What {
    /// Shows that everything can be measured, in under a minute; its figures mean nothing
    Smoke,
    /// Measure in three to five minutes, with less data
    #[default]
    Quick,
    /// Measure with all the data and more rounds; what the documents show
    Full,
    /// Name the figures, and what each is compared with
    List,
    /// Write the documents from the JSON file, without measuring
    Docs,
}

impl What {
    /// The form in which to measure, if that is what to do.
    pub(crate) fn form(self) -> Option<Form> {
        match self {
            Self::Smoke => Some(Form::Smoke),
            Self::Quick => Some(Form::Quick),
            Self::Full => Some(Form::Full),
            Self::List | Self::Docs => None,
        }
    }
}

/// How much of everything. Only figures of one form are compared with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Form {
    Smoke,
    Quick,
    Full,
}

impl Form {
    /// What this form takes of three.
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
        Ok(Duration::ZERO) => Err("must be more than nothing".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(error.to_string()),
    }
}

/// The root of the workspace that this was built from.
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
