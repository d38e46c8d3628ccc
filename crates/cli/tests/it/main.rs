//! The tool against a shop that is played by the test.

mod check;
mod connection;
mod dead_letter;
mod decode;
mod doctor;
mod document;
mod faults;
mod foreign;
mod house;
mod import;
mod locked;
mod played;
mod projection;
mod provision;
mod publish;
mod ready;
mod reports;
mod shell;
mod shop;
mod source;
mod status;
mod stores;
mod tail;
mod tool;
mod usage;
mod verify;
