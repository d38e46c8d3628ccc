//! Dead letters: events that a projection could not apply, and what an operator does with them.
//!
//! A letter waits under a **blocked key**, its event's key. Only the first letter of a key is at
//! fault. The others wait behind it, so that the key's events are applied in order. A retry always
//! begins with the first letter of a key, and continues with those that wait, up to the next one
//! that fails. An event whose key cannot be read gets its own key and blocks no other event.
//!
//! A letter holds the delivered event, which may be forged, or cut by the consumer's settings. So
//! before it is applied, it is compared with its source's outbox, at its position, and takes the
//! outbox's content. An event without a position is in no outbox, and the outbox of a former epoch
//! is gone: these are applied as they are.

mod carry;
mod check;
pub mod insert;
pub mod letters;
mod refusal;
pub mod retry;
mod scope;
mod sql;

pub use crate::dead_letter::carry::{carry_over, only_in};
pub use crate::dead_letter::check::in_outbox;
pub use crate::dead_letter::insert::{
    FirstLetter, Identity, NewLetter, blocked_keys, count, discarded, first_parked, insert,
};
pub use crate::dead_letter::letters::{Table, at_fault, find, left, list};
pub use crate::dead_letter::refusal::Refusal;
pub use crate::dead_letter::retry::{Which, discard, retry};
