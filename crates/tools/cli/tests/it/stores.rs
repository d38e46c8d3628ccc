//! `headwater verify` and `headwater rebuild` with simulated read stores.

use async_nats::jetstream::consumer::pull;
use serde_json::{Value, json};

use crate::played::{Answer, Played, rebuild, status};
use crate::source::Source;

/// A read store at `position` that answers status requests of a rebuild with `rebuilds`, one after
/// the other.
async fn store(source: &Source, position: u64, dead_letters: u64, rebuilds: Vec<Value>) -> Played {
    let projection = json!({
        "name": "readings", "version": 1, "positions": {"sensors": position},
        "is_complete": true, "dead_letters": dead_letters, "can_rebuild": !rebuilds.is_empty(),
    });
    let answer = move |endpoint: &str, _: &Value, before: usize| -> Answer {
        match endpoint {
            "status" => Ok(status("house", &projection)),
            "verify" | "rebuild" | "fold.stop" => {
                Ok(rebuild("folding", &json!({"positions": {"sensors": 0}})))
            }
            "fold" => Ok(rebuilds[before.min(rebuilds.len() - 1)].clone()),
            _ => Err((404, "there is no such endpoint")),
        }
    };
    Played::start(&source.broker, "house", answer).await
}

/// A source with three events.
async fn source() -> Source {
    let source = Source::start().await;
    source.append(1..=3).await;
    source
}

/// Differing rows, as the service reports them.
fn rows(count: u64) -> Value {
    let row = |n: u64| {
        let only_in = if n.is_multiple_of(2) { "live" } else { "fold" };
        json!({"table": "reading", "only_in": only_in, "row": [["sensor", format!("s{n}")], ["value", "\u{1b}7"]]})
    };
    json!({"count": count, "rows": (0..count.min(50)).map(row).collect::<Vec<_>>()})
}

/// Adds a consumer of the source's stream, as a projection of this name does.
async fn add_reader(source: &Source, projection: &str, name: &str) {
    let metadata = [
        ("headwater.projection", projection),
        ("headwater.source", "sensors"),
    ];
    let reader = pull::Config {
        durable_name: Some(name.to_owned()),
        metadata: metadata
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        ..pull::Config::default()
    };
    source
        .stream
        .create_consumer(reader)
        .await
        .expect("a consumer");
}

#[tokio::test]
async fn a_read_store_that_agrees_with_a_fold_is_well() {
    let source = source().await;
    let done = json!({"differences": rows(0), "held_us": 1500});
    let rebuilds = vec![
        rebuild("folding", &json!({})),
        rebuild("comparing", &json!({})),
        rebuild("done", &done),
    ];
    let house = store(&source, 3, 0, rebuilds).await;
    let (exit, report) = source.verify().await;
    assert_eq!(exit, 0, "{report}");
    let expected = json!({
        "service": "house", "projection": "readings", "version": 1,
        "positions": {"sensors": 3}, "behind": {}, "ahead": {}, "other_epochs": {}, "dead_letters": 0, "waits": {},
        "fold": {"positions": {"sensors": 3}, "differences": {"count": 0, "rows": []}, "held_us": 1500},
    });
    assert_eq!(report["projections"], json!([expected]));
    let named = json!({"projection": "readings"});
    assert_eq!(house.requests("verify"), [named]);
    assert_eq!(house.requests("fold").len(), 3);
    source.stop().await;
}

#[tokio::test]
async fn rows_that_differ_are_shown() {
    let source = source().await;
    let done = rebuild("done", &json!({"differences": rows(23)}));
    let _house = store(&source, 3, 0, vec![done]).await;
    let ended = source.tool(&["verify", "--wait=60"]).await;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    let said = "readings of house: the rows DIFFER from a rebuild from the outboxes at sensors:3\n  rows: 23\n    \
                reading, only in the live store: sensor=s0 value=\\u{1b}7\n    \
                reading, only in the rebuild: sensor=s1 value=\\u{1b}7\n";
    assert!(ended.stdout.contains(said), "{ended:?}");
    assert!(ended.stdout.contains("sensor=s19 value"), "{ended:?}");
    assert!(!ended.stdout.contains("sensor=s20 value"), "{ended:?}");
    assert!(ended.stdout.contains("and 3 more"), "{ended:?}");
    assert!(
        ended.stdout.ends_with("there are differences\n"),
        "{ended:?}"
    );
    source.stop().await;
}

#[tokio::test]
async fn a_fold_that_fails_is_no_proof() {
    let source = source().await;
    let failed = rebuild("failed", &json!({"message": "the disk is full"}));
    let _house = store(&source, 3, 0, vec![failed]).await;
    let ended = source.tool(&["verify", "--wait=60"]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let said = "NOT VERIFIED: readings: compare readings of house with a rebuild from the outboxes: it failed: \
         the disk is full";
    assert!(ended.stdout.contains(said), "{ended:?}");
    source.stop().await;
}

#[tokio::test]
async fn a_fold_that_the_service_forgot_is_no_proof() {
    let source = source().await;
    let _house = store(&source, 3, 0, vec![rebuild("idle", &json!({}))]).await;
    let ended = source.tool(&["verify", "--wait=60"]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stdout.contains("was restarted"), "{ended:?}");
    source.stop().await;
}

#[tokio::test]
async fn a_projection_that_stays_behind_or_is_ahead_is_a_difference() {
    let source = source().await;
    for (position, said) in [
        (2, "BEHIND: sensors is at 3, the projection at 2"),
        (4, "AHEAD: sensors is at 3, the projection at 4"),
    ] {
        source.published(3).await;
        let _house = store(&source, position, 0, vec![]).await;
        let ended = source.tool(&["verify", "--wait=0"]).await;
        assert_eq!(ended.code, Some(3), "{ended:?}");
        let first = format!("readings of house: applied up to sensors:{position}\n  {said}");
        assert!(ended.stdout.contains(&first), "{ended:?}");
    }
    source.stop().await;
}

/// The numbers agree by chance: they are of another epoch of the source.
#[tokio::test]
async fn a_projection_in_another_epoch_than_its_source_is_a_difference() {
    let source = source().await;
    source.published(3).await;
    let projection = json!({
        "name": "readings", "version": 1, "positions": {"sensors": 3},
        "epochs": {"sensors": "another"}, "is_complete": true, "dead_letters": 0,
        "can_rebuild": true,
    });
    let done = rebuild("done", &json!({"differences": rows(0)}));
    let answer = move |endpoint: &str, _: &Value, _| match endpoint {
        "status" => Ok(status("house", &projection)),
        _ => Ok(done.clone()),
    };
    let _house = Played::start(&source.broker, "house", answer).await;
    let ended = source.tool(&["verify", "--wait=0"]).await;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    let said = "OTHER EPOCH: the last applied epoch of sensors is another";
    assert!(ended.stdout.contains(said), "{ended:?}");
    source.stop().await;
}

#[tokio::test]
async fn dead_letters_are_said_and_are_no_difference() {
    let source = source().await;
    let done = rebuild("done", &json!({"differences": rows(0)}));
    let _house = store(&source, 3, 2, vec![done]).await;
    let ended = source.tool(&["verify", "--wait=60"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.stdout.contains("2 DEAD LETTERS are missing"),
        "{ended:?}"
    );
    source.stop().await;
}

#[tokio::test]
async fn a_projection_whose_service_is_away_ends_with_4_and_is_named() {
    let source = source().await;
    add_reader(&source, "readings", "readings").await;
    let ended = source.tool(&["verify", "--wait=0"]).await;
    assert_eq!(ended.code, Some(4), "{ended:?}");
    let said =
        "no service that answers has the projection readings, which reads the stream SENSORS";
    assert!(ended.stdout.contains(said), "{ended:?}");
    let done = rebuild("done", &json!({"differences": rows(0)}));
    let _house = store(&source, 3, 0, vec![done]).await;
    assert_eq!(source.verify().await.0, 0);
    source.stop().await;
}

#[tokio::test]
async fn a_service_that_answers_nonsense_does_not_hide_the_others() {
    let source = source().await;
    let answer = |_: &str, _: &Value, _| Ok(json!({"status": "fine"}));
    let _house = Played::start(&source.broker, "house", answer).await;
    let ended = source.tool(&["verify", "--wait=60"]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let said = "NOT VERIFIED: house: read what house answered to status";
    assert!(ended.stdout.contains(said), "{ended:?}");
    assert!(
        ended.stdout.contains("sensors: the stream agrees"),
        "{ended:?}"
    );
    source.stop().await;
}

/// A rebuild or verification next to the projection has its own consumer while it runs.
#[tokio::test]
async fn readers_of_folds_belong_to_their_projection() {
    let source = source().await;
    for name in ["readings", "readings-verify", "readings-rebuild"] {
        add_reader(&source, "readings", name).await;
    }
    let done = rebuild("done", &json!({"differences": rows(0)}));
    let _house = store(&source, 3, 0, vec![done]).await;
    let ended = source.tool(&["verify", "--wait=60"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    source.stop().await;
}

#[tokio::test]
async fn a_projection_that_cannot_be_folded_is_not_verified() {
    let source = source().await;
    let _house = store(&source, 3, 0, vec![]).await;
    let ended = source.tool(&["verify", "--wait=60"]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stdout.contains("its service cannot rebuild it"),
        "{ended:?}"
    );
    source.stop().await;
}

#[tokio::test]
async fn a_rebuild_is_stopped_by_the_name_of_its_projection() {
    let source = source().await;
    let stopped = rebuild("failed", &json!({"message": "an operator stopped it"}));
    let rebuilds = vec![rebuild("folding", &json!({})), stopped];
    let house = store(&source, 3, 0, rebuilds).await;
    let ended = source.tool(&["rebuild", "readings", "--stop"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.stdout.contains("readings FAILED to rebuild"),
        "{ended:?}"
    );
    assert_eq!(
        house.requests("fold.stop"),
        [json!({"projection": "readings"})]
    );
    assert_eq!(house.requests("rebuild").len(), 0);
    source.stop().await;
}

#[tokio::test]
async fn a_rebuild_is_waited_for() {
    let source = source().await;
    let done = json!({"differences": rows(0), "held_us": 4200});
    let rebuilds = vec![rebuild("folding", &json!({})), rebuild("done", &done)];
    let house = store(&source, 3, 0, rebuilds).await;
    let ended = source.tool(&["rebuild", "house"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let said = "house is rebuilt, at sensors:3; the projection applied nothing for 4 ms, reads continued\n";
    assert_eq!(ended.stdout, said);
    assert_eq!(ended.stderr, "headwater: the rebuild of house has begun\n");
    assert_eq!(house.requests("rebuild").len(), 1);
    source.stop().await;
}

#[tokio::test]
async fn a_rebuild_that_found_other_rows_ends_with_3() {
    let source = source().await;
    let done = rebuild("done", &json!({"differences": rows(2)}));
    let _house = store(&source, 3, 0, vec![done]).await;
    let ended = source.tool(&["rebuild", "house"]).await;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.stdout.contains("2 ROWS DIFFERED"), "{ended:?}");
    source.stop().await;
}

#[tokio::test]
async fn a_rebuild_that_failed_ends_with_1_and_its_reason() {
    let source = source().await;
    let failed = rebuild("failed", &json!({"message": "the disk is full"}));
    let _house = store(&source, 3, 0, vec![failed]).await;
    let ended = source.tool(&["rebuild", "house"]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended
            .stdout
            .contains("its old rows serve: the disk is full"),
        "{ended:?}"
    );
    source.stop().await;
}

#[tokio::test]
async fn a_rebuild_need_not_be_waited_for() {
    let source = source().await;
    let house = store(&source, 3, 0, vec![rebuild("folding", &json!({}))]).await;
    let ended = source.tool(&["rebuild", "house", "--no-wait"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("headwater.house.fold"), "{ended:?}");
    assert_eq!(house.requests("fold").len(), 0);
    source.stop().await;
}

#[tokio::test]
async fn a_service_that_is_away_or_refuses_a_rebuild_is_named() {
    let source = source().await;
    let ended = source.tool(&["rebuild", "home"]).await;
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(
        ended.stderr.contains("the service home does not answer"),
        "{ended:?}"
    );
    let answer = |_: &str, _: &Value, _| Err((400, "it has no read store"));
    let _house = Played::start(&source.broker, "house", answer).await;
    let ended = source.tool(&["rebuild", "house"]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let said = "headwater: house refuses rebuild: it has no read store\n";
    assert_eq!(ended.stderr, said);
    source.stop().await;
}
