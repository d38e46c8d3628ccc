//! Compiles the events, as `crates/shop/shop-events/build.rs` does.

use std::path::Path;

use anyhow::Context as _;
use prost::Message as _;

fn main() -> anyhow::Result<()> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(["reviews/v1/events.proto"], ["proto"])?;
    let out = std::env::var("OUT_DIR").context("find OUT_DIR")?;
    let file = Path::new(&out).join("descriptors.bin");
    std::fs::write(file, descriptors.encode_to_vec()).context("write the descriptor set")?;
    prost_build::Config::new()
        .include_file("mod.rs")
        .compile_fds(descriptors)
        .context("generate the types")
}
