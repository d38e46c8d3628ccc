//! Effects whose source was restored from a copy.

use headwater::backup::RestoreTarget;
use headwater::database::Database;
use headwater::{Bus, Clock};
use tempfile::TempDir;

use super::{Bell, a_moment_later, begun, config, service};
use crate::rebuild::Place;
use crate::support::{
    Tasks, append, backup, begin_epoch, eventually_says, eventually_stored, folder, ids, open,
    open_restored, publish_by_hand, read, reads,
};

/// A copy of the database of a source.
fn copied(source: &Database) -> TempDir {
    let folder = folder();
    backup(&source.path(), &folder.path().join("copy.db"));
    folder
}

/// A source that is restored from the copy in `folder`, and begins a new epoch.
async fn restored(folder: &TempDir, bus: &Bus) -> (Database, Tasks) {
    let path = folder.path().join("sensors.db");
    let copy = folder.path().join("copy.db");
    let target = RestoreTarget::take(&path).unwrap();
    target.put(&copy, true, &Clock::system()).unwrap();
    drop(target);
    let restored = open_restored(folder, "sensors").await;
    let mut source = Tasks::none();
    source.operator(&restored, bus);
    (restored, source)
}

/// Publishes the events of `source`, which have these values.
async fn publish(bus: &Bus, source: &Database, values: &[i64]) {
    let ids = ids(source, values.len().try_into().unwrap());
    for (id, value) in ids.iter().zip(values) {
        publish_by_hand(bus, id.as_deref(), &read("attic", *value)).await;
    }
}

/// Its events had not reached the stream.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_restored_source_had_and_the_effect_had_not_seen_is_performed() {
    let mut place = Place::start().await;
    let bell = Bell::default();
    let house = begun(&place, &bell, config(&[])).await;
    append(&place.source, reads(1..=3)).await;
    bell.eventually(&[1, 2, 3]).await;
    place.stop_source().await;
    append(&place.source, reads(4..=5)).await;
    let copy = copied(&place.source);
    let (source, tasks) = restored(&copy, &place.bus).await;
    publish(&place.bus, &source, &[1, 2, 3, 4, 5]).await;
    bell.eventually(&[1, 2, 3, 4, 5]).await;
    assert_eq!(
        bell.keys_of(4),
        [format!("sensors:{}:4:bell", source.epoch())]
    );
    house.stop().await;
    tasks.stop().await;
}

/// The effect performs the end of the former epoch after the new one has begun, and has then passed
/// the positions of the new one's events.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_restored_source_records_while_the_former_epoch_is_still_read_is_performed() {
    let mut place = Place::start().await;
    let bell = Bell::default();
    let house = begun(&place, &bell, config(&[])).await;
    append(&place.source, reads(1..=3)).await;
    bell.eventually(&[1, 2, 3]).await;
    house.stop().await;
    let copy = copied(&place.source);
    append(&place.source, reads(4..=5)).await;
    eventually_stored(&place.bus, "sensors", &[1, 2, 3, 4, 5]).await;
    place.stop_source().await;
    let (source, tasks) = restored(&copy, &place.bus).await;
    append(&source, reads(6..=7)).await;
    a_moment_later(&source).await;

    let house = service(&place, bell.clone(), config(&[])).await;
    bell.eventually(&[1, 2, 3, 4, 5]).await;
    publish(&place.bus, &source, &[1, 2, 3, 6, 7]).await;
    bell.eventually(&[1, 2, 3, 4, 5, 6, 7]).await;
    assert_eq!(
        bell.keys_of(6),
        [format!("sensors:{}:4:bell", source.epoch())]
    );
    house.stop().await;
    tasks.stop().await;
}

/// Two copies of one epoch, restored one after the other, and a copy of the second.
#[tokio::test(flavor = "multi_thread")]
async fn of_several_restored_copies_each_event_is_performed_once() {
    let mut place = Place::start().await;
    let bell = Bell::default();
    let house = begun(&place, &bell, config(&[])).await;
    append(&place.source, reads(1..=1)).await;
    bell.eventually(&[1]).await;
    let older = copied(&place.source);
    place.stop_source().await;
    append(&place.source, reads(2..=3)).await;
    let newer = copied(&place.source);

    let (source, tasks) = restored(&older, &place.bus).await;
    append(&source, reads(4..=6)).await;
    publish(&place.bus, &source, &[1, 4, 5, 6]).await;
    bell.eventually(&[1, 4, 5, 6]).await;
    tasks.stop().await;

    // Its events 2 and 3 have positions that the effect has passed, but in another history.
    let (source, tasks) = restored(&newer, &place.bus).await;
    publish(&place.bus, &source, &[1, 2, 3]).await;
    bell.eventually(&[1, 2, 3, 4, 5, 6]).await;
    let last = copied(&source);
    tasks.stop().await;

    let (source, tasks) = restored(&last, &place.bus).await;
    append(&source, reads(7..=7)).await;
    publish(&place.bus, &source, &[1, 2, 3, 7]).await;
    bell.eventually(&[1, 2, 3, 4, 5, 6, 7]).await;
    tasks.stop().await;
    house.stop().await;
}

/// A restored source begins a new epoch with events of the former one, and a new source begins one
/// without.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_restored_source_had_is_not_performed_again_and_what_a_new_one_has_is() {
    let mut place = Place::start().await;
    let bell = Bell::default();
    let house = begun(&place, &bell, config(&[])).await;
    append(&place.source, reads(1..=3)).await;
    bell.eventually(&[1, 2, 3]).await;
    let copy = copied(&place.source);
    append(&place.source, reads(4..=5)).await;
    bell.eventually(&[1, 2, 3, 4, 5]).await;
    place.stop_source().await;

    let (source, tasks) = restored(&copy, &place.bus).await;
    append(&source, reads(6..=6)).await;
    publish(&place.bus, &source, &[1, 2, 3, 6]).await;
    bell.eventually(&[1, 2, 3, 4, 5, 6]).await;
    assert_eq!(
        bell.keys_of(6),
        [format!("sensors:{}:4:bell", source.epoch())]
    );
    tasks.stop().await;

    let folder = folder();
    let new = open(&folder, "sensors").await;
    begin_epoch(&place.bus, &new, [7, 8]).await;
    let mut tasks = Tasks::none();
    tasks.operator(&new, &place.bus);
    bell.eventually(&[1, 2, 3, 4, 5, 6, 7, 8]).await;
    house.stop().await;
    tasks.stop().await;
}

/// The effect had not passed all that was recorded before its first start.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_recorded_before_the_first_start_is_not_performed_after_a_restore() {
    let mut place = Place::start().await;
    append(&place.source, reads(1..=2)).await;
    eventually_stored(&place.bus, "sensors", &[1, 2]).await;
    place.stop_source().await;
    append(&place.source, reads(3..=3)).await;
    a_moment_later(&place.source).await;
    let mut tasks = Tasks::none();
    tasks.operator(&place.source, &place.bus);
    let bell = Bell::default();
    let house = begun(&place, &bell, config(&[])).await;
    eventually_says(&house.health, "bell from sensors", "applied up to 2").await;
    append(&place.source, reads(4..=4)).await;
    let copy = copied(&place.source);
    tasks.stop().await;

    let (source, tasks) = restored(&copy, &place.bus).await;
    publish(&place.bus, &source, &[1, 2, 3, 4]).await;
    bell.eventually(&[4]).await;
    house.stop().await;
    tasks.stop().await;
}

/// An event was forged under the next position. A rebuild, the remedy for projections, is refused.
#[tokio::test(flavor = "multi_thread")]
async fn an_effect_that_is_ahead_of_its_source_goes_on_in_a_new_epoch() {
    let mut place = Place::start().await;
    let bell = Bell::default();
    let house = begun(&place, &bell, config(&[])).await;
    append(&place.source, reads(1..=1)).await;
    bell.eventually(&[1]).await;
    let forged = ids(&place.source, 2).pop().flatten();
    publish_by_hand(&place.bus, forged.as_deref(), &read("attic", 9)).await;
    bell.eventually(&[1, 9]).await;
    let remedy = "run `headwater restore sensors` with a copy";
    eventually_says(&house.health, "bell from sensors", remedy).await;
    place.stop_source().await;

    let copy = copied(&place.source);
    let (source, tasks) = restored(&copy, &place.bus).await;
    append(&source, reads(2..=2)).await;
    publish(&place.bus, &source, &[1, 2]).await;
    bell.eventually(&[1, 2, 9]).await;
    eventually_says(&house.health, "bell from sensors", "applied up to 2").await;
    house.stop().await;
    tasks.stop().await;
}
