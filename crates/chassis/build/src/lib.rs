//! Compiles `.proto` files to events, in a build script. No `protoc` is needed.
//!
//! # What
//!
//! `build.rs`, with `headwater-build` in `[build-dependencies]`:
//!
//! ```no_run
//! fn main() -> Result<(), headwater_build::Error> {
//!     headwater_build::compile("proto")
//! }
//! ```
//!
//! `proto/reviews/v1/events.proto`:
//!
//! ```proto
//! syntax = "proto3";
//! package shop.reviews.v1;
//! import "headwater/options.proto";
//!
//! message ReviewWritten {
//!   option (headwater.event) = { name: "written" key: "product_id" };
//!   string product_id = 1;
//! }
//! ```
//!
//! The crate's code has them with `headwater::include_events!();`:
//!
//! * a type for each message, as prost generates it; a name that two packages have, or that Rust's
//!   prelude has (`Option`), is used with its package, as in `shop::reviews::v1::ReviewWritten`; of
//!   two versions, the newer one has the short name;
//! * `impl Event` for each event; its subject is `reviews.v1.written`: source and version from the
//!   package, then the name;
//! * an enumeration of each source's events, `ReviewsEvent`, in their newest versions, with
//!   `ReviewsEvent::try_from(&envelope)` for projections to match on;
//! * a constant `SUBJECT` for each question, `inquiry.reviews.v1.<name>`;
//! * `SCHEMA`, for `Service::publish`, and the `DESCRIPTORS` in it;
//! * `key`, the key of any of the events, for `Projection::key`.
//!
//! An event in a later package, `shop.reviews.v2`, with a name that an earlier one has is a new
//! version of that event. The build then needs `impl Upcast<v1::ReviewWritten> for v2::ReviewWritten`
//! in the crate, and projections name the newest only.
//!
//! A message with `option deprecated = true;` is retired: its type is `#[deprecated]`, so that
//! publishing it is a warning, and projections still match its variant.
//!
//! `headwater/options.proto` has the options, each with an example. If one is wrong, the build fails
//! with the file, the line, and what to write.
//!
//! # Descriptors
//!
//! `DESCRIPTORS` holds the options, but neither imports nor contains `headwater/options.proto`:
//! programs that do not know the options skip them, and the schema bucket, which is compared field
//! by field, does not change with a new version of this crate.
//! A program that knows the options, or wants to find the fields marked `personal`, adds the file
//! to its own descriptor pool.

#![warn(missing_docs)]

mod code;
mod descriptors;
mod options;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};

/// Why the build fails: one line per mistake, with the file, the line, and what to write.
#[derive(thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

/// The same as its text: this is what a `main` that returns it prints.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error {
    fn io(what: &str, path: &Path, error: &std::io::Error) -> Self {
        Self(format!("cannot {what} {}: {error}", path.display()))
    }
}

/// Compiles all `.proto` files below `folder`, in which imports are looked up as well.
/// Call it once: a second call replaces the events of the first.
///
/// # Errors
/// There is no such file, a file is not valid, or one of its options is not.
#[expect(clippy::print_stdout, reason = "build scripts talk to Cargo this way")]
pub fn compile(folder: impl AsRef<Path>) -> Result<(), Error> {
    let folder = folder.as_ref();
    println!("cargo::rerun-if-changed={}", folder.display());
    let found = folder.canonicalize();
    let folder = found.map_err(|error| Error::io("find the folder", folder, &error))?;
    let out = std::env::var_os("OUT_DIR");
    let out = out.ok_or_else(|| Error("OUT_DIR is not set: call this in build.rs".to_owned()))?;
    generate(&folder, &PathBuf::from(out))
}

/// On the type of a retired event.
const RETIRED: &str = "#[deprecated = \"retired: old events of this kind are still read, but no new ones published\"]";

/// Writes `headwater-events.rs`, and the files that it includes, to `out`.
/// No package can have one of these names: prost writes a file per package.
fn generate(folder: &Path, out: &Path) -> Result<(), Error> {
    let compiled = descriptors::compile(folder)?;
    let contract = options::read(&compiled)?;
    let write = |name: &str, bytes: &[u8]| {
        let file = out.join(name);
        std::fs::write(&file, bytes).map_err(|error| Error::io("write", &file, &error))
    };
    write(
        "headwater-descriptors.bin",
        &descriptors::without_options(&compiled),
    )?;
    let mut config = prost_build::Config::new();
    for event in contract.events.iter().filter(|event| event.is_retired()) {
        let message = format!(".{}", event.message.full_name());
        config.message_attribute(message, RETIRED);
    }
    config
        .out_dir(out)
        .include_file("headwater-types.rs")
        .compile_fds(descriptors::for_types(&compiled))
        .map_err(|error| Error::io("generate the types in", out, &error))?;
    write(
        "headwater-events.rs",
        code::of(&compiled, &contract).as_bytes(),
    )
}
