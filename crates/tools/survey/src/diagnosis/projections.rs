//! Copies: the projections and what feeds them.

use std::time::Duration;

use headwater::Clock;
use terminal::table::{age, count};

use super::Finding;
use crate::shop::Shop;
use crate::survey::Survey;

/// Whether each projection has its consumer on each of its streams.
pub(super) fn consumers(shop: &Shop, survey: &Survey) -> Vec<Finding> {
    const CHECK: &str = "consumers";
    let mut findings = Vec::new();
    let mut there = 0;
    for projection in &survey.projections {
        for source in projection.sources.keys() {
            // It tells nothing of its consumers.
            if survey.is_leaderless(source) {
                continue;
            }
            let Some(stream) = shop.streams.iter().find(|stream| stream.source == *source) else {
                continue;
            };
            if stream
                .readers
                .iter()
                .any(|reader| reader.name == projection.name)
            {
                there += 1;
                continue;
            }
            let (name, stream) = (&projection.name, &stream.info.config.name);
            findings.push(Finding::warn(
                CHECK,
                format!("{name} has no consumer on {stream}"),
                format!(
                    "{} makes it anew within seconds; if it does not, restart it",
                    projection.service
                ),
            ));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok(
            CHECK,
            format!("{there}, one a projection and source"),
        ));
    }
    findings
}

/// Whether projections are whole, go on, and are not behind.
pub(super) fn projections(survey: &Survey, max_lag: Duration) -> Vec<Finding> {
    const CHECK: &str = "projections";
    let mut findings = Vec::new();
    for projection in &survey.projections {
        let (name, service) = (&projection.name, &projection.service);
        if let Some(pause) = &projection.paused {
            findings.push(Finding::warn(
                CHECK,
                format!(
                    "{name} is paused since {}: {}",
                    Clock::text(pause.since),
                    pause.reason
                ),
                format!("headwater projection resume {name}"),
            ));
            continue;
        }
        if !projection.is_complete {
            findings.push(Finding::warn(
                CHECK,
                format!("{name} is folded from the first event on and not whole yet"),
                format!("wait; `headwater projection list` says how far it is, or {service}'s log why not"),
            ));
        }
        for (source, fault) in projection.faults() {
            findings.push(Finding::fail(
                CHECK,
                format!("{name} from {source}: {fault}"),
                format!("headwater verify --source {source}; docs/operations.md"),
            ));
        }
        for (source, lag) in &projection.sources {
            if lag.waiting.is_older_than(max_lag) {
                findings.push(Finding::fail(
                    CHECK,
                    format!(
                        "{name} lags behind {source} by {} events, the oldest is {} old",
                        count(lag.waiting.events),
                        age(lag.waiting.seconds)
                    ),
                    format!("look why: `nats request headwater.{service}.status ''`, and its log"),
                ));
            }
        }
    }
    if findings.is_empty() {
        let names: Vec<&str> = survey
            .projections
            .iter()
            .map(|projection| &*projection.name)
            .collect();
        let what = match names.as_slice() {
            [] => "there are none".to_owned(),
            names => format!("{} are whole and not behind", names.join(", ")),
        };
        findings.push(Finding::ok(CHECK, what));
    }
    findings
}

/// Whether there are events that wait for a person.
pub(super) fn dead_letters(survey: &Survey) -> Vec<Finding> {
    const CHECK: &str = "dead letters";
    let having = survey
        .projections
        .iter()
        .filter(|projection| projection.dead_letters > 0);
    let mut findings: Vec<Finding> = having
        .map(|projection| {
            Finding::warn(
                CHECK,
                format!("{} of {} wait", projection.dead_letters, projection.name),
                format!(
                    "headwater dead-letter list --service {}",
                    projection.service
                ),
            )
        })
        .collect();
    if findings.is_empty() {
        findings.push(Finding::ok(CHECK, "none"));
    }
    findings
}
