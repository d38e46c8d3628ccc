//! The tool against a shop that is played by the test.

mod faults;
mod import;
mod reports;
mod shop;
mod source;
mod tool;
mod usage;
mod verify;
