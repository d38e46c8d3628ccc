//! The import against a simulated shop.

mod faults;
mod import;
mod reports;
mod shop;
mod terminal;
mod tool;
mod usage;
