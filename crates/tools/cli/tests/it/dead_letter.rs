//! `headwater dead-letter` against a simulated service.

use std::time::Duration;

use broker::Broker;
use headwater::operator::AdminEndpoints;
use headwater::request_reply::Questions;
use headwater::{Bus, Health, Supervisor, bus, operator};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::played::{Answer, Played};
use crate::source::{eventually, tool};

fn letter(id: u64) -> Value {
    json!({
        "id": id, "projection": "readings", "source": "sensors", "lane": "key attic",
        "waiting": id.is_multiple_of(2), "epoch": "x7", "position": id + 10, "sequence": id + 20,
        "subject": "sensors.v1.read.7", "reason": "below\nzero", "recorded_at": 1_795_345_200_250_i64,
        "bytes": 4,
    })
}

fn broker() -> Broker {
    Broker::start_in_temp().expect("start nats-server")
}

/// A service with `count` letters that returns two at a time.
async fn house(broker: &Broker, name: &'static str, count: u64) -> Played {
    let answer = move |endpoint: &str, request: &Value, _| -> Answer {
        let id = request["id"].as_u64();
        match endpoint {
            "dead-letters.list" => {
                let after = request["after"].as_u64().expect("a number");
                let page = (after + 1..=count).take(2).map(letter);
                Ok(json!({"letters": page.collect::<Vec<_>>(), "total": count}))
            }
            "dead-letters.discarded" => {
                let mut gone = letter(9);
                gone["discarded_because"] = json!("a test");
                let letters = if request["after"] == 0 {
                    vec![gone]
                } else {
                    vec![]
                };
                Ok(json!({"letters": letters, "total": 1}))
            }
            "dead-letters.show" if id.is_some_and(|id| id <= count) => {
                let mut shown = letter(id.expect("checked"));
                shown["payload"] = json!("CgFhEA==");
                Ok(shown)
            }
            "dead-letters.retry" => {
                let failed = if request == &json!({"id": 2}) {
                    vec![letter(2)]
                } else {
                    vec![]
                };
                Ok(json!({"applied": 5, "left": failed.len(), "failed": failed,
                          "failed_total": failed.len()}))
            }
            "dead-letters.discard" if id.is_some_and(|id| id <= count) => Ok(json!({
                "discarded": letter(id.expect("checked")),
                "retried": {"applied": 1, "left": 0, "failed": []},
            })),
            _ => Err((404, "there is no such letter")),
        }
    };
    Played::start(broker, name, answer).await
}

#[tokio::test]
async fn letters_of_all_services_are_listed() {
    let broker = broker();
    let (_house, _shed) = (
        house(&broker, "house", 3).await,
        house(&broker, "shed", 1).await,
    );
    let _well = house(&broker, "well", 0).await;
    let ended = tool(&broker, &["dead-letter", "list"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let expected = "house: 3\n  \
         1 sensors:11 sensors.v1.read.7 (key attic): below\\nzero\n  \
         2 sensors:12 sensors.v1.read.7 (key attic): waits behind a dead letter\n  \
         3 sensors:13 sensors.v1.read.7 (key attic): below\\nzero\n\
         shed: 1\n  \
         1 sensors:11 sensors.v1.read.7 (key attic): below\\nzero\n";
    assert_eq!(ended.stdout, expected);
    let line = [
        "dead-letter",
        "list",
        "--service=house",
        "--limit=2",
        "--output=json",
    ];
    let ended = tool(&broker, &line).await;
    let listed: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!(
        listed,
        json!({"house": {"total": 3, "letters": [letter(1), letter(2)]}})
    );
    let ended = tool(&broker, &["dead-letter", "list", "--service=well"]).await;
    assert_eq!(ended.stdout, "there are none\n");
}

/// It offers only the endpoint `status`.
#[tokio::test]
async fn a_service_without_a_database_has_none_and_hides_nobodys() {
    let broker = broker();
    let _house = house(&broker, "house", 1).await;
    let bus = bus::Config::at(broker.url());
    let bus = Bus::connect("asker", &bus).await.expect("connect");
    let admin = AdminEndpoints::new("asker", Health::new());
    let stop = CancellationToken::new();
    let mut tasks = Supervisor::new(stop.clone());
    tasks.spawn("operator", |stop| {
        operator::serve(admin, bus, Questions::default(), stop)
    });
    eventually("both to answer", async || {
        let ended = tool(&broker, &["status", "-ojson"]).await;
        if ended.stdout.contains("\"asker\"") {
            Ok(())
        } else {
            Err(ended)
        }
    })
    .await;
    let ended = tool(&broker, &["dead-letter", "list"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.starts_with("house: 1\n"), "{ended:?}");
    stop.cancel();
    tasks
        .join(Duration::from_secs(10))
        .await
        .expect("an orderly end");
}

#[tokio::test]
async fn discarded_letters_are_listed_with_their_reasons() {
    let broker = broker();
    let _house = house(&broker, "house", 3).await;
    let ended = tool(&broker, &["dead-letter", "discarded"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.ends_with("; discarded: a test\n"), "{ended:?}");
}

#[tokio::test]
async fn a_letter_is_shown_with_its_payload() {
    let broker = broker();
    let _house = house(&broker, "house", 3).await;
    let line = ["dead-letter", "show", "1", "--service=house"];
    let ended = tool(&broker, &line).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for said in [
        "event       sensors:11\n",
        "epoch       x7\n",
        "recorded    2026-11-22T11:00:00.250Z\n",
        "reason      below\\nzero\n",
        "000000  0a 01 61 10                                      ..a.\n",
    ] {
        assert!(ended.stdout.contains(said), "{said}{}", ended.stdout);
    }
}

#[tokio::test]
async fn a_letter_that_is_not_there_is_an_error() {
    let broker = broker();
    let _house = house(&broker, "house", 3).await;
    for line in [&["show", "4"][..], &["discard", "4", "--reason=x", "--yes"]] {
        let line = [&["dead-letter"], line, &["--service=house"]].concat();
        let ended = tool(&broker, &line).await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(
            ended.stderr.contains("there is no such letter"),
            "{ended:?}"
        );
    }
}

#[tokio::test]
async fn one_a_lane_or_all_are_tried_again() {
    let broker = broker();
    let house = house(&broker, "house", 3).await;
    let which = [
        (&["1"][..], json!({"id": 1}), 0),
        (&["2"], json!({"id": 2}), 3),
        (&["--lane=key attic"], json!({"lane": "key attic"}), 0),
        (&["--all"], json!({"all": {}}), 0),
    ];
    for (flags, _, code) in &which {
        let line = [&["dead-letter", "retry", "--service=house"], *flags].concat();
        let ended = tool(&broker, &line).await;
        assert_eq!(ended.code, Some(*code), "{ended:?}");
        let said = if *code == 0 {
            "5 applied, 0 failed again, 0 left"
        } else {
            "5 applied, 1 failed again, 1 left\n  2 "
        };
        assert!(ended.stdout.starts_with(said), "{ended:?}");
    }
    let sent = which.map(|(_, request, _)| request);
    assert_eq!(house.requests("dead-letters.retry"), sent);
}

#[tokio::test]
async fn a_letter_is_discarded_with_its_reason() {
    let broker = broker();
    let house = house(&broker, "house", 3).await;
    let line = [
        "dead-letter",
        "discard",
        "3",
        "--service=house",
        "--reason=a test order",
        "--yes",
    ];
    let ended = tool(&broker, &line).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let said = "discarded 3 (sensors:13); behind it: 1 applied, 0 failed again, 0 left\n";
    assert_eq!(ended.stdout, said);
    let sent = json!({"id": 3, "reason": "a test order"});
    assert_eq!(house.requests("dead-letters.discard"), [sent]);
}

/// A service with 600 letters, and further ones meanwhile. It refuses the third discard request.
async fn flooded(broker: &Broker) -> Played {
    let answer = |endpoint: &str, request: &Value, before: usize| -> Answer {
        match endpoint {
            "dead-letters.list" if request["after"] == 0 && before == 0 => {
                assert_eq!(
                    request["filter"],
                    json!({"error": "zero", "waiting": false})
                );
                let letters: Vec<Value> = (1..=600).map(|id| letter(2 * id + 1)).collect();
                Ok(json!({"letters": letters, "total": 600}))
            }
            "dead-letters.list" => Ok(json!({"letters": [], "total": 600})),
            "dead-letters.discard" if before < 2 => {
                let count = request["ids"].as_array().expect("ids").len();
                Ok(json!({"discarded": count, "skipped": 0, "applied": 3, "failed": 0, "left": 9}))
            }
            _ => Err((503, "the disk is full")),
        }
    };
    Played::start(broker, "house", answer).await
}

#[tokio::test]
async fn what_was_confirmed_is_discarded_oldest_first_and_nothing_else() {
    let broker = broker();
    let house = flooded(&broker).await;
    let line = [
        "dead-letter",
        "discard",
        "--all",
        "--error=zero",
        "--reason=junk",
        "--confirm=600",
    ];
    let ended = tool(&broker, &line).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let said = "512 of 600 were discarded, the oldest of each service first; run the same \
                command again for the rest: house refuses dead-letters.discard: the disk is full";
    assert!(ended.stderr.contains(said), "{ended:?}");
    let sent = house.requests("dead-letters.discard");
    let ids = sent
        .iter()
        .flat_map(|sent| sent["ids"].as_array().expect("ids"));
    let ids: Vec<u64> = ids.map(|id| id.as_u64().expect("a number")).collect();
    assert_eq!(ids, (1..=600).map(|id| 2 * id + 1).collect::<Vec<_>>());
    let chunks: Vec<_> = sent
        .iter()
        .map(|sent| sent["ids"].as_array().map(Vec::len))
        .collect();
    assert_eq!(chunks, [Some(256), Some(256), Some(88)]);
}

#[tokio::test]
async fn all_services_are_tried_again_with_the_same_filters() {
    let broker = broker();
    let (house, shed) = (
        house(&broker, "house", 3).await,
        self::house(&broker, "shed", 1).await,
    );
    let line = ["dead-letter", "retry", "--source=sensors", "--error=zero"];
    let ended = tool(&broker, &line).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let said =
        "house: 5 applied, 0 failed again, 0 left\nshed: 5 applied, 0 failed again, 0 left\n";
    assert_eq!(ended.stdout, said);
    let sent = json!({"all": {"source": "sensors", "error": "zero"}});
    for service in [house, shed] {
        let asked = service.requests("dead-letters.retry");
        assert_eq!(asked, std::slice::from_ref(&sent));
    }
}

#[tokio::test]
async fn what_is_not_said_is_a_usage_error() {
    let broker = broker();
    let house = house(&broker, "house", 3).await;
    for line in [
        &["discard", "3", "--service=house"][..],
        &["discard", "3", "--service=house", "--reason="],
        &["discard", "3", "--service=house", "--reason=x"],
        &["retry", "--service=house"],
        &["retry", "1", "--all", "--service=house"],
        &["retry", "1", "--lane=key attic", "--service=house"],
        &["retry", "1"],
        &["discard", "3", "--reason=x", "--yes"],
        &["discard", "--service=house", "--reason=x", "--yes"],
        &["discard", "--source=sensors", "--reason=x", "--yes"],
        &[
            "discard",
            "3",
            "--all",
            "--service=house",
            "--reason=x",
            "--yes",
        ],
        &["discard", "--all", "--service=house", "--reason=x"],
        &[
            "discard",
            "--all",
            "--service=house",
            "--reason=x",
            "--confirm=2",
        ],
        &["show", "1"],
        &["list", "--limit=0"],
        &[],
    ] {
        let line = [&["dead-letter"], line].concat();
        let ended = tool(&broker, &line).await;
        assert_eq!(ended.code, Some(2), "{line:?}: {ended:?}");
    }
    assert_eq!(house.requests("dead-letters.discard"), [] as [Value; 0]);
    assert_eq!(house.requests("dead-letters.retry"), [] as [Value; 0]);
}

#[tokio::test]
async fn a_service_that_is_away_is_named() {
    let broker = broker();
    for line in [
        &["list"][..],
        &["show", "1"],
        &["retry", "--all"],
        &["discard", "1", "--reason=x", "--yes"],
    ] {
        let line = [&["dead-letter"], line, &["--service=house"]].concat();
        let ended = tool(&broker, &line).await;
        assert_eq!(ended.code, Some(4), "{line:?}: {ended:?}");
        assert!(
            ended.stderr.contains("the service house does not answer"),
            "{ended:?}"
        );
    }
}
