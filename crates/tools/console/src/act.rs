//! What an action does, and what it means for the system.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use client::Nats;
use headwater::operator::{Endpoint, Filter, Letter, RetryRequest};
use maintenance::dead_letter::{self, Plan, discard_consequence, letters_of};
use maintenance::{Target, own_backup, projection, rebuild, replay, stream, verify};
use survey::event::Place;
use terminal::{Exit, Screen};
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::job::{Ended, Handles, Replayed};
use crate::letters;
use crate::masks::{mask, mask_all};
use crate::params::Params;
use crate::readable::is_shown;
use crate::verb::{PICKS_MAX, Pick, Verb};

/// How long relays and projections may take to catch up before they are verified.
const VERIFY_WAIT: Duration = Duration::from_secs(10);

/// How many dead letters a consequence names.
const NAMED_MAX: usize = 20;

/// What the action does, for the operator to confirm, in the words of the command line.
pub(crate) async fn consequence(app: &App, verb: &Verb) -> anyhow::Result<Vec<String>> {
    Ok(match verb {
        Verb::Retry(picks) => {
            let mut lines = words::<dead_letter::Args>(&["retry"]);
            lines.extend(named(app, picks).await?);
            lines
        }
        Verb::Discard(picks) => discard(app, picks).await?,
        Verb::Pause(_) => words::<projection::Args>(&["pause"]),
        Verb::Resume(_) => words::<projection::Args>(&["resume"]),
        Verb::Rebuild(_) => words::<rebuild::Args>(&[]),
        Verb::Verify(_) => words::<verify::Args>(&[]),
        Verb::Replay(..) => words::<projection::Args>(&["replay"]),
        Verb::Restore(source) => {
            let mut lines = words::<stream::Args>(&["restore"]);
            lines.extend(stream::Before::look(&app.nats, source).await?.plan());
            lines
        }
        Verb::Backup(service) => own_backup::consequence(&app.nats, service).await?,
    })
}

/// The parameters with the oldest letters that match, if they name a filter and `all`.
pub(crate) async fn with_all(app: &App, params: Params) -> anyhow::Result<Params> {
    let service = params.get("service").to_owned();
    if params.get("all").is_empty() || survey::source(&service).is_err() {
        return Ok(params);
    }
    let filter = Filter {
        waiting: Some(false),
        ..letters::filter(&params)
    };
    let mut letters = Vec::new();
    let each = |letter: Letter| letters.push(letter);
    let list = Endpoint::DeadLettersList;
    letters_of(&app.nats, &service, list, filter, PICKS_MAX, each).await?;
    if !params.get("error").is_empty() {
        let masked = mask_all(app, letters, is_shown(&params)).await;
        letters = masked.into_iter().map(|(letter, _)| letter).collect();
        letters.retain(|letter| letters::is_found(&letter.reason, &params));
    }
    let picks = letters
        .iter()
        .map(|letter| format!("{service}:{}", letter.id));
    Ok(Params::of("verb", params.get("verb")).and("pick", picks.collect()))
}

/// The help of a command, without its exit codes.
fn words<A: clap::Args>(path: &[&str]) -> Vec<String> {
    let mut command = A::augment_args(clap::Command::new("headwater"));
    for name in path {
        let inner = command.find_subcommand(name);
        command = inner.expect("it is a command of the tool").clone();
    }
    let about = command.get_long_about().or(command.get_about());
    let about = about.map(ToString::to_string).unwrap_or_default();
    let parts = about.split("\n\n");
    let parts = parts.filter(|part| !part.starts_with("Exit codes"));
    parts.map(str::to_owned).collect()
}

async fn discard(app: &App, picks: &[Pick]) -> anyhow::Result<Vec<String>> {
    let mut lines = words::<dead_letter::Args>(&["discard"]);
    if let [pick] = picks {
        lines.push(discard_consequence(pick.id, &pick.service));
        lines.extend(named(app, picks).await?);
        return Ok(lines);
    }
    let plan = plan(app, picks).await?;
    lines.extend(plan.to_string().lines().map(str::to_owned));
    Ok(lines)
}

/// The letters to discard, with masks.
async fn plan(app: &App, picks: &[Pick]) -> anyhow::Result<Plan> {
    let mut plan = Plan::default();
    for pick in picks {
        plan.add(&pick.service, &letter(app, pick).await?);
    }
    Ok(plan)
}

/// One line for each of the first letters.
async fn named(app: &App, picks: &[Pick]) -> anyhow::Result<Vec<String>> {
    let mut lines = Vec::new();
    for pick in picks.iter().take(NAMED_MAX) {
        let letter = letter(app, pick).await?;
        lines.push(format!("{}: {}", pick.service, dead_letter::line(&letter)));
    }
    let more = picks.len().saturating_sub(NAMED_MAX);
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    Ok(lines)
}

async fn letter(app: &App, pick: &Pick) -> anyhow::Result<Letter> {
    let mut letter = dead_letter::whole_letter(&app.nats, &pick.service, pick.id).await?;
    mask(app, &mut letter, false).await;
    Ok(letter)
}

/// Does it.
pub(crate) async fn run(
    app: &App,
    verb: Verb,
    reason: String,
    handles: Handles,
) -> anyhow::Result<Ended> {
    let nats = &app.nats;
    match verb {
        Verb::Retry(picks) => retry(app, picks).await,
        Verb::Discard(picks) => {
            let text = if let [pick] = &*picks {
                let service = pick.service.clone();
                let mut done = dead_letter::discard_one(nats, service, pick.id, reason).await?;
                for letter in &mut done.answer.retried.failed {
                    mask(app, letter, false).await;
                }
                done.to_string()
            } else {
                let mut plan = Plan::default();
                for pick in picks {
                    plan.add_id(&pick.service, pick.id);
                }
                dead_letter::discard_many(nats, plan, &reason)
                    .await?
                    .to_string()
            };
            Ok(well(text))
        }
        Verb::Pause(Target {
            service,
            projection,
        }) => {
            let name = projection.unwrap_or_default();
            let changed = projection::pause(nats, service, name, reason).await?;
            Ok(well(changed.to_string()))
        }
        Verb::Resume(Target {
            service,
            projection,
        }) => {
            let name = projection.unwrap_or_default();
            let changed = projection::resume(nats, service, name).await?;
            Ok(well(changed.to_string()))
        }
        Verb::Rebuild(target) => rebuilt(nats, target, &handles).await,
        Verb::Verify(source) => verified(nats, source, handles).await,
        Verb::Replay(target, event) => replayed(app, target, event, &handles).await,
        Verb::Restore(source) => {
            let before = stream::Before::look(nats, &source).await?;
            let report = stream::restore(nats, before, &handles.screen).await?;
            let report = report.without_content();
            Ok(ended(report.to_string(), report.exit()))
        }
        Verb::Backup(service) => backed_up(nats, &service, &handles).await,
    }
}

fn well(text: String) -> Ended {
    ended(text, Exit::Done)
}

fn ended(text: String, exit: Exit) -> Ended {
    Ended {
        text,
        is_well: exit == Exit::Done,
        replayed: None,
    }
}

async fn retry(app: &App, picks: Vec<Pick>) -> anyhow::Result<Ended> {
    let (mut lines, mut is_well) = (Vec::new(), true);
    for pick in picks {
        let request = RetryRequest::Id(pick.id);
        let asked = dead_letter::retry_some(&app.nats, pick.service.clone(), &request);
        // One that is gone does not keep the others.
        match asked.await {
            Ok(mut retried) => {
                for letter in &mut retried.answer.failed {
                    mask(app, letter, false).await;
                }
                is_well &= retried.answer.failed_in_all() == 0;
                retried.is_one = true;
                lines.push(format!("{pick}: {retried}"));
            }
            Err(client::Error::Refused(refusal)) => {
                is_well = false;
                lines.push(format!("{pick}: {refusal}"));
            }
            Err(error) => {
                lines.push(format!("{pick}: no answer"));
                return Err(anyhow::Error::from(error).context(lines.join("; ")));
            }
        }
    }
    Ok(Ended {
        text: lines.join("\n"),
        is_well,
        replayed: None,
    })
}

/// Once it has begun, it can be cancelled: then it is nobody else's.
async fn rebuilt(nats: &Nats, target: Target, handles: &Handles) -> anyhow::Result<Ended> {
    let begun = target.ask(nats, Endpoint::Rebuild).await?;
    let rebuilding = rebuild::follow(nats, target.clone(), begun, &handles.screen);
    tokio::pin!(rebuilding);
    let report = tokio::select! {
        report = &mut rebuilding => report?,
        () = handles.cancel.cancelled() => {
            target.ask(nats, Endpoint::FoldStop).await?;
            let report = rebuilding.await?;
            if report.exit() == Exit::Failed {
                let text = format!("it was ended early: the old rows of {target} still serve");
                return Ok(well(text));
            }
            report
        }
    };
    Ok(ended(report.to_string(), report.exit()))
}

async fn replayed(
    app: &App,
    target: Target,
    event: Place,
    handles: &Handles,
) -> anyhow::Result<Ended> {
    let replaying = replay::on(&app.nats, &target, &event, &handles.screen);
    let report = tokio::select! {
        report = replaying => report?,
        () = handles.cancel.cancelled() => {
            // What runs there now may be of another operator.
            let status = target.ask(&app.nats, Endpoint::Fold).await?;
            let is_it = status.event.is_some_and(|it| it.source == event.source());
            if is_it && status.state.is_running() {
                target.ask(&app.nats, Endpoint::FoldStop).await?;
            }
            return Ok(well("it was ended early".to_owned()));
        }
    };
    let text = [vec![report.summary()], report.notes].concat().join("\n");
    let mut is_personal = false;
    for source in &report.sources {
        is_personal |= app.schemas.lock().await.is_personal(source).await;
    }
    Ok(Ended {
        replayed: Some(Replayed {
            changes: report.changes,
            is_personal,
        }),
        ..well(text)
    })
}

async fn backed_up(nats: &Nats, service: &str, handles: &Handles) -> anyhow::Result<Ended> {
    let making = own_backup::make(nats, service, &handles.screen);
    tokio::pin!(making);
    let report = tokio::select! {
        report = &mut making => report?,
        () = handles.cancel.cancelled() => {
            own_backup::stop(nats, service).await?;
            making.await?
        }
    };
    Ok(ended(report.to_string(), report.exit()))
}

async fn verified(nats: &Nats, source: Option<String>, handles: Handles) -> anyhow::Result<Ended> {
    let args = verify::Args {
        sources: source.into_iter().collect(),
        wait: VERIFY_WAIT,
    };
    let Handles { screen, cancel } = handles;
    verify_until(nats, args, screen, &cancel).await
}

async fn verify_until(
    nats: &Nats,
    args: verify::Args,
    screen: Screen,
    cancel: &CancellationToken,
) -> anyhow::Result<Ended> {
    let verifying = verify::on(nats.clone(), args, screen.clone());
    tokio::pin!(verifying);
    tokio::select! {
        report = &mut verifying => {
            let report = report?.without_content();
            Ok(ended(report.to_string(), report.exit()))
        }
        () = cancel.cancelled() => {
            let own = screen.progress().into_iter().map(|bar| bar.what).collect();
            let stopped = stop_verifications(nats, &own).await?;
            let names: Vec<String> = stopped.into_iter().collect();
            Ok(well(if names.is_empty() {
                "it was ended early".to_owned()
            } else {
                format!("it was ended early, while comparing {}", names.join(", "))
            }))
        }
    }
}

/// Ends those of `own` verifications that services run: others may be of other operators.
async fn stop_verifications(nats: &Nats, own: &BTreeSet<String>) -> anyhow::Result<Vec<String>> {
    let services = nats.services_with(Endpoint::Status).await?;
    let mut targets: BTreeMap<String, Target> = BTreeMap::new();
    for service in services {
        let Ok(status) = nats.status(&service).await else {
            continue;
        };
        for projection in status.projections.into_iter().filter(|it| it.can_rebuild) {
            let target = Target {
                service: service.clone(),
                projection: Some(projection.name),
            };
            let name = target.to_string();
            if own.contains(&name) {
                targets.insert(name, target);
            }
        }
    }
    let mut stopped = Vec::new();
    for (name, target) in targets {
        let Ok(status) = target.ask(nats, Endpoint::Fold).await else {
            continue;
        };
        let is_ours = status.then == headwater::operator::RebuildPurpose::Verify;
        if is_ours && status.state.is_running() {
            target.ask(nats, Endpoint::FoldStop).await?;
            stopped.push(name);
        }
    }
    Ok(stopped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consequences_are_in_the_words_of_the_command_line() {
        let pause = words::<projection::Args>(&["pause"]).join(" ");
        assert!(pause.contains("even across restarts"), "{pause}");
        let rebuild = words::<rebuild::Args>(&[]).join(" ");
        assert!(rebuild.contains("No read fails"), "{rebuild}");
        let retry = words::<dead_letter::Args>(&["retry"]).join(" ");
        assert!(retry.contains("as it is in its source's outbox"), "{retry}");
        for words in [
            words::<dead_letter::Args>(&["discard"]),
            words::<projection::Args>(&["resume"]),
            words::<projection::Args>(&["replay"]),
            words::<verify::Args>(&[]),
            words::<stream::Args>(&["restore"]),
        ] {
            let all = words.join(" ");
            assert!(!all.is_empty() && !all.contains("Exit codes"), "{all}");
        }
    }
}
