//! `headwater import`: brings users, products and orders from files into the services.
//!
//! Speaks the services' public HTTP API only, and is safe to run again: ids and idempotency keys
//! are computed from the lines, so that a repeated line is a repeated request.

use std::sync::Once;

use futures_util::StreamExt as _;
use reqwest::{Client, Url};
use tokio::time::Instant;

use crate::{Common, Exit, complain};
use input::{Entry, Input};
use outage::Watch;
use report::Screen;
use requests::{Failure, Service, Trouble};

pub use args::Args;
pub use ids::{Kind, mapped};
pub use input::InputError;
pub use outage::Outage;
pub use summary::{Counts, Summary};

mod args;
mod ids;
mod input;
mod lines;
mod outage;
mod problem;
mod records;
mod report;
mod requests;
mod summary;

/// Runs an import and prints its summary.
pub(crate) async fn command(common: &Common, args: Args) -> anyhow::Result<Exit> {
    let summary = run(args).await?;
    if let Some(outage) = &summary.stopped {
        complain(&outage.to_string());
    }
    common.print(&summary)?;
    Ok(summary.exit())
}

/// Imports the files: users and products at the same time, then orders. Lines that fail are
/// reported on stderr and counted. When a service is away, the summary says so and what was done
/// until then.
///
/// Errors before anything is sent, with [`InputError`] when a file cannot be opened.
pub async fn run(args: Args) -> anyhow::Result<Summary> {
    let started = Instant::now();
    let inputs = input::open(&args)?;
    let import = Import {
        client: requests::client()?,
        screen: Screen::new(),
        args,
    };
    let mut summary = Summary::default();
    summary.stopped = import.files(inputs, &mut summary).await.err();
    summary.elapsed = started.elapsed();
    Ok(summary)
}

/// What all files share.
struct Import {
    args: Args,
    client: Client,
    screen: Screen,
}

impl Import {
    async fn files(&self, inputs: [Option<Input>; 3], summary: &mut Summary) -> Result<(), Outage> {
        let [users, products, orders] = inputs;
        let args = &self.args;
        // Counts are filled as the import goes on: when one file stops, the other is dropped.
        tokio::try_join!(
            self.file(users, &args.users_url, "", &mut summary.users),
            self.file(products, &args.products_url, "", &mut summary.products),
        )?;
        let after = summary.after();
        self.file(orders, &args.orders_url, &after, &mut summary.orders)
            .await
    }

    /// Sends the lines of one file, many at a time, and counts what becomes of them.
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
        let (bar, mut watch) = (self.screen.bar(&input), Watch::start());
        let mut settled = input
            .entries(in_flight)
            .map(|entry| self.settle(entry, &service, &warned))
            .buffer_unordered(in_flight);
        while let Some(settled) = settled.next().await {
            counts.add(&settled.outcome);
            counts.elapsed = started.elapsed();
            self.screen.advance(&bar, settled.bytes, counts);
            if let Err(failure) = &settled.outcome {
                self.screen
                    .say(&format!("{name}:{}: {failure}", settled.line));
            }
            let watched = watch.line(&settled.outcome);
            watched.map_err(|trouble| Outage::new(kind, url, trouble))?;
        }
        bar.finish();
        Ok(())
    }

    async fn settle(&self, entry: Entry, service: &Service, warned: &Once) -> Settled {
        let waiting = |trouble: &Trouble| {
            let patience = self.args.patience.as_secs_f64();
            let notice = || format!("{service}: {trouble}, trying for up to {patience} s");
            warned.call_once(|| self.screen.say(&notice()));
        };
        let outcome = match &entry.request {
            Ok(request) => service.create(request, waiting).await,
            Err(what) => Err(Failure::Malformed(what.clone())),
        };
        Settled {
            line: entry.line,
            bytes: entry.bytes,
            outcome,
        }
    }
}

/// What became of one line.
struct Settled {
    line: u64,
    bytes: u64,
    outcome: Result<Option<u64>, Failure>,
}
