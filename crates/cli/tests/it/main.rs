//! The tool against a shop that is played by the test.

mod check;
mod connection;
mod dead_letter;
mod doctor;
mod faults;
mod house;
mod import;
mod locked;
mod played;
mod projection;
mod provision;
mod reports;
mod shell;
mod shop;
mod source;
mod status;
mod stores;
mod tool;
mod usage;
mod verify;
