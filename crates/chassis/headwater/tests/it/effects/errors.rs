//! Effects that cannot be loaded, and effects that end their service.

use headwater::effect::{self, Outcome};
use headwater::{Effect, Envelope, Error, Event as _, Process, Service, telemetry};
use tokio_util::sync::CancellationToken;

use super::{Bell, SHORT, config, run, service};
use crate::rebuild::{HOUSE, Place};
use crate::support::{MIGRATIONS, SensorRead, append, reads};

#[tokio::test(flavor = "multi_thread")]
async fn an_effect_whose_ledger_cannot_be_read_or_written_is_not_loaded() {
    let place = Place::start().await;
    let stop = CancellationToken::new();
    let process = Process::on_free_ports(stop).await.unwrap();
    let started = Service::start(HOUSE, MIGRATIONS, place.config(), process).await;
    let mut service = started.unwrap();
    run(
        &service.db,
        "CREATE TRIGGER no_start BEFORE INSERT ON headwater_effect_source
         BEGIN SELECT raise(ABORT, 'no start'); END",
    )
    .await;
    let refused = service.effect(Bell::default(), config(&[])).await;
    let refused = refused.unwrap_err();
    assert!(
        matches!(refused, Error::Effect(effect::Error::Write(_))),
        "{refused:?}"
    );
    run(
        &service.db,
        "ALTER TABLE headwater_effect_source RENAME TO gone",
    )
    .await;
    let refused = service.effect(Bell::default(), config(&[])).await;
    let refused = refused.unwrap_err();
    assert!(
        matches!(refused, Error::Effect(effect::Error::Database(_))),
        "{refused:?}"
    );
    place.relay.stop().await;
}

/// An effect whose attempts panic when they are given up because they take too long.
#[derive(Debug)]
struct Buggy;

struct Panics;

impl Drop for Panics {
    fn drop(&mut self) {
        panic!("a bug in what an attempt holds");
    }
}

impl Effect for Buggy {
    const NAME: &'static str = "buggy";
    const SOURCES: &'static [&'static str] = &["sensors"];
    const EVENTS: &'static [&'static str] = &[SensorRead::SUBJECT];

    async fn perform(&self, _: &Envelope, _: &str) -> Outcome {
        let _panics = Panics;
        std::future::pending().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_where_an_attempt_is_recorded_ends_the_service() {
    let place = Place::start().await;
    let hasty = effect::Config {
        timeout: SHORT,
        ..config(&[])
    };
    let house = service(&place, Buggy, hasty).await;
    append(&place.source, reads(1..=1)).await;
    let failed = house.failed().await;
    let Error::Task(telemetry::Error::TaskFailed { task, error }) = failed else {
        panic!("{failed:?}");
    };
    assert_eq!(task, Buggy::NAME);
    let ended = error.downcast::<effect::Error>().unwrap();
    assert!(matches!(*ended, effect::Error::Panicked(_)), "{ended:?}");
    place.relay.stop().await;
}
