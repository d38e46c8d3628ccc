//! `headwater dead-letter`: events that projections could not apply: list, retry, discard.

use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::Subcommand;
use client::{Common, Nats, complain};
use headwater::operator::{
    DISCARD_MAX, DiscardAnswer, DiscardManyAnswer, DiscardRequest, Endpoint, Filter, Letter,
    ListAnswer, ListRequest, RetryAnswer, RetryRequest, ShowRequest,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use terminal::{Exit, Unconfirmed, ask, confirm, output};

use args::{Discard, List, Retry, Show};
pub use plan::Plan;
pub use report::{Discarded, DiscardedMany, Retried, line};
use report::{Listed, Shown};

mod args;
mod plan;
mod report;

/// How many dead letters are requested at once.
const PAGE: usize = 1000;

/// How long a service may take to retry all its dead letters.
const CHANGE_TIMEOUT: Duration = Duration::from_mins(1);

/// List, show, retry or discard events that projections could not apply
///
/// An event that cannot be applied becomes a dead letter, with its reason. Later events of the same
/// key wait behind it. Ids are per service.
///
/// Exit codes: 0 done, 1 other failure, 2 usage error, 3 some failed again, 4 the broker or a
/// service cannot be reached.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The action.
    #[command(subcommand)]
    pub action: Action,
}

/// The actions.
#[derive(Clone, Debug, Subcommand)]
pub enum Action {
    /// List dead letters
    List(List),
    /// Show a dead letter with its payload
    Show(Show),
    /// Retry a dead letter, a blocked key or all, with the events that wait behind
    ///
    /// Each event is applied as it is in its source's outbox, regardless of what was delivered.
    Retry(Retry),
    /// Discard dead letters for good, and retry the events that wait behind them
    Discard(Discard),
    /// List discarded dead letters
    Discarded(List),
}

/// Runs the action and prints the result.
pub async fn command(common: &Common, args: Args) -> anyhow::Result<Exit> {
    match args.action {
        Action::List(args) => list(common, &args, Endpoint::DeadLettersList).await,
        Action::Show(args) => show(common, &args).await,
        Action::Retry(args) => retry(common, &args).await,
        Action::Discard(args) => discard(common, args).await,
        Action::Discarded(args) => list(common, &args, Endpoint::DeadLettersDiscarded).await,
    }
}

async fn list(common: &Common, args: &List, endpoint: Endpoint) -> anyhow::Result<Exit> {
    let nats = common.connect().await?;
    let mut listed = Listed::default();
    for service in services(&nats, args.service.as_ref(), endpoint).await? {
        let filter = args.which.filter();
        let (mut letters, limit) = (Vec::new(), args.limit as usize);
        let total = letters_of(&nats, &service, endpoint, filter, limit, |letter| {
            letters.push(letter);
        });
        let total = total.await?;
        listed.add(service, letters, total);
    }
    common.print(&listed)?;
    Ok(Exit::Done)
}

/// The named service, or all services that offer `endpoint`.
async fn services(
    nats: &Nats,
    named: Option<&String>,
    endpoint: Endpoint,
) -> anyhow::Result<Vec<String>> {
    match named {
        Some(service) => Ok(vec![service.clone()]),
        None => nats.services_with(endpoint).await,
    }
}

/// Passes the oldest `limit` matching letters of a service to `each`; returns the number of all
/// matching letters.
pub async fn letters_of(
    nats: &Nats,
    service: &str,
    endpoint: Endpoint,
    filter: Filter,
    limit: usize,
    mut each: impl FnMut(Letter),
) -> anyhow::Result<u64> {
    let mut request = ListRequest {
        after: 0,
        limit: limit.min(PAGE),
        filter,
    };
    let mut left = limit;
    loop {
        let page = nats.ask(service, endpoint, &request).await;
        let page: ListAnswer =
            page.with_context(|| format!("list the dead letters of {service}"))?;
        let Some(last) = page.letters.last() else {
            return Ok(page.total);
        };
        request.after = last.id;
        left = left.saturating_sub(page.letters.len());
        page.letters.into_iter().for_each(&mut each);
        if left == 0 {
            return Ok(page.total);
        }
        request.limit = left.min(PAGE);
    }
}

async fn show(common: &Common, args: &Show) -> anyhow::Result<Exit> {
    let nats = common.connect().await?;
    let service = args.service.clone();
    let letter = whole_letter(&nats, &service, args.id).await?;
    common.print(&Shown { service, letter })?;
    Ok(Exit::Done)
}

/// A letter with its payload, which may not fit into one answer.
pub async fn whole_letter(nats: &Nats, service: &str, id: u64) -> Result<Letter, client::Error> {
    let mut payload = Vec::new();
    loop {
        let offset = Some(payload.len());
        let request = ShowRequest { id, offset };
        let asked = nats.ask(service, Endpoint::DeadLettersShow, &request);
        let mut letter: Letter = asked.await?;
        let part = letter.payload.take().unwrap_or_default();
        let part = BASE64_STANDARD.decode(part).context("read the payload")?;
        let is_end = part.is_empty();
        payload.extend(part);
        if is_end || payload.len() as u64 >= letter.bytes {
            letter.payload = Some(BASE64_STANDARD.encode(payload));
            return Ok(letter);
        }
    }
}

async fn retry(common: &Common, args: &Retry) -> anyhow::Result<Exit> {
    let nats = common.connect().await?;
    let which = &args.which;
    let request = match (args.id, &which.lane) {
        (Some(id), _) => RetryRequest::Id(id),
        // With --service, an unknown key is an error.
        (None, Some(key))
            if args.service.is_some() && which.source.is_none() && which.error.is_none() =>
        {
            RetryRequest::Lane(key.clone())
        }
        (None, _) => RetryRequest::All(which.filter()),
    };
    let mut exit = Exit::Done;
    let services = services(&nats, args.service.as_ref(), Endpoint::DeadLettersList).await?;
    let is_one = services.len() == 1;
    if services.is_empty() {
        common.print(&DiscardedMany::default())?;
    }
    for service in services {
        let mut retried = retry_some(&nats, service, &request).await?;
        retried.is_one = is_one;
        if retried.answer.failed_in_all() > 0 {
            exit = Exit::Different;
        }
        output::line(&retried, common.output)?;
    }
    Ok(exit)
}

/// Retries letters of a service.
pub async fn retry_some(
    nats: &Nats,
    service: String,
    request: &RetryRequest,
) -> Result<Retried, client::Error> {
    let answer: RetryAnswer = change(nats, &service, Endpoint::DeadLettersRetry, request).await?;
    Ok(Retried {
        service,
        is_one: false,
        answer,
    })
}

async fn discard(common: &Common, args: Discard) -> anyhow::Result<Exit> {
    let (Some(id), Some(service)) = (args.id, args.service.clone()) else {
        return discard_all(common, args).await;
    };
    confirm(&discard_consequence(id, &service), args.yes)?;
    let nats = common.connect().await?;
    let discarded = discard_one(&nats, service, id, args.reason).await?;
    common.print(&discarded)?;
    Ok(Exit::Done)
}

/// What an operator confirms.
pub fn discard_consequence(id: u64, service: &str) -> String {
    format!("discard the dead letter {id} of {service} for good")
}

/// Discards one letter, which may itself have failed or only wait.
pub async fn discard_one(
    nats: &Nats,
    service: String,
    id: u64,
    reason: String,
) -> anyhow::Result<Discarded> {
    let request = DiscardRequest {
        id: Some(id),
        reason,
        ..DiscardRequest::default()
    };
    let answer: DiscardAnswer =
        change(nats, &service, Endpoint::DeadLettersDiscard, &request).await?;
    Ok(Discarded { service, answer })
}

/// Discards the letters that were listed and confirmed. Later dead letters stay.
async fn discard_all(common: &Common, args: Discard) -> anyhow::Result<Exit> {
    const LIST: Endpoint = Endpoint::DeadLettersList;
    let nats = common.connect().await?;
    let mut plan = Plan::default();
    for service in services(&nats, args.service.as_ref(), LIST).await? {
        let filter = Filter {
            waiting: Some(false),
            ..args.which.filter()
        };
        let note = |letter: Letter| plan.add(&service, &letter);
        letters_of(&nats, &service, LIST, filter, usize::MAX, note).await?;
    }
    confirm_all(&plan, &args)?;
    let done = discard_many(&nats, plan, &args.reason).await?;
    common.print(&done)?;
    Ok(Exit::Done)
}

/// Discards the letters of a plan, the oldest of each service first.
pub async fn discard_many(nats: &Nats, plan: Plan, reason: &str) -> anyhow::Result<DiscardedMany> {
    let total = plan.total();
    let mut done = DiscardedMany::default();
    for (service, ids) in plan.into_ids() {
        for ids in ids.chunks(DISCARD_MAX) {
            let request = DiscardRequest {
                ids: ids.to_vec(),
                reason: reason.to_owned(),
                ..DiscardRequest::default()
            };
            let answer = change(nats, &service, Endpoint::DeadLettersDiscard, &request).await;
            let answer: DiscardManyAnswer = answer.with_context(|| {
                format!(
                    "{} of {total} were discarded, the oldest of each service first; run the same \
                     command again for the rest",
                    done.discarded()
                )
            })?;
            done.add(&service, &answer);
        }
    }
    Ok(done)
}

/// Returns [`Unconfirmed`] unless this number of letters was confirmed.
fn confirm_all(plan: &Plan, args: &Discard) -> anyhow::Result<()> {
    let total = plan.total();
    match args.confirm {
        Some(wanted) if wanted != total => {
            complain(&plan.to_string());
            let message = format!(
                "there are {total} dead letters to discard, not {wanted}: nothing was done"
            );
            Err(Unconfirmed(message).into())
        }
        None if !args.yes && total > 0 => {
            complain(&plan.to_string());
            let what = format!("discard {total} dead letters for good");
            ask(&what, &format!("--yes or --confirm {total}"))
        }
        _ => Ok(()),
    }
}

/// Requests a change. Without an answer, its outcome is unknown.
async fn change<A: DeserializeOwned>(
    nats: &Nats,
    service: &str,
    endpoint: Endpoint,
    request: &impl Serialize,
) -> Result<A, client::Error> {
    const UNKNOWN: &str =
        "the change may have been made nevertheless, check with `headwater dead-letter list`";
    let asked = nats.ask_within(CHANGE_TIMEOUT, service, endpoint, request);
    asked.await.map_err(|error| match error {
        client::Error::Unreachable(away) => anyhow::Error::from(away).context(UNKNOWN).into(),
        error => error,
    })
}
