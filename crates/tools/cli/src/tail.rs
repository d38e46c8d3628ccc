//! `headwater tail`: prints decoded events, past and new.

use std::collections::VecDeque;
use std::time::Duration;

use client::arrived::{Arrived, Line};
use client::feed::{self, Begin, Feed, News};
use client::pattern::Pattern;
use client::schemas::Schemas;
use client::{Common, complain};
use futures_util::StreamExt as _;
use futures_util::stream::{SelectAll, poll_fn};
use terminal::output::{duration, printable};
use terminal::{Exit, output};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// How many events a tail begins with by default.
const LAST: u64 = 10;

/// How many events of each stream are read ahead of printing.
const AHEAD: usize = 1_000;

/// Print the events of one or all sources, decoded, and follow new ones
///
/// SUBJECT may have wildcards: `orders`, `orders.v1.placed`, `*.v1.*.17`, `orders.>`. Without it,
/// the events of all sources that exist at the start are printed.
///
/// Begins with the last 10 events; with --key, with the first event. Continues until it is stopped,
/// even if the broker restarts or loses its data. Events of one source come in order. Stored events
/// of several sources are sorted by time; new events are printed as they arrive.
///
/// With -o json, each event is one object per line: subject, source, position and epoch in the
/// source's outbox (null if the event was published by hand), sequence in the stream, time, key and
/// event.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Subject of the events, with `*` and `>` as wildcards; `orders.v1` also matches all subjects
    /// that begin with it
    #[arg(value_name = "SUBJECT", default_value = ">")]
    pub subject: String,

    /// Print only events with this key, such as a user's id; reads only its partition, 1 of 64
    #[arg(long, value_name = "ID", env = "HEADWATER_TAIL_KEY")]
    pub key: Option<String>,

    /// Begin with events that are at most this old, such as 10m or 2h
    #[arg(long, value_name = "DURATION", env = "HEADWATER_TAIL_SINCE", value_parser = duration, group = "begin")]
    pub since: Option<Duration>,

    /// Begin with the last N events; with 0, print only new ones
    #[arg(long, value_name = "N", env = "HEADWATER_TAIL_LAST", group = "begin")]
    pub last: Option<u64>,

    /// Begin with this sequence of the stream
    #[arg(
        long,
        value_name = "SEQUENCE",
        env = "HEADWATER_TAIL_FROM",
        group = "begin"
    )]
    pub from: Option<u64>,

    /// Exit when all stored events are printed
    #[arg(long, env = "HEADWATER_TAIL_NO_FOLLOW")]
    pub no_follow: bool,

    /// Exit after N events
    #[arg(long, value_name = "N", env = "HEADWATER_TAIL_COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
}

/// Prints events until none are left to print.
pub(crate) async fn command(common: &Common, args: Args) -> anyhow::Result<Exit> {
    let refuse = |why: &str| {
        complain(&printable(why));
        Ok(Exit::Usage)
    };
    let pattern = Pattern::parse(&args.subject);
    let pattern = pattern.and_then(|pattern| match &args.key {
        Some(key) => pattern.with_key(key),
        None => Ok(pattern),
    });
    let pattern = match pattern {
        Ok(pattern) => pattern,
        Err(wrong) => return refuse(&wrong.to_string()),
    };
    let nats = common.connect().await?;
    let streams = pattern.streams(&nats).await?;
    if args.from.is_some() && streams.len() > 1 {
        return refuse(
            "a sequence belongs to one stream: name its source, as in `headwater tail orders --from 17`",
        );
    }
    let (begin, keeps) = begin(&args)?;
    let mut printer = Printer {
        schemas: Schemas::new(nats.clone()),
        key: args.key.clone(),
        left: args.count,
        kept: keeps.map(|most| (most, VecDeque::new())),
        output: common.output,
        has_complained: false,
    };
    let mut feeds = JoinSet::new();
    let mut inboxes = Vec::new();
    for (stream, source) in streams {
        let (news, inbox) = mpsc::channel(AHEAD);
        let filters = pattern.of(&source);
        let (nats, is_followed) = (nats.clone(), !args.no_follow);
        let feed = Feed::new(nats, (stream, source), filters, begin, is_followed, news);
        feeds.spawn(feed.run());
        inboxes.push(inbox);
    }
    let outcome = print(&mut printer, inboxes, !args.no_follow).await;
    if outcome.is_err() {
        nats.expect_connected()?;
    }
    outcome?;
    Ok(Exit::Done)
}

/// Where the feeds begin, and how many of the stored events are printed at most.
///
/// The last events of a key cannot be counted before they are decoded, so the key's whole partition
/// is read.
fn begin(args: &Args) -> anyhow::Result<(Begin, Option<u64>)> {
    let last = args.last.or((args.key.is_none()).then_some(LAST));
    Ok(match (args.since, args.from, last) {
        (Some(since), _, _) => (Begin::At(feed::ago(since)?), None),
        (_, Some(sequence), _) => (Begin::From(sequence), None),
        (_, _, Some(0)) => (Begin::Last(0), Some(0)),
        (_, _, Some(last)) if args.key.is_none() => (Begin::Last(last), Some(last)),
        (_, _, last) => (Begin::From(1), last),
    })
}

/// Prints stored events, sorted by time, and then new ones.
async fn print(
    printer: &mut Printer,
    mut inboxes: Vec<mpsc::Receiver<News>>,
    is_followed: bool,
) -> anyhow::Result<()> {
    let mut heads: Vec<Option<Arrived>> = Vec::new();
    for inbox in &mut inboxes {
        heads.push(backlog(inbox).await?);
    }
    let oldest = |heads: &[Option<Arrived>]| {
        let at = |(index, head): (usize, &Option<Arrived>)| Some((head.as_ref()?.event.at, index));
        heads.iter().enumerate().filter_map(at).min()
    };
    while let Some((_, index)) = oldest(&heads) {
        let next = backlog(&mut inboxes[index]).await?;
        if let Some(event) = std::mem::replace(&mut heads[index], next)
            && printer.take(event).await?
        {
            return Ok(());
        }
    }
    if printer.is_caught_up()? || !is_followed {
        return Ok(());
    }
    let live = inboxes
        .into_iter()
        .map(|mut inbox| poll_fn(move |context| inbox.poll_recv(context)));
    let mut live: SelectAll<_> = live.collect();
    while let Some(news) = live.next().await {
        if let News::Event(event) = news
            && printer.take(event).await?
        {
            break;
        }
    }
    Ok(())
}

/// The next event of those stored at the start.
async fn backlog(inbox: &mut mpsc::Receiver<News>) -> anyhow::Result<Option<Arrived>> {
    match inbox.recv().await {
        Some(News::Event(event)) => Ok(Some(event)),
        Some(News::Failed(failure)) => Err(failure),
        Some(News::CaughtUp) | None => Ok(None),
    }
}

/// Prints the events that match.
struct Printer {
    schemas: Schemas,
    key: Option<String>,
    /// How many events are left to print.
    left: Option<u64>,
    /// How many of the stored events are printed, and those received so far.
    kept: Option<(u64, VecDeque<Line>)>,
    output: output::Format,
    has_complained: bool,
}

impl Printer {
    /// Returns whether this was the last event to print.
    async fn take(&mut self, event: Arrived) -> anyhow::Result<bool> {
        let line = event.decode(&mut self.schemas).await;
        if !self.is_meant(&line) {
            return Ok(false);
        }
        match &mut self.kept {
            Some((most, kept)) => {
                kept.push_back(line);
                if kept.len() as u64 > *most {
                    kept.pop_front();
                }
                Ok(false)
            }
            None => self.print(&line),
        }
    }

    /// Prints the stored events; returns whether that was all.
    fn is_caught_up(&mut self) -> anyhow::Result<bool> {
        for line in self.kept.take().into_iter().flat_map(|(_, kept)| kept) {
            if self.print(&line)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn print(&mut self, line: &Line) -> anyhow::Result<bool> {
        output::line(line, self.output)?;
        self.left = self.left.map(|left| left - 1);
        Ok(self.left == Some(0))
    }

    fn is_meant(&mut self, line: &Line) -> bool {
        let Some(key) = &self.key else {
            return true;
        };
        if let (Some(problem), false) = (&line.problem, self.has_complained) {
            self.has_complained = true;
            complain(&printable(&format!(
                "skipped an event that does not decode, so its key is unknown: {problem}"
            )));
        }
        line.key.as_ref() == Some(key)
    }
}
