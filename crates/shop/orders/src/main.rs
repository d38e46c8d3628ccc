//! Entry point. The service itself is `orders::run`.

fn main() -> std::process::ExitCode {
    headwater::main_as(orders::ABOUT, orders::check, orders::run)
}
