//! What in a survey needs an operator, in the order of dependency.

use crate::finding::{Finding, Grade};
use crate::limits::Limits;
use crate::survey::Survey;

pub(crate) mod brokers;
mod projections;
mod services;
mod sources;

/// The check of which services answer.
pub(crate) use services::CHECK as SERVICES;

/// All findings except those about JetStream itself, including what is well.
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

/// The findings that `status` and `check` show, the worst first.
pub(crate) fn alarms(survey: &Survey, limits: &Limits) -> Vec<Finding> {
    let mut alarms = brokers::jetstream(&survey.brokers);
    alarms.extend(of(survey, limits));
    alarms.retain(|finding| finding.is_alarm);
    alarms.sort_by_key(|alarm| alarm.grade < Grade::Fail);
    alarms
}
