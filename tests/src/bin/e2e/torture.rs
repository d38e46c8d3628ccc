//! Tortures the whole system for as long as it is told, from a seed: `just torture 10 4711`.

use std::time::Duration;

use e2e::model::{self, Dose};
use headwater::Clock;

/// Random commands and faults over the whole system, compared with a plain fold
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long, in minutes
    #[arg(long, default_value_t = 1)]
    minutes: u64,
    /// Where all chance comes from; made up where it is left out
    #[arg(long)]
    seed: Option<u64>,
    /// At least so many rounds
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
