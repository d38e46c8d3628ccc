//! Measures recovery after `kill -9` with a backlog: `just recovery`.

use std::time::{Duration, Instant};

use e2e::backlog::{self, peak_kib};
use e2e::{Service, World, eventually};

/// Kill services with a backlog of events; measure the time until they are ready and caught up
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Events in the backlog
    #[arg(long, default_value_t = 100_000)]
    events: usize,
    /// How often to kill each service
    #[arg(long, default_value_t = 5)]
    kills: u32,
}

#[derive(Debug, Default)]
struct Longest {
    ready: Duration,
    caught_up: Duration,
}

impl Longest {
    fn note(&mut self, ready: Duration, caught_up: Duration) {
        self.ready = self.ready.max(ready);
        self.caught_up = self.caught_up.max(caught_up);
    }
}

#[expect(clippy::print_stdout, reason = "a tool's answer")]
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let Args { events, kills } = args;
    println!("kill -9 of each service, {kills} times; longest times");
    println!(
        "{:<12} {:>14} {:>9} {:>13}",
        "service", "events waiting", "ready s", "caught up s"
    );
    for service in [Service::Orders, Service::Purchases] {
        let mut longest = Longest::default();
        let mut peak = 0;
        for _ in 0..kills {
            let (mut world, user) = backlog::shop().await;
            world.kill(Service::Purchases).await;
            world.kill(Service::Orders).await;
            let last = backlog::fill(&world, &user, events);
            if service == Service::Purchases {
                world.run(Service::Orders).await;
                backlog::published(&world, last).await;
            }
            let began = Instant::now();
            world.run(service).await;
            ready(&world, service).await;
            let ready = began.elapsed();
            match service {
                Service::Purchases => backlog::applied(&world, &user, last).await,
                _ => backlog::published(&world, last).await,
            }
            longest.note(ready, began.elapsed());
            peak = peak.max(peak_kib(world.process(service).pid()));
            if service == Service::Orders {
                world.run(Service::Purchases).await;
                backlog::applied(&world, &user, last).await;
            }
            world.finish().await;
        }
        println!(
            "{:<12} {events:>14} {:>9.2} {:>13.2}   (peak memory {} MiB)",
            service.name(),
            longest.ready.as_secs_f64(),
            longest.caught_up.as_secs_f64(),
            peak / 1024,
        );
    }
    Ok(())
}

async fn ready(world: &World, service: Service) {
    let client = world.client(service);
    eventually("the service to be ready", || async {
        let reply = client.get("/readyz").await;
        if reply.status == 200 {
            Ok(())
        } else {
            Err(reply.text)
        }
    })
    .await;
}
