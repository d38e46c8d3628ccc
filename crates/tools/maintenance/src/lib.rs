//! The operator's actions on sources and projections: provision, back up, restore, verify, rebuild,
//! replay, and handle dead letters.

pub use target::Target;

pub mod backup;
pub mod dead_letter;
pub mod own_backup;
pub mod projection;
pub mod provision;
pub mod rebuild;
pub mod replay;
pub mod restore;
pub mod stream;
mod target;
pub mod verify;
mod watch;
