//! The figures in the documents, each measured as a ratio within one run.
//!
//! An absolute figure says as much about the machine as about the program; the ratio of two
//! taken one after the other on the same machine says something about the program.

mod connection;
mod group_commit;
mod shop;

use std::io::Write as _;

/// Measures the figures in the documents.
#[derive(Debug, clap::Parser)]
#[command(name = "bench", version)]
pub struct Args {
    /// Seconds that each load runs
    #[arg(long, default_value_t = 5)]
    pub seconds: u64,
    /// Clients at the same time, in the load that is compared with one client
    #[arg(long, default_value_t = 64)]
    pub clients: usize,
}

/// Measures, and writes the table to standard output.
///
/// # Errors
/// The services cannot be started, or do not answer as they must.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    let figures = group_commit::measure(args).await?;
    writeln!(std::io::stdout().lock(), "{figures}")?;
    Ok(())
}
