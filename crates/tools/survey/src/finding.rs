//! The result of a check, and what to do about it.

use serde::Serialize;

/// How severe a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    Ok,
    /// It cannot be determined from here.
    Unknown,
    /// It works but needs attention.
    Warn,
    /// It does not work.
    Fail,
}

/// The result of one check.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    pub check: &'static str,
    pub grade: Grade,
    pub what: String,
    /// How to fix it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    /// Whether `status` and `check` report it too.
    #[serde(skip)]
    pub(crate) is_alarm: bool,
}

/// One check and its findings.
#[derive(Debug)]
pub(crate) struct Check {
    name: &'static str,
    found: Vec<Finding>,
}

impl Finding {
    pub(crate) fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self {
            check,
            grade: Grade::Ok,
            what: what.into(),
            fix: None,
            is_alarm: false,
        }
    }

    pub(crate) fn new(
        check: &'static str,
        grade: Grade,
        what: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            grade,
            fix: Some(fix.into()),
            ..Self::ok(check, what)
        }
    }

    pub(crate) fn warn(
        check: &'static str,
        what: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self::new(check, Grade::Warn, what, fix)
    }

    pub(crate) fn fail(
        check: &'static str,
        what: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self::new(check, Grade::Fail, what, fix)
    }
}

impl Check {
    pub(crate) fn new(name: &'static str) -> Self {
        let found = Vec::new();
        Self { name, found }
    }

    /// Adds a finding that `status` and `check` report too.
    pub(crate) fn alarm(&mut self, grade: Grade, what: impl Into<String>, fix: impl Into<String>) {
        let finding = Finding::new(self.name, grade, what, fix);
        self.found.push(Finding {
            is_alarm: true,
            ..finding
        });
    }

    /// Adds a finding that only `doctor` reports.
    pub(crate) fn advise(&mut self, grade: Grade, what: impl Into<String>, fix: impl Into<String>) {
        let finding = Finding::new(self.name, grade, what, fix);
        self.found.push(finding);
    }

    /// Adds a good finding.
    pub(crate) fn ok(&mut self, what: String) {
        self.found.push(Finding::ok(self.name, what));
    }

    /// The findings; without any, that all is well.
    pub(crate) fn or(mut self, well: impl FnOnce() -> String) -> Vec<Finding> {
        if self.found.is_empty() {
            self.ok(well());
        }
        self.found
    }
}
