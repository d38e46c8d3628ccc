//! The measurements as a JSON file that keeps the newest of each figure.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::args::Form;
use crate::figure::{Figure, Ratio, Target};
use crate::machine::Machine;

/// The newest of each figure in each form.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) figures: Vec<Measured>,
}

/// A figure and the machine it was measured on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) name: String,
    pub(crate) form: Form,
    pub(crate) machine: Machine,
    pub(crate) figure: Figure,
}

/// A ratio that is worse than before.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Regression {
    pub(crate) figure: String,
    pub(crate) before: Ratio,
    pub(crate) now: Ratio,
}

/// How much worse a median must at least be to count as a regression.
const NOISE: f64 = 0.1;

impl Report {
    /// Reads a file; a missing file is an empty report.
    pub(crate) fn load(path: &Path) -> anyhow::Result<Self> {
        let failed = || format!("read {}", path.display());
        match fs::read(path) {
            Ok(json) => serde_json::from_slice(&json).with_context(failed),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(failed),
        }
    }

    pub(crate) fn save(&self, path: &Path) -> anyhow::Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        }
        let json = serde_json::to_string_pretty(self).context("encode the report")?;
        fs::write(path, json + "\n").with_context(|| format!("write {}", path.display()))
    }

    /// Replaces an earlier measurement of the same name and form.
    pub(crate) fn put(&mut self, measured: Measured) {
        let is_other = |old: &Measured| (&old.name, old.form) != (&measured.name, measured.form);
        self.figures.retain(is_other);
        self.figures.push(measured);
    }

    fn find(&self, name: &str, form: Form) -> Option<&Measured> {
        let mut figures = self.figures.iter();
        figures.find(|it| it.name == name && it.form == form)
    }

    /// The figure `name` in the most extensive form.
    pub(crate) fn best(&self, name: &str) -> Option<&Measured> {
        let of_name = self.figures.iter().filter(|it| it.name == name);
        of_name.max_by_key(|it| it.form)
    }

    /// The ratios of `now` that are worse than here, beyond noise.
    pub(crate) fn regressions(&self, now: &Measured) -> Vec<Regression> {
        let Some(before) = self.find(&now.name, now.form) else {
            return Vec::new();
        };
        let mut worse = Vec::new();
        for ratio in &now.figure.ratios {
            let mut ratios = before.figure.ratios.iter();
            let old = ratios.find(|old| old.name == ratio.name);
            if let Some(before) = old.filter(|before| is_worse(before, ratio)) {
                worse.push(Regression {
                    figure: now.name.clone(),
                    before: before.clone(),
                    now: ratio.clone(),
                });
            }
        }
        worse
    }
}

/// Worse beyond noise: the median by a tenth, and now even the best round is worse than the worst
/// before.
fn is_worse(before: &Ratio, now: &Ratio) -> bool {
    match now.target {
        Target::AtLeast(_) => {
            now.median < before.median * (1.0 - NOISE) && now.highest < before.lowest
        }
        Target::AtMost(_) => {
            now.median > before.median * (1.0 + NOISE) && now.lowest > before.highest
        }
        Target::None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::Table;

    fn measured(form: Form, rounds: &[f64], target: Target) -> Measured {
        Measured {
            name: "reads".to_owned(),
            form,
            machine: Machine::default(),
            figure: Figure {
                table: Table::new("style", &[("p50 ms", 2)]),
                ratios: vec![Ratio::over("rate", rounds.to_vec(), target)],
                notes: Vec::new(),
            },
        }
    }

    fn regressions(before: &[f64], now: &[f64], target: Target) -> usize {
        let mut report = Report::default();
        report.put(measured(Form::Quick, before, target));
        report
            .regressions(&measured(Form::Quick, now, target))
            .len()
    }

    #[test]
    fn a_regression_is_a_tenth_and_outside_the_spread() {
        let at_least = Target::AtLeast(0.9);
        assert_eq!(
            regressions(&[0.9, 1.0, 1.1], &[0.7, 0.8, 0.85], at_least),
            1
        );
        assert_eq!(
            regressions(&[0.9, 1.0, 1.1], &[0.7, 0.8, 0.95], at_least),
            0,
            "rounds overlap"
        );
        assert_eq!(
            regressions(&[1.0, 1.0, 1.0], &[0.95, 0.95, 0.95], at_least),
            0,
            "within noise"
        );
        assert_eq!(
            regressions(&[0.7, 0.8, 0.85], &[0.9, 1.0, 1.1], at_least),
            0,
            "better"
        );
    }

    #[test]
    fn for_a_target_from_above_more_is_worse() {
        let at_most = Target::AtMost(1.2);
        assert_eq!(regressions(&[1.0, 1.1, 1.2], &[1.5, 1.6, 1.7], at_most), 1);
        assert_eq!(regressions(&[1.5, 1.6, 1.7], &[1.0, 1.1, 1.2], at_most), 0);
        assert_eq!(regressions(&[1.0], &[9.0], Target::None), 0, "only said");
    }

    #[test]
    fn only_figures_of_one_form_are_compared() {
        let mut report = Report::default();
        report.put(measured(Form::Full, &[1.0], Target::AtLeast(0.9)));
        let now = measured(Form::Quick, &[0.1], Target::AtLeast(0.9));
        assert!(report.regressions(&now).is_empty());
    }

    #[test]
    fn a_report_keeps_the_newest_of_each_form_and_comes_back_from_its_file() {
        let mut report = Report::default();
        for (form, ratio) in [(Form::Full, 1.0), (Form::Quick, 2.0), (Form::Quick, 3.0)] {
            report.put(measured(form, &[ratio], Target::AtMost(1.0)));
        }
        assert_eq!(report.figures.len(), 2);
        assert_eq!(report.best("reads").unwrap().form, Form::Full);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("made/last.json");
        assert_eq!(Report::load(&path).unwrap(), Report::default());
        report.save(&path).unwrap();
        assert_eq!(Report::load(&path).unwrap(), report);
    }
}
