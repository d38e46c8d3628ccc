//! Services: which answer, and the states they report.

use std::collections::BTreeSet;

use client::Unreachable;
use headwater::health::State;

use crate::finding::{Check, Finding, Grade};
use crate::survey::{Service, Survey};

/// The name of the check.
pub(crate) const CHECK: &str = "services";

/// Whether the expected services answer, and the states they report.
pub(crate) fn services(survey: &Survey) -> Vec<Finding> {
    let mut check = Check::new(CHECK);
    for away in &survey.topology.unreachable {
        let fix = match away {
            Unreachable::Service { service, .. } => format!(
                "`systemctl status headwater-{service}`, or the output of `cargo dev`; `/readyz?verbose` at its admin port has details"
            ),
            _ => "follow the advice in the message".to_owned(),
        };
        check.alarm(Grade::Fail, away.to_string(), fix);
    }
    for failed in &survey.topology.failed {
        let fix = "follow the message; the service's log has details";
        check.alarm(Grade::Fail, failed, fix);
    }
    for service in &survey.services {
        one(&mut check, service, survey);
    }
    check.or(|| {
        let names: Vec<&str> = survey
            .topology
            .services
            .keys()
            .map(String::as_str)
            .collect();
        match names.as_slice() {
            [] => "no service is expected, and none answers".to_owned(),
            names => format!("{} answer", names.join(", ")),
        }
    })
}

fn one(check: &mut Check, service: &Service, survey: &Survey) {
    let name = &service.name;
    let versions = service.versions();
    if versions.len() > 1 {
        let versions: Vec<&str> = versions.into_iter().collect();
        check.advise(
            Grade::Warn,
            format!("{name} runs in different versions: {}", versions.join(", ")),
            "finish the upgrade",
        );
    }
    for (part, state) in &service.parts {
        let (grade, why, fix) = match state {
            State::Ok(_) => continue,
            State::Degraded(why) if is_said_elsewhere(survey, part, why) => continue,
            State::Degraded(why) => (Grade::Warn, why, "check what it names; if it persists,"),
            State::Failed(why) => (Grade::Fail, why, "follow the message;"),
        };
        let log = format!("{fix} journalctl -u 'headwater*{name}*' has details");
        check.alarm(grade, format!("{name}: {part}: {why}"), log);
    }
}

/// Whether a component's warning is already reported with its projection, or with the brokers.
fn is_said_elsewhere(survey: &Survey, part: &str, why: &str) -> bool {
    let of_projection = survey.projections.iter().any(|projection| {
        let is_paused = projection.paused.is_some() && part == projection.name;
        let is_of = |source: &str| part == format!("{} from {source}", projection.name);
        let has_letters = |source: &str| projection.sources[source].met.dead_letters > 0;
        let faulty: BTreeSet<&String> = projection.faults().map(|(source, _)| source).collect();
        let of_source = projection.sources.keys().any(|source| {
            let letters = has_letters(source) && why.ends_with("see headwater dead-letter list");
            is_of(source) && (letters || faulty.contains(source))
        });
        is_paused || of_source
    });
    of_projection || survey.is_said_of_brokers(part, why)
}
