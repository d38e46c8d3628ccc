//! Group commit: `POST /orders`, each answered after its fsync, by one client and by many.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::task::JoinSet;

use crate::Args;
use crate::shop::Shop;

/// What one load came to.
#[derive(Debug)]
struct Load {
    clients: usize,
    per_second: f64,
    p50: Duration,
    p99: Duration,
}

/// One client against many.
#[derive(Debug)]
pub(crate) struct Figures {
    one: Load,
    many: Load,
}

pub(crate) async fn measure(args: &Args) -> anyhow::Result<Figures> {
    let shop = Shop::start().await?;
    let time = Duration::from_secs(args.seconds);
    // Warms caches and connections, so that the first load is not the one that pays for them.
    load(&shop, args.clients, Duration::from_secs(1)).await?;
    let one = load(&shop, 1, time).await?;
    let many = load(&shop, args.clients, time).await?;
    shop.stop().await?;
    Ok(Figures { one, many })
}

/// `clients` that each place one order after the other, for `time`.
async fn load(shop: &Shop, clients: usize, time: Duration) -> anyhow::Result<Load> {
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        let mut connection = shop.connection().await?;
        tasks.spawn(async move {
            let mut took = Vec::new();
            while started.elapsed() < time {
                let sent = Instant::now();
                connection.post().await?;
                took.push(sent.elapsed());
            }
            anyhow::Ok(took)
        });
    }
    let mut took = Vec::new();
    while let Some(client) = tasks.join_next().await {
        took.extend(client.context("run a client")??);
    }
    let elapsed = started.elapsed();
    took.sort_unstable();
    let percentile = |percent: usize| {
        let index = (took.len() * percent / 100).min(took.len().saturating_sub(1));
        took.get(index).copied().context("nothing was measured")
    };
    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 orders")]
    let per_second = took.len() as f64 / elapsed.as_secs_f64();
    Ok(Load {
        clients,
        per_second,
        p50: percentile(50)?,
        p99: percentile(99)?,
    })
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "POST /orders, durable (WAL, synchronous=FULL), relay to JetStream running"
        )?;
        writeln!(
            f,
            "{:>8} {:>10} {:>9} {:>9}",
            "clients", "orders/s", "p50 ms", "p99 ms"
        )?;
        for load in [&self.one, &self.many] {
            let ms = |time: Duration| time.as_secs_f64() * 1000.0;
            writeln!(
                f,
                "{:>8} {:>10.0} {:>9.2} {:>9.2}",
                load.clients,
                load.per_second,
                ms(load.p50),
                ms(load.p99)
            )?;
        }
        write!(f, "ratio {:.1}", self.many.per_second / self.one.per_second)
    }
}
