//! The import against a shop that is played by the test.

mod faults;
mod import;
mod reports;
mod shop;
mod terminal;
mod tool;
mod usage;
