//! Entry point. The service itself is `example_hello_event::run`.

fn main() -> std::process::ExitCode {
    headwater::main(example_hello_event::ABOUT, example_hello_event::run)
}
