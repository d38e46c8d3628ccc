//! What of a survey a person has to look at, in the order in which things depend on each other.

use crate::finding::{Finding, Grade};
use crate::limits::Limits;
use crate::survey::Survey;

pub(crate) mod brokers;
mod projections;
mod services;
mod sources;

/// The check that says who answers.
pub(crate) use services::CHECK as SERVICES;

/// All findings but those of JetStream itself, those that are well among them.
pub(crate) fn of(survey: &Survey, limits: &Limits) -> Vec<Finding> {
    [
        sources::streams(survey),
        brokers::replicas(survey),
        services::services(survey),
        sources::relays(survey, limits),
        sources::positions(survey),
        projections::consumers(survey),
        projections::projections(survey, limits),
        projections::dead_letters(survey, limits),
    ]
    .concat()
}

/// What `status` and `check` say, the worst first.
pub(crate) fn alarms(survey: &Survey, limits: &Limits) -> Vec<Finding> {
    let mut alarms = brokers::jetstream(&survey.brokers);
    alarms.extend(of(survey, limits));
    alarms.retain(|finding| finding.is_alarm);
    alarms.sort_by_key(|alarm| alarm.grade < Grade::Fail);
    alarms
}
