//! Operator settings of a projection's consumer: the projection respects, repairs or reports them.

use std::sync::Mutex;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, ReplayPolicy, pull};
use async_nats::jetstream::stream::Stream;
use headwater::projection::{self, Runner};
use headwater::{ApplyError, Envelope, Projection, database::Tx};

use crate::support::{
    Tasks, World, append, eventually, eventually_readings, eventually_says, jetstream, large, reads,
};

async fn sensors(world: &World) -> Stream {
    let jetstream = jetstream(&world.bus);
    eventually("the stream is there", async || {
        jetstream.get_stream("SENSORS").await
    })
    .await
}

/// The configuration of the projection's consumer.
async fn config(stream: &Stream) -> pull::Config {
    let consumer: PullConsumer = stream.get_consumer("readings").await.unwrap();
    let config = consumer.cached_info().config.clone();
    pull::Config {
        durable_name: config.durable_name,
        description: config.description,
        ack_policy: config.ack_policy,
        deliver_policy: config.deliver_policy,
        max_waiting: config.max_waiting,
        metadata: config.metadata,
        ..pull::Config::default()
    }
}

/// Edits the consumer while the projection runs, appends 200 more events, and waits for all of
/// them.
async fn edit_and_expect_all(edit: impl Fn(&mut pull::Config)) {
    let world = World::start().await;
    world.append(1..=1).await;
    eventually_readings(&world.copy, &[1]).await;
    let stream = sensors(&world).await;
    let mut edited = config(&stream).await;
    edit(&mut edited);
    stream.update_consumer(edited).await.unwrap();
    world.append(2..=201).await;
    eventually_readings(&world.copy, &(1..=201).collect::<Vec<_>>()).await;
    assert_eq!(crate::support::dead_letters(&world.copy).await, [""; 0]);
    world.stop().await;
}

#[tokio::test]
async fn a_consumer_edited_to_headers_only_parks_nothing_and_is_put_right() {
    edit_and_expect_all(|config| config.headers_only = true).await;
}

#[tokio::test]
async fn a_consumer_edited_to_filter_is_put_right() {
    edit_and_expect_all(|config| config.filter_subject = "sensors.v1.other.>".to_owned()).await;
}

#[tokio::test]
async fn a_consumer_edited_to_give_little_at_a_time_is_kept_to() {
    edit_and_expect_all(|config| config.max_batch = 3).await;
    edit_and_expect_all(|config| config.max_bytes = 700).await;
}

#[tokio::test]
async fn a_consumer_whose_requests_expire_at_once_is_put_right() {
    edit_and_expect_all(|config| config.max_expires = Duration::from_millis(5)).await;
}

/// An event that was published by hand has no position that would show a gap.
#[tokio::test]
async fn a_filter_hides_no_event_that_was_published_by_hand() {
    let world = World::start().await;
    world.append(1..=1).await;
    eventually_readings(&world.copy, &[1]).await;
    let stream = sensors(&world).await;
    let edited = pull::Config {
        filter_subject: "sensors.v1.other.>".to_owned(),
        ..config(&stream).await
    };
    stream.update_consumer(edited).await.unwrap();
    let subject = headwater::subject_of(&crate::support::read("attic", 2));
    let payload = prost::Message::encode_to_vec(&crate::support::read("attic", 2));
    let client = world.bus.client();
    client.publish(subject, payload.into()).await.unwrap();
    client
        .publish("sensors.v1.other.1", "".into())
        .await
        .unwrap();
    // The filter passes an event without payload: a reading of 0.
    eventually_readings(&world.copy, &[1, 2, 0]).await;
    world.stop().await;
}

/// Creates the consumer by hand before the projection starts, and expects the projection to read
/// everything.
async fn make_and_expect_all(made: pull::Config) {
    let mut world = World::start().await;
    world.stop_reader().await;
    let stream = sensors(&world).await;
    let _ = stream.delete_consumer("readings").await;
    let made = pull::Config {
        durable_name: Some("readings".to_owned()),
        ..made
    };
    stream.create_consumer(made).await.unwrap();
    world.append(1..=300).await;
    world.start_reader().await;
    eventually_readings(&world.copy, &(1..=300).collect::<Vec<_>>()).await;
    world.stop().await;
}

#[tokio::test]
async fn a_consumer_that_somebody_made_with_limits_does_not_hold_up_its_projection() {
    let open = pull::Config {
        ack_policy: AckPolicy::None,
        ..pull::Config::default()
    };
    let made = [
        pull::Config {
            max_expires: Duration::from_secs(2),
            ..open.clone()
        },
        pull::Config {
            max_bytes: 300,
            ..open.clone()
        },
        pull::Config {
            max_waiting: 1,
            max_batch: 7,
            ..open.clone()
        },
        pull::Config {
            replay_policy: ReplayPolicy::Original,
            ..open.clone()
        },
        pull::Config {
            deliver_policy: DeliverPolicy::New,
            ..open.clone()
        },
    ];
    for made in made {
        make_and_expect_all(made).await;
    }
}

/// A push consumer delivers its events elsewhere. Without an error, the projection would get none.
#[tokio::test]
async fn a_consumer_that_pushes_is_recreated() {
    use async_nats::jetstream::consumer::push;
    let mut world = World::start().await;
    world.stop_reader().await;
    let stream = sensors(&world).await;
    let _ = stream.delete_consumer("readings").await;
    let pushing = push::Config {
        durable_name: Some("readings".to_owned()),
        deliver_subject: "somewhere".to_owned(),
        ack_policy: AckPolicy::None,
        ..push::Config::default()
    };
    stream.create_consumer(pushing).await.unwrap();
    world.append(1..=3).await;
    world.start_reader().await;
    eventually_readings(&world.copy, &[1, 2, 3]).await;
    world.stop().await;
}

/// The operator paused the consumer. The projection must report it.
#[tokio::test]
async fn a_consumer_that_is_paused_at_the_broker_is_named() {
    let world = World::start().await;
    world.append(1..=1).await;
    eventually_readings(&world.copy, &[1]).await;
    let stream = sensors(&world).await;
    let pause = r#"{"pause_until": "2100-01-01T00:00:00Z"}"#;
    let subject = "$JS.API.CONSUMER.PAUSE.SENSORS.readings";
    let client = world.bus.client();
    client.request(subject, pause.into()).await.unwrap();
    let part = "readings from sensors";
    eventually_says(&world.reader.health, part, "nats consumer resume").await;
    world.append(2..=3).await;
    stream.resume_consumer("readings").await.unwrap();
    eventually_readings(&world.copy, &[1, 2, 3]).await;
    world.stop().await;
}

/// Events of any size are read, also events larger than one request's limit.
#[tokio::test]
async fn large_events_among_small_ones_are_read() {
    let world = World::start().await;
    let sizes = [0, 0, 200_000, 0, 400_000, 400_000, 0, 30_000, 0, 0];
    let events = (1..).zip(sizes).map(|(value, bytes)| large(value, bytes));
    append(&world.source, events.collect()).await;
    eventually_readings(&world.copy, &(1..=10).collect::<Vec<_>>()).await;
    world.stop().await;
}

/// The batch sizes of [`Slow`].
static BATCHES: Mutex<Vec<usize>> = Mutex::new(Vec::new());

/// Applies events slowly.
struct Slow;

impl Projection for Slow {
    const NAME: &'static str = "slow";
    const VERSION: u32 = 1;
    const SOURCES: &'static [&'static str] = &["sensors"];

    fn apply(&self, _: &Tx, events: &[Envelope]) -> Result<(), ApplyError> {
        std::thread::sleep(Duration::from_millis(1) * u32::try_from(events.len()).unwrap());
        BATCHES.lock().unwrap().push(events.len());
        Ok(())
    }
}

#[tokio::test]
async fn a_batch_holds_what_is_applied_in_a_quarter_of_a_second() {
    let world = World::start().await;
    append(&world.source, reads(1..=6_000)).await;
    let mut tasks = Tasks::none();
    let mut config = projection::Config::of::<Slow>();
    config.batch_max = 100_000;
    let (db, bus, health) = (world.copy.clone(), world.bus.clone(), tasks.health.clone());
    let runner = Runner::load(Slow, db, bus, health, config).await.unwrap();
    tasks.run("slow", |stop| runner.run(stop));
    eventually_says(&tasks.health, "slow from sensors", "up to 6000\"").await;
    tasks.stop().await;
    let batches = BATCHES.lock().unwrap().clone();
    // The first batch that is too large is a guess.
    let mut later = batches.iter().skip_while(|events| **events <= 250).skip(1);
    assert!(later.all(|events| *events <= 250), "{batches:?}");
    world.stop().await;
}
