//! Short runs of `just torture`: one with a fixed seed, one with a new seed each time.

use std::time::Duration;

use e2e::model::{self, Dose};
use headwater::Clock;

/// Rounds of the fixed seed: enough for every kind of fault.
const ROUNDS: u64 = 6;

#[expect(clippy::print_stdout, reason = "shown when the test fails")]
async fn torture(seed: u64, rounds: u64) {
    let dose = Dose {
        seed,
        rounds,
        lasts: Duration::ZERO,
        more_rounds: 20,
    };
    match Box::pin(model::run(dose, |line| println!("{line}"))).await {
        Ok(tally) => println!("seed {seed}\n{tally}"),
        Err(failure) => panic!("{failure:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_history_of_commands_and_faults_ends_as_a_plain_fold_of_it() {
    torture(1, ROUNDS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_history_of_commands_and_faults_ends_as_a_plain_fold_of_it() {
    torture(Clock::system().now_ms().unsigned_abs(), ROUNDS / 2).await;
}
