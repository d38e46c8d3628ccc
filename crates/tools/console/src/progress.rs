//! What the operator sees of a long command, on stderr, if that is a terminal.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::is_plain;

/// Where bars are drawn: on a terminal that can.
pub(crate) fn bars() -> MultiProgress {
    MultiProgress::with_draw_target(if is_plain() {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr()
    })
}

/// Bars are only drawn on a terminal that can.
#[derive(Clone, Debug)]
pub(crate) struct Screen(MultiProgress);

/// How far something is.
#[derive(Debug)]
pub(crate) struct Bar(ProgressBar);

impl Screen {
    pub(crate) fn new() -> Self {
        Self(bars())
    }

    /// Whether nobody sees the bars.
    pub(crate) fn is_hidden(&self) -> bool {
        self.0.is_hidden()
    }

    /// Adds a bar for `what`, which ends at `target`; it goes when it is dropped.
    pub(crate) fn bar(&self, what: &str, target: u64) -> Bar {
        let style = ProgressStyle::with_template("{prefix:10} {wide_bar} {pos} of {len} {msg}")
            .expect("the template is well formed");
        let bar = self.0.add(ProgressBar::new(target));
        bar.set_style(style);
        bar.set_prefix(what.to_owned());
        if !self.is_hidden() {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Bar(bar)
    }
}

impl Bar {
    pub(crate) fn at(&self, place: u64) {
        self.0.set_position(place);
    }

    pub(crate) fn ends_at(&self, target: u64) {
        self.0.set_length(target);
    }

    pub(crate) fn says(&self, what: &'static str) {
        self.0.set_message(what);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
