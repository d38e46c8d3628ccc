//! What operators do about sources and projections: provision, back up, restore, verify, rebuild,
//! and what becomes of dead letters.

pub mod backup;
pub mod dead_letter;
mod fold;
pub mod projection;
pub mod provision;
pub mod rebuild;
pub mod restore;
pub mod stream;
mod target;
pub mod verify;
