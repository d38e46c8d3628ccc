//! Prints the path of the nats-server that `cargo dev` would run; installs one if there is none.
//! For scripts: `cargo run --package broker --example where`.

use std::io::Write as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let binary = broker::find(&|progress| drop(writeln!(std::io::stderr(), "{progress}")))?;
    writeln!(std::io::stdout(), "{}", binary.path.display())?;
    Ok(())
}
