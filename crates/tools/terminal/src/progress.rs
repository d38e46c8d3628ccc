//! The progress of a long command, on stderr, if it is a capable terminal.

use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::{is_plain, printable};
use crate::table::bytes;

/// Bars and lines share it, so that they do not overwrite each other.
#[derive(Clone, Debug)]
pub struct Screen {
    bars: MultiProgress,
    /// The bars of a screen that is not drawn, for [`Screen::progress`], and whether each counts
    /// bytes.
    read: Option<Arc<Mutex<Bars>>>,
}

type Bars = Vec<(ProgressBar, bool)>;

/// The state of one bar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    pub what: String,
    pub at: u64,
    pub of: u64,
    pub says: String,
    /// Whether it counts bytes, rather than events.
    pub is_bytes: bool,
}

impl Progress {
    /// What is done: `3 of 17 events`, `1.5 MiB of 4.0 MiB`.
    pub fn amount(&self) -> String {
        if self.is_bytes {
            format!("{} of {}", bytes(self.at), bytes(self.of))
        } else {
            format!("{} of {} events", self.at, self.of)
        }
    }
}

/// A progress bar. It disappears when it is dropped.
#[derive(Debug)]
pub struct Bar(ProgressBar);

impl Screen {
    #[expect(clippy::new_without_default, reason = "it looks at the environment")]
    pub fn new() -> Self {
        let target = if is_plain() {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        };
        Self {
            bars: MultiProgress::with_draw_target(target),
            read: None,
        }
    }

    /// A screen that draws nothing: another program shows its [`progress`](Self::progress).
    pub fn read() -> Self {
        Self {
            bars: MultiProgress::with_draw_target(ProgressDrawTarget::hidden()),
            read: Some(Arc::default()),
        }
    }

    /// The bars that have not ended, of a screen that [`read`](Self::read) made.
    pub fn progress(&self) -> Vec<Progress> {
        let Some(read) = &self.read else {
            return Vec::new();
        };
        let mut bars = read.lock().expect("no holder panics");
        bars.retain(|(bar, _)| !bar.is_finished());
        let progress = bars.iter().map(|(bar, is_bytes)| Progress {
            what: bar.prefix(),
            at: bar.position(),
            of: bar.length().unwrap_or_default(),
            says: bar.message(),
            is_bytes: *is_bytes,
        });
        progress.collect()
    }

    /// Whether the bars are not drawn.
    pub fn is_hidden(&self) -> bool {
        self.bars.is_hidden()
    }

    /// Adds a bar for `what`, which ends at `target`.
    pub fn bar(&self, what: &str, target: u64) -> Bar {
        let template = "{prefix:10} {wide_bar} {pos} of {len} {msg}";
        Bar(self.add(ProgressBar::new(target), template, what))
    }

    /// Adds a bar for `what`, which ends at `target` bytes.
    pub fn bar_of_bytes(&self, what: &str, target: u64) -> Bar {
        let template = "{prefix:10} {wide_bar} {bytes} of {total_bytes} {msg}";
        Bar(self.add(ProgressBar::new(target), template, what))
    }

    /// Adds a bar that is drawn by `template`.
    pub fn add(&self, bar: ProgressBar, template: &str, what: &str) -> ProgressBar {
        let style = ProgressStyle::with_template(template).expect("the template is well formed");
        let bar = bar.with_style(style).with_prefix(what.to_owned());
        let bar = self.bars.add(bar);
        if let Some(read) = &self.read {
            let is_bytes = template.contains("{bytes}");
            let mut read = read.lock().expect("no holder panics");
            read.push((bar.clone(), is_bytes));
        }
        if !self.is_hidden() {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        bar
    }

    /// Writes one line to stderr. A failed write is ignored: the operator has closed stderr.
    pub fn say(&self, line: &str) {
        let line = printable(line);
        self.bars.suspend(|| {
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
