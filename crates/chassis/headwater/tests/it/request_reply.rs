//! Request-reply over the bus.

use std::sync::Barrier;
use std::time::Duration;

use broker::Broker;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use headwater::database::Snapshot;
use headwater::operator::{AdminEndpoints, ProjectionRegistry};
use headwater::request_reply::{Answer, NoAnswer, Questions, Refusal, RequestClient};
use headwater::{Bus, Clock, Database};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::support::{Tasks, append, broker, bus, eventually, folder, integers, open, reads};

const SUBJECT: &str = "inquiry.sensors.v1.asked";

/// Far longer than any answer takes.
const PATIENT: Duration = Duration::from_secs(30);

/// How often was `sensor` read? Some names provoke a failure.
#[derive(Clone, PartialEq, prost::Message)]
struct CountAsked {
    #[prost(string, tag = "1")]
    sensor: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CountAnswered {
    #[prost(int64, tag = "1")]
    count: i64,
    #[prost(string, tag = "2")]
    note: String,
}

/// Two of these questions are answered concurrently, or neither.
static TOGETHER: Barrier = Barrier::new(2);

fn count(snapshot: &Snapshot, asked: &CountAsked, _room: usize) -> Result<CountAnswered, Refusal> {
    match asked.sensor.as_str() {
        "" => return Err(Refusal::Malformed("name a sensor".to_owned())),
        "no table" => drop(integers(snapshot, "SELECT n FROM nothing")?),
        "panic" => panic!("a bug in an answer"),
        "together" => drop(TOGETHER.wait()),
        _ => {}
    }
    let note = if asked.sensor == "large" {
        "x".repeat(600_000)
    } else {
        String::new()
    };
    let count = integers(snapshot, "SELECT count(*) AS n FROM headwater_outbox")?[0];
    Ok(CountAnswered { count, note })
}

/// A service that answers, and a client that asks.
struct World {
    client: RequestClient,
    asking: Tasks,
    owner: Tasks,
    sensors: Database,
    bus: Bus,
    broker: Broker,
    _folder: TempDir,
}

impl World {
    async fn start(questions_max: usize) -> Self {
        let (folder, broker) = (folder(), broker());
        let sensors = open(&folder, "sensors").await;
        append(&sensors, reads(1..=3)).await;
        let bus = bus(&broker, "house").await;
        let (client, asking) = asking(&bus, questions_max).await;
        let owner = answering(&broker, &sensors).await;
        let world = Self {
            client,
            asking,
            owner,
            sensors,
            bus,
            broker,
            _folder: folder,
        };
        world.answered().await;
        world
    }

    async fn ask(&self, sensor: &str, within: Duration) -> Result<Answer<CountAnswered>, NoAnswer> {
        let question = CountAsked {
            sensor: sensor.to_owned(),
        };
        self.client
            .ask(SUBJECT, &question, Instant::now() + within)
            .await
    }

    /// Waits until a question is answered.
    async fn answered(&self) {
        eventually("a question is answered", async || {
            self.ask("attic", PATIENT).await
        })
        .await;
    }

    async fn stop(self) {
        self.owner.stop().await;
        self.asking.stop().await;
    }
}

async fn asking(bus: &Bus, questions_max: usize) -> (RequestClient, Tasks) {
    let instance = Clock::system().new_id();
    let (client, answers) = RequestClient::subscribe(bus, instance, questions_max)
        .await
        .unwrap();
    let mut tasks = Tasks::none();
    tasks.run("request-reply", |stop| answers.run(stop));
    (client, tasks)
}

async fn answering(broker: &Broker, sensors: &Database) -> Tasks {
    let mut questions = Questions::default();
    questions.add(sensors, SUBJECT, count);
    let mut tasks = Tasks::none();
    let admin = AdminEndpoints::new("sensors", tasks.health.clone())
        .with_database(sensors.clone(), ProjectionRegistry::default());
    tasks.offer(admin, &bus(broker, "sensors").await, questions);
    tasks
}

#[tokio::test]
async fn an_answer_says_what_it_is_as_of() {
    let world = World::start(8).await;
    for more in 1..=20 {
        append(&world.sensors, reads([more])).await;
        let Answer { body, as_of } = world.ask("attic", PATIENT).await.unwrap();
        assert_eq!(body.count, 3 + more);
        assert_eq!(as_of.to_string(), format!("sensors:{}", body.count));
    }
    world.stop().await;
}

#[tokio::test]
async fn the_question_is_an_endpoint_of_its_service() {
    let world = World::start(8).await;
    let info = world
        .bus
        .client()
        .request("$SRV.INFO.sensors", "".into())
        .await
        .unwrap();
    let info: serde_json::Value = serde_json::from_slice(&info.payload).unwrap();
    let endpoints = info["endpoints"].as_array().unwrap();
    let question = endpoints
        .iter()
        .find(|endpoint| endpoint["subject"] == SUBJECT)
        .unwrap();
    assert_eq!(question["name"], "inquiry-sensors-v1-asked");
    world.stop().await;
}

#[tokio::test]
async fn a_question_that_nobody_listens_to_ends_long_before_its_deadline() {
    let world = World::start(8).await;
    let asked = CountAsked::default();
    let deadline = Instant::now() + PATIENT;
    let answer = world
        .client
        .ask::<CountAnswered>("inquiry.gauges.v1.asked", &asked, deadline);
    assert_eq!(answer.await, Err(NoAnswer::NoResponders));
    assert!(Instant::now() < deadline);
    world.stop().await;
}

#[tokio::test]
async fn a_question_gives_its_place_back_however_it_ends() {
    let world = World::start(1).await;
    let mut silent = world
        .bus
        .client()
        .subscribe("inquiry.silent.v1.asked")
        .await
        .unwrap();
    let asked = CountAsked::default();
    let silently = |within| {
        let deadline = Instant::now() + within;
        world
            .client
            .ask::<CountAnswered>("inquiry.silent.v1.asked", &asked, deadline)
    };
    for _ in 0..3 {
        assert_eq!(
            silently(Duration::from_millis(50)).await,
            Err(NoAnswer::Late)
        );
        silent.next().await.unwrap();
    }
    let meanwhile = async {
        silent.next().await;
        world.ask("attic", PATIENT).await
    };
    tokio::select! {
        answer = silently(PATIENT) => panic!("an answer without a responder: {answer:?}"),
        answer = meanwhile => assert_eq!(answer, Err(NoAnswer::Full)),
    }
    // The caller has dropped the question, which has left the table.
    assert_eq!(world.ask("attic", PATIENT).await.unwrap().body.count, 3);
    world.stop().await;
}

#[tokio::test]
async fn what_cannot_be_answered_is_said() {
    let world = World::start(8).await;
    for (sensor, why) in [
        ("", "name a sensor"),
        (
            "no table",
            "internal error; the cause is in the service's log",
        ),
    ] {
        let refused = NoAnswer::Refused(why.to_owned());
        assert_eq!(world.ask(sensor, PATIENT).await, Err(refused), "{sensor}");
    }
    let why = "the answer takes 600006 bytes, and an answer has room for 524288: ask for less, or raise `max_payload` of the NATS server or account";
    let too_large = NoAnswer::TooLarge(why.to_owned());
    assert_eq!(world.ask("large", PATIENT).await, Err(too_large));
    assert_eq!(
        world.ask("panic", Duration::from_millis(200)).await,
        Err(NoAnswer::Late)
    );
    assert_eq!(world.ask("attic", PATIENT).await.unwrap().body.count, 3);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_are_answered_at_the_same_time() {
    let world = World::start(8).await;
    let both = join_all([
        world.ask("together", PATIENT),
        world.ask("together", PATIENT),
    ])
    .await;
    assert!(both.iter().all(Result::is_ok), "{both:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_instances_one_answers() {
    const QUESTIONS: usize = 200;
    let world = World::start(QUESTIONS).await;
    let second = answering(&world.broker, &world.sensors).await;
    eventually("both instances answer", async || {
        let mut answers = world.bus.client().subscribe("there").await.unwrap();
        let client = world.bus.client();
        client
            .publish_with_reply("$SRV.PING.sensors", "there", "".into())
            .await
            .unwrap();
        let two = async {
            answers.next().await;
            answers.next().await;
        };
        tokio::time::timeout(Duration::from_millis(300), two).await
    })
    .await;
    let mut heard = world
        .bus
        .client()
        .subscribe("inquiry.answers.>")
        .await
        .unwrap();
    world.bus.client().flush().await.unwrap();
    let answers = join_all((0..QUESTIONS).map(|_| world.ask("attic", PATIENT))).await;
    assert!(answers.iter().all(Result::is_ok));
    // Any further answer would arrive before the answer to another question.
    world.ask("attic", PATIENT).await.unwrap();
    let mut count = 0;
    let rest = Duration::from_millis(100);
    while let Ok(Some(_)) = tokio::time::timeout(rest, heard.next()).await {
        count += 1;
    }
    assert_eq!(count, QUESTIONS + 1);
    second.stop().await;
    world.stop().await;
}

#[tokio::test]
async fn without_the_broker_nothing_is_asked_and_with_it_again() {
    let mut world = World::start(8).await;
    world.broker.kill().unwrap();
    eventually("the connection is known to be lost", async || {
        match world.ask("attic", Duration::from_millis(200)).await {
            Err(NoAnswer::NotConnected) => Ok(()),
            other => Err(other),
        }
    })
    .await;
    world.broker.restart().unwrap();
    world.answered().await;
    world.stop().await;
}
