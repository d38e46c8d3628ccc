//! What in a survey needs an operator, in the order of dependency.

use std::time::Duration;

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

/// What `doctor` finds wrong with the shop, the worst first. `max_lag`: how long an event may wait to
/// be published or applied.
pub fn troubles(survey: &Survey, max_lag: Duration) -> Vec<Finding> {
    let mut found = of(survey, &Limits::failure(max_lag));
    if !survey.brokers.is_usable() {
        found.retain(|finding| finding.check == SERVICES);
    }
    found.extend(brokers::jetstream(&survey.brokers));
    found.retain(|finding| finding.grade > Grade::Ok);
    found.sort_by_key(|finding| std::cmp::Reverse(finding.grade));
    found
}

/// The findings that `status` and `check` show, the worst first.
pub(crate) fn alarms(survey: &Survey, limits: &Limits) -> Vec<Finding> {
    let mut alarms = brokers::jetstream(&survey.brokers);
    alarms.extend(of(survey, limits));
    alarms.retain(|finding| finding.is_alarm);
    alarms.sort_by_key(|alarm| alarm.grade < Grade::Fail);
    alarms
}
