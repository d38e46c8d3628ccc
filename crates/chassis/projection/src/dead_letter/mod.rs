//! Dead letters: events that a projection could not apply, and what a person does with them.
//!
//! A letter waits in a **lane**: its event's key. Only the first of a lane is at fault; those
//! behind it wait, so that the key's events are applied in their order, whenever that is. So it is
//! always the first of a lane that is tried again, and after it those that wait, up to the next one
//! that fails. An event whose key cannot be read has a lane for itself: it holds back no other.
//!
//! What a letter holds is what was delivered, which a person may have made or a consumer may have
//! cut. So before it is applied it is compared with its source's outbox, at its position, and gets
//! what that has. An event without a position is in no outbox, and the outbox of a former life is
//! gone: these are applied as they are.

mod carry;
mod check;
pub mod letters;
pub mod park;
mod refusal;
pub mod retry;
mod scope;
mod sql;

pub use crate::dead_letter::carry::{carry_over, only_in};
pub use crate::dead_letter::check::in_outbox;
pub use crate::dead_letter::letters::{Table, at_fault, find, left, list};
pub use crate::dead_letter::park::{
    FirstParked, Identity, Parked, blocked_lanes, count, discarded, first_parked, park,
};
pub use crate::dead_letter::refusal::Refusal;
pub use crate::dead_letter::retry::{Which, discard, retry};
