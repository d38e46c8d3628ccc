//! `headwater check` for Nagios and for Prometheus.

use serde_json::Value;

use crate::source::{Source, eventually, tool};
use crate::status::{eventually_well, shop};

#[tokio::test]
async fn a_shop_that_is_well_is_ok_with_performance_data() {
    let (source, house) = shop().await;
    eventually_well(&source).await;
    let ended = source.tool(&["check"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let (text, data) = ended.stdout.trim_end().split_once('|').expect("a bar");
    assert_eq!(text, "OK - 2 services, 1 outboxes, 1 projections");
    let data: Vec<&str> = data.split(" '").collect();
    assert_eq!(
        data,
        [
            "'lag readings sensors'=0;10000;100000",
            "lag age readings sensors'=0.000s;60;600",
            "outbox sensors'=0;10000;100000",
            "outbox age sensors'=0.000s;60;600",
            "dead letters readings'=0;0;99",
        ]
    );
    assert_eq!(ended.stdout.lines().count(), 1);
    house.close().await;
    source.stop().await;
}

#[tokio::test]
async fn what_is_above_a_limit_is_a_warning_or_critical() {
    let source = Source::without_relay().await;
    source.append(1..=5).await;
    let ended = eventually("the service to answer", async || {
        let ended = source.tool(&["check", "--outbox-warning=4"]).await;
        if ended.code == Some(1) {
            Ok(ended)
        } else {
            Err(ended)
        }
    })
    .await;
    let said = "WARNING - the outbox of sensors: 5 events wait, the oldest for ";
    assert!(ended.stdout.starts_with(said), "{ended:?}");
    let ended = source.tool(&["check", "--outbox-warning=5,1h"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let ended = source
        .tool(&["check", "--outbox-critical=1h,4", "-ojson"])
        .await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    let report: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!(report["state"], "CRITICAL");
    assert_eq!(report["survey"]["relays"][0]["waiting"], 5);
    source.stop().await;
}

#[tokio::test]
async fn a_broker_that_is_away_is_critical_and_a_wrong_context_unknown() {
    let mut broker = broker::Broker::start_in_temp().expect("start nats-server");
    broker.kill().expect("killed");
    let ended = tool(&broker, &["check"]).await;
    assert_eq!((ended.code, &*ended.stderr), (Some(2), ""), "{ended:?}");
    assert!(ended.stdout.starts_with("CRITICAL - NATS at "), "{ended:?}");
    let ended = tool(&broker, &["check", "--format=prometheus"]).await;
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(
        ended.stdout.ends_with("headwater_check_up 0\n"),
        "{ended:?}"
    );
    let ended = tool(&broker, &["check", "--context=none"]).await;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.stdout.starts_with("UNKNOWN - "), "{ended:?}");
}

#[tokio::test]
async fn prometheus_is_given_every_value() {
    let (source, house) = shop().await;
    eventually_well(&source).await;
    let pause = ["projection", "pause", "readings", "--reason=a look"];
    assert_eq!(source.tool(&pause).await.code, Some(0));
    let ended = source.tool(&["check", "--format=prometheus"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for said in [
        "headwater_check_up 1\n",
        "headwater_check_missing 0\n",
        "headwater_check_service_instances{service=\"house\"} 1\n",
        "headwater_check_component_state{service=\"house\",component=\"readings\"} 1\n",
        "# HELP headwater_check_part_state Deprecated: renamed to headwater_check_component_state\n",
        "headwater_check_part_state{service=\"house\",part=\"readings\"} 1\n",
        "headwater_check_outbox_events{source=\"sensors\"} 0\n",
        "headwater_check_lag_events{projection=\"readings\",source=\"sensors\"} 0\n",
        "headwater_check_lag_seconds{projection=\"readings\",source=\"sensors\"} 0\n",
        "headwater_check_dead_letters{projection=\"readings\"} 0\n",
        "headwater_check_paused{projection=\"readings\"} 1\n",
        "headwater_check_complete{projection=\"readings\"} 1\n",
    ] {
        assert!(ended.stdout.contains(said), "{said}{}", ended.stdout);
    }
    let is_one = |line: &str| line.starts_with('#') || line.split(' ').count() >= 2;
    assert!(ended.stdout.lines().all(is_one), "{}", ended.stdout);
    let ended = source.tool(&["check"]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended
            .stdout
            .starts_with("WARNING - readings of house is paused"),
        "{ended:?}"
    );
    house.close().await;
    source.stop().await;
}
