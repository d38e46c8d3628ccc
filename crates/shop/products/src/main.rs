//! Entry point. The service itself is `products::run`.

fn main() -> std::process::ExitCode {
    headwater::main(products::ABOUT, products::run)
}
