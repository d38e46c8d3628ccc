//! The import: lines become concurrent requests, and their results are counted.

use std::fs::File;
use std::sync::{Mutex, Once, PoisonError};

use futures_util::StreamExt as _;
use indicatif::{ProgressBar, ProgressFinish};
use reqwest::{Client, Url};
use terminal::Screen;
use tokio::time::Instant;

use crate::args::Args;
use crate::ids::ForeignId;
use crate::input::{self, Entry, Input};
use crate::outage::{Outage, Watch};
use crate::refusals::Refusals;
use crate::requests::{self, Failure, Service, Trouble};
use crate::seen::Seen;
use crate::summary::{Counts, Stopped, Summary};

/// Imports the files: users and products at the same time, then orders. Lines that fail are
/// reported on stderr and counted. If a service is down, or `stop` returns the name of a signal,
/// the summary has the reason and what was done so far.
///
/// Returns an error before anything is sent, an `InputError` if a file cannot be opened.
pub async fn run(args: Args, stop: impl Future<Output = &'static str>) -> anyhow::Result<Summary> {
    let started = Instant::now();
    let (inputs, client) = (input::open(&args)?, requests::client()?);
    let errors = input::errors(&args)?;
    let import = Import::new(args, client, errors);
    let mut summary = Summary::default();
    let stopped = tokio::select! {
        done = import.files(inputs, &mut summary) => done.err().map(Stopped::Outage),
        signal = stop => Some(Stopped::Interrupted(signal)),
    };
    summary.stopped = stopped;
    summary.elapsed = started.elapsed();
    summary.refused = import.refusals().sums();
    Ok(summary)
}

/// What the imports of all files share.
struct Import {
    args: Args,
    client: Client,
    screen: Screen,
    refusals: Mutex<Refusals>,
}

impl Import {
    fn new(args: Args, client: Client, errors: Option<File>) -> Self {
        let screen = Screen::new();
        Self {
            refusals: Mutex::new(Refusals::new(screen.clone(), errors)),
            args,
            client,
            screen,
        }
    }

    fn refusals(&self) -> impl std::ops::DerefMut<Target = Refusals> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn files(&self, inputs: [Option<Input>; 3], summary: &mut Summary) -> Result<(), Outage> {
        let [users, products, orders] = inputs;
        let args = &self.args;
        // Counts are updated during the import: if one file stops, the other is dropped.
        tokio::try_join!(
            self.file(users, &args.users_url, "", &mut summary.users),
            self.file(products, &args.products_url, "", &mut summary.products),
        )?;
        let after = summary.after();
        self.file(orders, &args.orders_url, &after, &mut summary.orders)
            .await
    }

    /// Sends the lines of one file concurrently, and counts the results.
    async fn file(
        &self,
        input: Option<Input>,
        url: &Url,
        after: &str,
        counts: &mut Counts,
    ) -> Result<(), Outage> {
        let Some(input) = input else { return Ok(()) };
        let (kind, name) = (input.kind, input.name.clone());
        let service = Service::new(&self.client, kind, url, after, self.args.patience);
        let in_flight = usize::from(self.args.in_flight);
        let (started, warned) = (Instant::now(), Once::new());
        let (bar, mut watch) = (self.bar(&input), Watch::start());
        let mut seen = Seen::default();
        let mut settled = input
            .entries(in_flight, &bar)
            .map(|entry| {
                let entry = self.without_collision(entry, &mut seen, &name);
                self.settle(entry, &service, &warned)
            })
            .buffer_unordered(in_flight);
        while let Some(settled) = settled.next().await {
            counts.add(&settled.outcome);
            counts.elapsed = started.elapsed();
            if !self.screen.is_hidden() {
                bar.set_message(format!("{} lines, {:.0}/s", counts.read(), counts.rate()));
            }
            if let Err(failure) = &settled.outcome {
                let id = settled.id.as_ref();
                self.refusals().note(&name, settled.line, id, failure);
            }
            let watched = watch.line(&settled.outcome);
            watched.map_err(|trouble| Outage::new(kind, url, trouble))?;
        }
        bar.finish();
        Ok(())
    }

    /// The progress bar of a file: in bytes if its size is known, otherwise in lines.
    fn bar(&self, input: &Input) -> ProgressBar {
        let (bar, template) = match input.bytes {
            Some(bytes) => (
                ProgressBar::new(bytes),
                "{prefix:8} {wide_bar} {percent:>3} % {msg}, {eta} left",
            ),
            None => (ProgressBar::no_length(), "{prefix:8} {spinner} {msg}"),
        };
        let bar = bar.with_finish(ProgressFinish::Abandon);
        self.screen.add(bar, template, input.kind.name())
    }

    /// Refuses a number that an earlier line has as a text, or the reverse: they may or may not be
    /// the same record.
    fn without_collision(&self, mut entry: Entry, seen: &mut Seen, name: &str) -> Entry {
        let was_full = seen.is_full;
        if let Ok(request) = &entry.request
            && let Some(line) = seen.note(&request.id, entry.line)
        {
            let id = request.id.clone();
            let other = match &id {
                ForeignId::Text(text) => format!("id {text} (number, line {line})"),
                ForeignId::Number(number) => format!("id \"{number}\" (text, line {line})"),
            };
            let what = format!("{id} and {other} map to the same id; change one of them");
            entry.request = Err(what);
            entry.refused_id = Some(id);
        }
        if seen.is_full && !was_full {
            let line = entry.line;
            self.screen.say(&format!(
                "{name}:{line}: too many unordered ids; numbers and texts are not compared from here on"
            ));
        }
        entry
    }

    async fn settle(&self, entry: Entry, service: &Service, warned: &Once) -> Settled {
        let waiting = |trouble: &Trouble| {
            let patience = self.args.patience.as_secs_f64();
            let notice = || format!("{service}: {trouble}, retrying for up to {patience} s");
            warned.call_once(|| self.screen.say(&notice()));
        };
        let outcome = match &entry.request {
            Ok(request) => service.create(request, waiting).await,
            Err(what) => Err(Failure::Malformed(what.clone())),
        };
        Settled {
            line: entry.line,
            id: entry
                .request
                .map_or(entry.refused_id, |request| Some(request.id)),
            outcome,
        }
    }
}

/// The result of one line.
struct Settled {
    line: u64,
    /// The id in the file, if it could be read.
    id: Option<ForeignId>,
    outcome: Result<Option<u64>, Failure>,
}
