//! Entry point. The service itself is `orders::run`.

fn main() -> std::process::ExitCode {
    headwater::main(orders::ABOUT, orders::run)
}
