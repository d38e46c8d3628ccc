//! The page that lists the metrics, and the metrics of the services.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use e2e::collector::Collector;
use e2e::faults::metric;
use e2e::receiver::Receiver;
use e2e::{Service, World, eventually};
use rusqlite::Connection;
use serde_json::json;

/// Type, labels and help text of a metric.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Metric {
    kind: String,
    labels: BTreeSet<String>,
    help: String,
}

type Metrics = BTreeMap<String, Metric>;

fn document(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The tables of `docs/metrics.md`: ``| `name` | type | `label`, `label` | help |``.
fn documented() -> Metrics {
    let mut metrics = Metrics::new();
    for line in document("docs/metrics.md").lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if let ["", name, kind, labels, help, ""] = cells[..]
            && let Some(name) = name.strip_prefix('`')
        {
            let metric = Metric {
                kind: kind.to_owned(),
                labels: labels
                    .split('`')
                    .skip(1)
                    .step_by(2)
                    .map(str::to_owned)
                    .collect(),
                help: help.to_owned(),
            };
            metrics.insert(name.trim_end_matches('`').to_owned(), metric);
        }
    }
    metrics
}

/// Adds the metrics of an exposition to `metrics`.
fn add(metrics: &mut Metrics, exposition: &str) {
    for line in exposition.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            help.clone_into(&mut metrics.entry(name.to_owned()).or_default().help);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            kind.clone_into(&mut metrics.entry(name.to_owned()).or_default().kind);
        } else if let Some((name, labels)) = sample(line) {
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .filter_map(|ending| name.strip_suffix(ending))
                .find(|family| metrics.get(*family).is_some_and(is_histogram))
                .unwrap_or(name);
            let labels = labels.into_iter().filter(|label| label != "le");
            let metric = metrics.entry(family.to_owned()).or_default();
            metric.labels.extend(labels);
        }
    }
}

/// The name and the labels of a sample line.
fn sample(line: &str) -> Option<(&str, Vec<String>)> {
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let (name, labels) = match line.split_once('{') {
        Some((name, rest)) => (name, rest.rsplit_once('}')?.0),
        None => (line.split_once(' ')?.0, ""),
    };
    let names = labels.split("=\"").map(|part| {
        let name = part.rsplit(['"', ',']).next().unwrap_or_default();
        name.to_owned()
    });
    let mut names: Vec<String> = names.collect();
    names.pop();
    Some((name, names))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_services_say_what_the_list_of_metrics_says_and_nothing_else() {
    let collector = Collector::start().await;
    let mut world = World::on_host().start().await;
    world.run_with(Service::Composition, collector.of()).await;
    let receiver = Receiver::start().await;
    world.stop(Service::Orders).await;
    world.run_with(Service::Orders, receiver.of()).await;
    world.run(Service::RequestReply).await;
    for style in Service::STYLES {
        world.answering(style).await;
    }
    let wanted = documented();
    eventually("the services to export what is documented", || async {
        // Some metrics appear only after the first measurement.
        let (user, mug) = (
            world.user(&uuid::Uuid::now_v7().to_string()).await,
            world.product("Mug").await,
        );
        world.order(&user, &[&mug]).await;
        let mut exported = Metrics::new();
        for service in Service::ALL.into_iter().chain(Service::STYLES) {
            add(
                &mut exported,
                &world.admin(service).get("/metrics").await.text,
            );
        }
        if exported == wanted {
            return Ok(());
        }
        let differ = |name: &&String| exported.get(*name) != wanted.get(*name);
        let names: BTreeSet<&String> = exported.keys().chain(wanted.keys()).collect();
        let differences: Vec<_> = names
            .into_iter()
            .filter(differ)
            .map(|name| {
                (
                    name.clone(),
                    exported.get(name).cloned(),
                    wanted.get(name).cloned(),
                )
            })
            .collect();
        Err(format!("exported, documented: {differences:#?}"))
    })
    .await;
    world.finish().await;
}

#[test]
fn an_exposition_is_read_by_name_and_labels() {
    let line = r#"a_bucket{service="o{r}ders",route="/a,b",le="0.1"} 3"#;
    let (name, labels) = sample(line).unwrap();
    assert_eq!(name, "a_bucket");
    assert_eq!(labels, ["service", "route", "le"]);
    assert_eq!(sample("b 4"), Some(("b", vec![])));
}

/// The names in `text` that look like our metrics, as in the list.
fn named(text: &str, listed: &Metrics) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = words.filter(|word| {
        let is_ours = |start| word.starts_with(start);
        ["headwater_", "purchases_", "users_", "process_"]
            .iter()
            .any(is_ours)
    });
    let family = |word: &str| {
        let ending = ["_bucket", "_sum", "_count"];
        let family = ending.iter().find_map(|ending| word.strip_suffix(ending));
        let family = family.filter(|family| listed.get(*family).is_some_and(is_histogram));
        family.unwrap_or(word).to_owned()
    };
    ours.map(family).collect()
}

fn is_histogram(metric: &Metric) -> bool {
    metric.kind == "histogram"
}

#[test]
fn alerts_and_dashboard_look_at_listed_metrics_only() {
    let listed = documented();
    for (file, least) in [
        ("deploy/prometheus/alerts.yml", 12),
        ("deploy/grafana/headwater.json", 25),
    ] {
        let names = named(&document(file), &listed);
        assert!(names.len() >= least, "{file} names only {names:?}");
        for name in names {
            assert!(listed.contains_key(&name), "{file}: {name} is not listed");
        }
    }
}

#[test]
fn every_alert_has_a_test_and_says_what_to_do() {
    let rules = document("deploy/prometheus/alerts.yml");
    let tests = document("deploy/prometheus/alerts.test.yml");
    let page = document("docs/operations.md");
    let alerts = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    let mut count = 0;
    for alert in alerts {
        count += 1;
        let anchor = format!("docs/operations.md#{}", alert.to_lowercase());
        assert!(
            rules.contains(&anchor),
            "{alert} does not lead to its advice"
        );
        assert!(
            page.contains(&format!("### {alert}\n")),
            "no advice on {alert}"
        );
        let tested = format!("alertname: {alert}\n");
        assert!(tests.contains(&tested), "{alert} has no test");
    }
    assert!(count >= 12, "only {count} alerts");
}

/// Waits until the gauge `name` of a service satisfies `wanted`.
async fn becomes(world: &World, service: Service, name: &str, wanted: impl Fn(f64) -> bool) {
    let client = world.admin(service);
    eventually(name, || async {
        let value = metric(&client, name).await;
        if wanted(value) { Ok(()) } else { Err(value) }
    })
    .await;
}

fn is(value: f64) -> impl Fn(f64) -> bool {
    move |seen| (seen - value).abs() < 1e-9
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_copy_lacks_is_told_and_that_it_has_caught_up() {
    let world = World::start().await;
    let labels = r#"{projection="purchases",source="users"}"#;
    let lag = format!("headwater_projection_lag_events{labels}");
    let age = format!("headwater_projection_lag_seconds{labels}");
    becomes(&world, Service::Purchases, &lag, is(0.0)).await;
    // Blocks all other writers.
    let store = Connection::open(world.database(Service::Purchases)).unwrap();
    store.execute_batch("BEGIN IMMEDIATE").unwrap();
    world.user("ada").await;
    world.user("bob").await;
    becomes(&world, Service::Purchases, &lag, is(2.0)).await;
    becomes(&world, Service::Purchases, &age, |seconds| seconds > 1.0).await;
    store.execute_batch("ROLLBACK").unwrap();
    becomes(&world, Service::Purchases, &lag, is(0.0)).await;
    becomes(&world, Service::Purchases, &age, is(0.0)).await;
    let applied = format!("headwater_projection_position{labels}");
    becomes(&world, Service::Purchases, &applied, is(2.0)).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_the_broker_is_told_and_that_it_is_published() {
    let mut world = World::start().await;
    let connected = r#"headwater_nats_connected{service="products"}"#;
    let waiting = r#"headwater_outbox_unpublished{source="products"}"#;
    let age = r#"headwater_outbox_unpublished_seconds{source="products"}"#;
    let relay = r#"headwater_component_state{service="products",component="relay"}"#;
    becomes(&world, Service::Products, connected, is(1.0)).await;
    world.broker.kill().unwrap();
    world.product("Mug").await;
    world.product("Tent").await;
    becomes(&world, Service::Products, connected, is(0.0)).await;
    becomes(&world, Service::Products, waiting, is(2.0)).await;
    becomes(&world, Service::Products, age, |seconds| seconds > 1.0).await;
    becomes(&world, Service::Products, relay, is(1.0)).await;
    world.broker.restart().unwrap();
    becomes(&world, Service::Products, connected, is(1.0)).await;
    becomes(&world, Service::Products, waiting, is(0.0)).await;
    becomes(&world, Service::Products, age, is(0.0)).await;
    becomes(&world, Service::Products, relay, is(0.0)).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_told_of_until_a_person_has_dealt_with_it() {
    let world = World::start().await;
    let waiting = r#"headwater_dead_letters_waiting{projection="purchases",source="orders"}"#;
    let nats = world.nats().await;
    let subject = "orders.v1.placed.0";
    nats.publish(subject, "nonsense".into()).await.unwrap();
    nats.flush().await.unwrap();
    becomes(&world, Service::Purchases, waiting, is(1.0)).await;
    let request = json!({ "id": 1, "reason": "published by hand" });
    let discarded = world.ask(Service::Purchases, "dead-letters.discard", &request);
    discarded.await.unwrap();
    becomes(&world, Service::Purchases, waiting, is(0.0)).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_projection_is_told_of_until_it_goes_on() {
    let world = World::start().await;
    let state = r#"headwater_component_state{service="purchases",component="purchases"}"#;
    let pause = json!({ "reason": "a look at it" });
    eventually("a pause", || async {
        let paused = world.ask(Service::Purchases, "projections.pause", &pause);
        paused.await
    })
    .await;
    becomes(&world, Service::Purchases, state, is(1.0)).await;
    let resume = json!({});
    let resumed = world.ask(Service::Purchases, "projections.resume", &resume);
    resumed.await.unwrap();
    becomes(&world, Service::Purchases, state, is(0.0)).await;
    let text = world.admin(Service::Purchases).get("/metrics").await.text;
    assert!(text.contains(state), "the state is missing");
    world.finish().await;
}
