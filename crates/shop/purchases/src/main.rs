//! Entry point. The service itself is `purchases::run`.

fn main() -> std::process::ExitCode {
    let name = |config: &purchases::Config| Ok(config.style.service());
    headwater::main_as(purchases::ABOUT, name, purchases::run)
}
