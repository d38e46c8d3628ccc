//! Services: who answers, and what they say of themselves.

use std::collections::BTreeSet;

use client::Unreachable;
use headwater::health::State;

use crate::finding::{Check, Finding, Grade};
use crate::survey::{Service, Survey};

/// How it is called.
pub(crate) const CHECK: &str = "services";

/// Whether those answer who should be there, and what they say of themselves.
pub(crate) fn services(survey: &Survey) -> Vec<Finding> {
    let mut check = Check::new(CHECK);
    for away in &survey.topology.unreachable {
        let fix = match away {
            Unreachable::Service { service, .. } => format!(
                "`systemctl status headwater-{service}`, or the output of `cargo dev`; `/readyz?verbose` at its admin port says more"
            ),
            _ => "do what it says".to_owned(),
        };
        check.alarm(Grade::Fail, away.to_string(), fix);
    }
    for failed in &survey.topology.failed {
        let fix = "do what it says; the log of the service has more";
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
            [] => "nobody is expected, and nobody answers".to_owned(),
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
            format!("{name} runs in the versions {}", versions.join(", ")),
            "finish the upgrade",
        );
    }
    for (part, state) in &service.parts {
        let (grade, why, fix) = match state {
            State::Ok(_) => continue,
            State::Degraded(why) if is_said_elsewhere(survey, part, why) => continue,
            State::Degraded(why) => (Grade::Warn, why, "look what it names; if it stays,"),
            State::Failed(why) => (Grade::Fail, why, "do what it says;"),
        };
        let log = format!("{fix} journalctl -u 'headwater*{name}*' has more");
        check.alarm(grade, format!("{name}: {part}: {why}"), log);
    }
}

/// Whether what a part warns of is found with its projection, or with the brokers.
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
