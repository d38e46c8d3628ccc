//! The tool as a process.

use std::ffi::OsStr;

pub(crate) use headwater_testkit::{Ended, Tool};

/// The tool's program.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_headwater");

pub(crate) fn start(args: &[impl AsRef<OsStr>], environment: &[(&str, &str)]) -> Tool {
    Tool::start(PROGRAM, args, environment)
}
