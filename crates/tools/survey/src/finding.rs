//! What was found of one thing that is looked at, and what to do about it.

use serde::Serialize;

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Grade {
    Ok,
    /// It cannot be seen from here.
    Unknown,
    /// It works, and should be looked at.
    Warn,
    /// It does not.
    Fail,
}

/// What one look came to.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Finding {
    pub(crate) check: &'static str,
    pub(crate) grade: Grade,
    pub(crate) what: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fix: Option<String>,
    /// Whether somebody is to be told who did not ask a doctor.
    #[serde(skip)]
    pub(crate) is_alarm: bool,
}

/// One thing that is looked at, and what was found of it.
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

    /// Something that `status` and `check` say as well.
    pub(crate) fn alarm(&mut self, grade: Grade, what: impl Into<String>, fix: impl Into<String>) {
        let finding = Finding::new(self.name, grade, what, fix);
        self.found.push(Finding {
            is_alarm: true,
            ..finding
        });
    }

    /// Something that only `doctor` says.
    pub(crate) fn advise(&mut self, grade: Grade, what: impl Into<String>, fix: impl Into<String>) {
        let finding = Finding::new(self.name, grade, what, fix);
        self.found.push(finding);
    }

    /// What is well beside what is not.
    pub(crate) fn ok(&mut self, what: String) {
        self.found.push(Finding::ok(self.name, what));
    }

    /// What was found; where that is nothing, that all is well.
    pub(crate) fn or(mut self, well: impl FnOnce() -> String) -> Vec<Finding> {
        if self.found.is_empty() {
            self.ok(well());
        }
        self.found
    }
}
