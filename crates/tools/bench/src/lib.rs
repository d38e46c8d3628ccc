//! Measures the figures in the documents, each as a ratio within one run.
//!
//! An absolute figure depends on the machine as much as on the program. The ratio of two figures,
//! measured alternately on the same machine, depends on the program. The denominator is the
//! figure's limit: the same work without our part, or with what ours replaces.
//!
//! Services run as child processes from the same binaries that operators run. The load comes from
//! this process. `figures.rs` lists the figures, each with its own module.

mod abuse;
mod args;
mod bench;
mod bytes;
mod connection;
mod document;
mod events;
mod figure;
mod figures;
mod follow;
mod freshness;
mod import;
mod load;
mod machine;
mod memory;
mod orders;
mod plot;
mod process;
mod reads;
mod rebuild;
mod relay;
mod report;
mod rounds;
mod scaling;
mod shop;
mod store;
mod streams;
mod styles;
mod table;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};

pub use args::{Args, What};

use args::Form;
use bench::Bench;
use figure::Figure;
use figures::{Entry, Limit};
use machine::Machine;
use report::{Measured, Report};

/// The exit code if a ratio is worse than the baseline's.
const WORSE: u8 = 3;

/// Runs the command line's action.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    if let Some(store) = &args.rival {
        Box::pin(reads::bare::serve(store)).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let chosen = figures::chosen(&args.only)?;
    match args.what.form() {
        // Dropping a measurement ends its processes and removes its files.
        Some(form) => tokio::select! {
            code = measure(&args, form, &chosen) => code,
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        },
        None if args.what == What::List => list(),
        None => {
            write_documents(&Report::load(&args.out)?)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Measures the `chosen` figures, prints them, saves them and compares them. If one fails, the
/// others are still measured.
async fn measure(args: &Args, form: Form, chosen: &[&Entry]) -> anyhow::Result<ExitCode> {
    let bench = Bench::new(args, form)?;
    let machine = Machine::look(&bench.root)?;
    let before = Report::load(&args.against)?;
    let mut report = Report::load(&args.out)?;
    say(&format!("{} form; {machine}", form.name()))?;
    let (mut worse, mut failed) = (Vec::new(), Vec::new());
    for entry in chosen {
        say(&format!("\n{}: {}", entry.name, entry.what))?;
        let started = Instant::now();
        let figure = (entry.measure)(&bench).await;
        match figure.and_then(|figure| checked(entry, figure)) {
            Ok(figure) => {
                say(&table::plain(&figure))?;
                say(&format!("  ({} s)", started.elapsed().as_secs()))?;
                let measured = Measured {
                    name: entry.name.to_owned(),
                    form,
                    machine: machine.clone(),
                    figure,
                };
                worse.extend(before.regressions(&measured));
                report.put(measured);
                report.save(&args.out)?;
            }
            Err(error) => {
                say(&format!("  FAILED: {error:#}"))?;
                failed.push(entry.name);
            }
        }
    }
    if args.docs {
        write_documents(&report)?;
    }
    for regression in &worse {
        say(&table::worse(regression))?;
    }
    ensure!(failed.is_empty(), "not measured: {}", failed.join(", "));
    let is_worse = args.check && !worse.is_empty();
    Ok(ExitCode::from(if is_worse { WORSE } else { 0 }))
}

/// Checks that the figure has what its entry promises.
fn checked(entry: &Entry, figure: Figure) -> anyhow::Result<Figure> {
    for ratio in &figure.ratios {
        let is_number = ratio.lowest.is_finite() && ratio.highest.is_finite();
        ensure!(is_number, "{}: no number", ratio.name);
    }
    let has_target = figure.ratios.iter().any(|ratio| ratio.score().is_some());
    ensure!(
        has_target == matches!(entry.limit, Limit::Measured(_)),
        "{}: a limit without a target, or a target without a limit",
        entry.name
    );
    Ok(figure)
}

fn list() -> anyhow::Result<ExitCode> {
    for entry in figures::ALL {
        let limit = match entry.limit {
            Limit::Measured(limit) => format!("compared with {limit}"),
            Limit::None(why) => format!("no limit: {why}"),
        };
        say(&format!(
            "{:<10} {}\n{:<10} {limit}",
            entry.name, entry.what, ""
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn write_documents(report: &Report) -> anyhow::Result<()> {
    for path in document::write(&args::workspace(), report)? {
        say(&format!("wrote {}", path.display()))?;
    }
    Ok(())
}

fn say(line: &str) -> anyhow::Result<()> {
    // Not `println!`, which panics on a closed pipe.
    writeln!(std::io::stdout().lock(), "{line}").context("write to standard output")
}
