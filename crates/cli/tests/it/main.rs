//! The tool against a shop that is played by the test.

mod connection;
mod dead_letter;
mod decode;
mod document;
mod faults;
mod house;
mod import;
mod locked;
mod played;
mod publish;
mod ready;
mod reports;
mod shop;
mod source;
mod stores;
mod tail;
mod tool;
mod usage;
mod verify;
