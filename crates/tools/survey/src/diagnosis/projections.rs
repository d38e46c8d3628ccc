//! Projections and their consumers.

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
        // A stream without a leader does not report its consumers.
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
                format!("{service} creates it again within seconds; if not, restart {service}"),
            );
        }
    }
    check.or(|| format!("{there}, one per projection and source"))
}

/// Whether projections are complete, running, and not behind.
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
            names => format!("{} are complete and not behind", names.join(", ")),
        }
    })
}

/// Reports a pause or an incomplete read store.
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
            format!("{name} of {service} is being built from the first event and not complete yet"),
            format!(
                "wait; `headwater projection list` shows its progress; if it has stopped, {service}'s log has the reason"
            ),
        );
    }
}

/// Reports contradictions with sources, unless a failed component already reports them.
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
                format!("find the cause with `nats request headwater.{service}.status ''` and in its log"),
            );
        }
    }
}

/// Reports dead letters.
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
