//! Compiles `proto/` with protox (pure Rust: no protoc to install) and keeps the descriptor set.

use std::path::Path;

use anyhow::Context as _;
use prost::Message as _;

const FILES: [&str; 6] = [
    "users/v1/events.proto",
    "users/v1/inquiry.proto",
    "products/v1/events.proto",
    "products/v1/inquiry.proto",
    "orders/v1/events.proto",
    "orders/v1/inquiry.proto",
];

fn main() -> anyhow::Result<()> {
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../proto");
    println!("cargo::rerun-if-changed={}", proto.display());
    let descriptors = protox::compile(FILES, [proto]).context("compile proto/")?;
    let out = std::env::var("OUT_DIR").context("find OUT_DIR")?;
    std::fs::write(
        Path::new(&out).join("descriptors.bin"),
        descriptors.encode_to_vec(),
    )
    .context("write the descriptor set")?;
    prost_build::Config::new()
        .include_file("mod.rs")
        .compile_fds(descriptors)
        .context("generate the types")
}
