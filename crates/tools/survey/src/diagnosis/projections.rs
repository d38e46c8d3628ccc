//! Projections, and what feeds them.

use headwater::Clock;
use headwater::health::State;
use terminal::table::{age, count};

use crate::finding::{Check, Finding, Grade};
use crate::limits::Limits;
use crate::survey::{Projection, Survey};

/// Whether each projection has its consumer on each of its streams.
pub(crate) fn consumers(survey: &Survey) -> Vec<Finding> {
    let mut check = Check::new("consumers");
    let mut there = 0;
    for projection in &survey.projections {
        let (name, service) = (&projection.name, &projection.service);
        let read = projection.sources.keys();
        // A stream that nobody leads tells nothing of its consumers.
        for source in read.filter(|source| !survey.is_leaderless(source)) {
            let Some(stream) = survey
                .topology
                .streams
                .iter()
                .find(|it| it.source == *source)
            else {
                continue;
            };
            if stream.readers.iter().any(|reader| reader.name == *name) {
                there += 1;
                continue;
            }
            check.advise(
                Grade::Warn,
                format!("{name} has no consumer on {}", stream.info.config.name),
                format!("{service} makes it anew within seconds; if it does not, restart it"),
            );
        }
    }
    check.or(|| format!("{there}, one a projection and source"))
}

/// Whether projections are whole, go on, and are not behind.
pub(crate) fn projections(survey: &Survey, limits: &Limits) -> Vec<Finding> {
    let mut check = Check::new("projections");
    for projection in &survey.projections {
        unfinished(&mut check, projection);
        faults(&mut check, projection, survey);
        if projection.paused.is_none() || !limits.spares_paused {
            behind(&mut check, projection, limits);
        }
    }
    check.or(|| {
        let names = survey.projections.iter();
        let names: Vec<&str> = names.map(|projection| &*projection.name).collect();
        match names.as_slice() {
            [] => "there are none".to_owned(),
            names => format!("{} are whole and not behind", names.join(", ")),
        }
    })
}

/// That an operator holds it, or that it is not whole yet.
fn unfinished(check: &mut Check, projection: &Projection) {
    let Projection { service, name, .. } = projection;
    if let Some(pause) = &projection.paused {
        let (since, reason) = (Clock::text(pause.since), &pause.reason);
        check.alarm(
            Grade::Warn,
            format!("{name} of {service} is paused since {since}: {reason}"),
            format!("headwater projection resume {name}"),
        );
    } else if !projection.is_complete {
        check.alarm(
            Grade::Warn,
            format!("{name} of {service} is folded from the first event on and not whole yet"),
            format!(
                "wait; `headwater projection list` says how far it is, or {service}'s log why not"
            ),
        );
    }
}

/// What contradicts its sources, unless it has failed a part and is said there.
fn faults(check: &mut Check, projection: &Projection, survey: &Survey) {
    let Projection { service, name, .. } = projection;
    let states = survey
        .services
        .iter()
        .flat_map(|service| service.parts.values());
    let failed: Vec<&String> = states
        .filter_map(|state| match state {
            State::Failed(why) => Some(why),
            _ => None,
        })
        .collect();
    for (source, fault) in projection.faults() {
        if !failed.iter().any(|why| why.contains(fault)) {
            check.alarm(
                Grade::Fail,
                format!("{service}: {name} from {source}: {fault}"),
                format!("headwater verify --source {source}; docs/operations.md"),
            );
        }
    }
}

fn behind(check: &mut Check, projection: &Projection, limits: &Limits) {
    let Projection { service, name, .. } = projection;
    for (source, lag) in &projection.sources {
        if let Some(grade) = limits.of_lag(lag.waiting) {
            let (events, seconds) = (count(lag.waiting.events), age(lag.waiting.seconds));
            check.alarm(
                grade,
                format!(
                    "{name} lags behind {source} by {events} events, the oldest is {seconds} old"
                ),
                format!("look why: `nats request headwater.{service}.status ''`, and its log"),
            );
        }
    }
}

/// Whether there are events that wait for a person.
pub(crate) fn dead_letters(survey: &Survey, limits: &Limits) -> Vec<Finding> {
    let mut check = Check::new("dead letters");
    for projection in &survey.projections {
        let Projection { service, name, .. } = projection;
        let letters = projection.dead_letters;
        if let Some(grade) = limits.of_dead_letters(letters) {
            check.alarm(
                grade,
                format!("{letters} dead letters of {name} wait"),
                format!("headwater dead-letter list --service {service}"),
            );
        }
    }
    check.or(|| "none".to_owned())
}
