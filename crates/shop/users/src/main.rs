//! Entry point. The service itself is `users::run`.

fn main() -> std::process::ExitCode {
    headwater::main(users::ABOUT, users::run)
}
