//! The progress of a long command, on stderr, if it is a capable terminal.

use std::io::Write as _;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::{is_plain, printable};

/// Bars and lines share it, so that they do not overwrite each other.
#[derive(Clone, Debug)]
pub struct Screen(MultiProgress);

/// A progress bar. It disappears when it is dropped.
#[derive(Debug)]
pub struct Bar(ProgressBar);

impl Screen {
    #[expect(clippy::new_without_default, reason = "it looks at the environment")]
    pub fn new() -> Self {
        Self(MultiProgress::with_draw_target(if is_plain() {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        }))
    }

    /// Whether the bars are not drawn.
    pub fn is_hidden(&self) -> bool {
        self.0.is_hidden()
    }

    /// Adds a bar for `what`, which ends at `target`.
    pub fn bar(&self, what: &str, target: u64) -> Bar {
        let template = "{prefix:10} {wide_bar} {pos} of {len} {msg}";
        Bar(self.add(ProgressBar::new(target), template, what))
    }

    /// Adds a bar that is drawn by `template`.
    pub fn add(&self, bar: ProgressBar, template: &str, what: &str) -> ProgressBar {
        let style = ProgressStyle::with_template(template).expect("the template is well formed");
        let bar = self
            .0
            .add(bar.with_style(style).with_prefix(what.to_owned()));
        if !self.is_hidden() {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        bar
    }

    /// Writes one line to stderr. A failed write is ignored: the operator has closed stderr.
    pub fn say(&self, line: &str) {
        let line = printable(line);
        self.0.suspend(|| {
            let _ = writeln!(std::io::stderr(), "{line}");
        });
    }
}

impl Bar {
    pub fn at(&self, place: u64) {
        self.0.set_position(place);
    }

    pub fn ends_at(&self, target: u64) {
        self.0.set_length(target);
    }

    pub fn says(&self, what: &'static str) {
        self.0.set_message(what);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
