//! `headwater dead-letter`: what projections could not apply, tried again or given up.

use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::Subcommand;
use headwater::operator::{
    DiscardAnswer, DiscardRequest, Endpoint, Letter, ListAnswer, ListRequest, RetryAnswer,
    RetryRequest, ShowRequest,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::common::confirm;
use crate::nats::{Nats, Unreachable};
use crate::{Common, Exit};
use args::{Discard, List, Retry, Show};
use report::{Discarded, Listed, Retried, Shown};

mod args;
mod report;

/// How long a service may take to try all its letters again.
const CHANGE_TIMEOUT: Duration = Duration::from_mins(1);

/// Look at what projections could not apply, try it again or give it up
///
/// An event that cannot be applied is parked with its reason, later ones of the same key behind
/// it. Ids are per service.
///
/// Exit codes: 0 done, 3 some failed again, 4 the broker or a service cannot be reached, 2 the
/// command line cannot be followed, 1 anything else.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What can be done about dead letters.
#[derive(Clone, Debug, Subcommand)]
pub enum Action {
    /// List those that wait
    List(List),
    /// Show one with its payload
    Show(Show),
    /// Try one, a lane or all of them again, with those that wait behind
    ///
    /// Each is applied as its source's outbox has it, whatever was delivered.
    Retry(Retry),
    /// Give one up for good, and try those that wait behind it
    Discard(Discard),
    /// List those that were given up
    Discarded(List),
}

/// Does it and prints what came of it.
pub(crate) async fn command(common: &Common, args: Args) -> anyhow::Result<Exit> {
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
    let services = match &args.service {
        Some(service) => vec![service.clone()],
        None => nats.services_with(endpoint).await?,
    };
    let mut listed = Listed::default();
    for service in services {
        let (letters, total) = letters(&nats, &service, endpoint, args.limit as usize)
            .await
            .with_context(|| format!("list the dead letters of {service}"))?;
        listed.add(service, letters, total);
    }
    common.print(&listed)?;
    Ok(Exit::Done)
}

/// The oldest `limit` letters of a service, and how many it has in all.
async fn letters(
    nats: &Nats,
    service: &str,
    endpoint: Endpoint,
    limit: usize,
) -> anyhow::Result<(Vec<Letter>, u64)> {
    let mut letters: Vec<Letter> = Vec::new();
    loop {
        let request = ListRequest {
            after: letters.last().map_or(0, |letter| letter.id),
            limit: limit - letters.len(),
        };
        let page: ListAnswer = nats.ask(service, endpoint, &request).await?;
        let is_end = page.letters.is_empty();
        letters.extend(page.letters);
        if is_end || letters.len() >= limit {
            return Ok((letters, page.total));
        }
    }
}

async fn show(common: &Common, args: &Show) -> anyhow::Result<Exit> {
    let nats = common.connect().await?;
    let service = args.service.clone();
    let letter = whole_letter(&nats, &service, args.id).await?;
    common.print(&Shown { service, letter })?;
    Ok(Exit::Done)
}

/// A letter with its payload, which one answer may have no room for.
async fn whole_letter(nats: &Nats, service: &str, id: u64) -> anyhow::Result<Letter> {
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
    let request = match (args.id, &args.lane) {
        (Some(id), _) => RetryRequest::Id(id),
        (None, Some(lane)) => RetryRequest::Lane(lane.clone()),
        (None, None) => RetryRequest::All {},
    };
    let service = args.service.clone();
    let answer: RetryAnswer = change(&nats, &service, Endpoint::DeadLettersRetry, &request).await?;
    let retried = Retried { service, answer };
    common.print(&retried)?;
    Ok(retried.exit())
}

async fn discard(common: &Common, args: Discard) -> anyhow::Result<Exit> {
    let what = format!(
        "discard the dead letter {} of {} for good",
        args.id, args.service
    );
    confirm(&what, args.yes)?;
    let nats = common.connect().await?;
    let (id, reason) = (args.id, args.reason);
    let request = DiscardRequest { id, reason };
    let service = args.service;
    let answer: DiscardAnswer =
        change(&nats, &service, Endpoint::DeadLettersDiscard, &request).await?;
    common.print(&Discarded { service, answer })?;
    Ok(Exit::Done)
}

/// Asks for something to be changed. Without an answer nobody knows whether it was.
async fn change<A: DeserializeOwned>(
    nats: &Nats,
    service: &str,
    endpoint: Endpoint,
    request: &impl Serialize,
) -> anyhow::Result<A> {
    let asked = nats.ask_within(CHANGE_TIMEOUT, service, endpoint, request);
    asked.await.map_err(|error| {
        if error.is::<Unreachable>() {
            error.context(
                "it may have been done all the same, look with `headwater dead-letter list`",
            )
        } else {
            error
        }
    })
}
