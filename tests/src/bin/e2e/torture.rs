//! Runs random commands and faults from a seed, for a given time: `just torture 10 4711`.

use std::time::Duration;

use e2e::model::{self, Dose};
use headwater::Clock;

/// Run random commands and faults on the whole system and compare it with a plain model
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Duration in minutes
    #[arg(long, default_value_t = 1)]
    minutes: u64,
    /// Seed of all random choices; made up if omitted
    #[arg(long)]
    seed: Option<u64>,
    /// Minimum number of rounds
    #[arg(long, default_value_t = 1)]
    rounds: u64,
}

#[expect(clippy::print_stdout, reason = "a tool's answer")]
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let dose = Dose {
        seed: args.seed.unwrap_or_else(made_up_seed),
        rounds: args.rounds,
        lasts: Duration::from_mins(args.minutes),
        more_rounds: 12,
    };
    let tally = Box::pin(model::run(dose, |line| println!("{line}"))).await?;
    println!("\nseed: {}\n{tally}", dose.seed);
    Ok(())
}

fn made_up_seed() -> u64 {
    Clock::system().now_ms().unsigned_abs()
}
