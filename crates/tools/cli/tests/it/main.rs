//! The tool against a simulated shop.

mod check;
mod connection;
mod dead_letter;
mod decode;
mod direct;
mod doctor;
mod document;
mod foreign;
mod house;
mod json;
mod locked;
mod moved;
mod new;
mod played;
mod projection;
mod provision;
mod publish;
mod ready;
mod restore;
mod shell;
mod source;
mod status;
mod stores;
mod tail;
mod tool;
mod verify;
