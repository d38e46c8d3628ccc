//! Entry point. The service itself is `example_reviews::run`.

fn main() -> std::process::ExitCode {
    headwater::main(example_reviews::ABOUT, example_reviews::run)
}
