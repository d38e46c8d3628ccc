//! What the operator sees meanwhile, on stderr: bars, and the lines that went wrong.

use std::io::Write as _;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressFinish, ProgressStyle};

use super::input::Input;
use super::summary::Counts;
use crate::output::printable;

/// Bars and reports share it, so that they do not tear each other. Bars are only drawn on a
/// terminal.
#[derive(Clone)]
pub(crate) struct Screen(MultiProgress);

impl Screen {
    pub(crate) fn new() -> Self {
        Self(crate::progress::bars())
    }

    /// Adds the bar of one file: bytes where its size is known, lines alone otherwise.
    pub(crate) fn bar(&self, input: &Input) -> ProgressBar {
        let (bar, template) = match input.bytes {
            Some(bytes) => (
                ProgressBar::new(bytes),
                "{prefix:8} {wide_bar} {percent:>3} % {msg}, {eta} left",
            ),
            None => (ProgressBar::no_length(), "{prefix:8} {spinner} {msg}"),
        };
        let style = ProgressStyle::with_template(template).expect("the templates are well formed");
        let bar = self.0.add(
            bar.with_finish(ProgressFinish::Abandon)
                .with_style(style)
                .with_prefix(input.kind.name()),
        );
        if !self.0.is_hidden() {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        bar
    }

    pub(crate) fn advance(&self, bar: &ProgressBar, bytes: u64, counts: &Counts) {
        if !self.0.is_hidden() {
            bar.set_message(format!("{} lines, {:.0}/s", counts.read(), counts.rate()));
            bar.inc(bytes);
        }
    }

    /// Writes one line. A closed stderr leaves nobody to tell, so that a failed write is ignored.
    pub(crate) fn say(&self, line: &str) {
        let line = printable(line);
        self.0.suspend(|| {
            let _ = writeln!(std::io::stderr(), "{line}");
        });
    }
}
