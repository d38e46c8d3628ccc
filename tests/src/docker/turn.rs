//! Only one world at a time runs in containers.

use std::sync::{Condvar, Mutex, PoisonError};

/// Whether a world has the turn.
static TAKEN: Mutex<bool> = Mutex::new(false);
static GIVEN_BACK: Condvar = Condvar::new();

/// The exclusive right to run a world in containers, until it is dropped.
///
/// Docker gives the address of an ended container to the next one, and for some seconds the old
/// name still leads there. Services without their broker would find the broker of another test.
#[derive(Debug)]
pub struct Turn(());

impl Turn {
    /// Waits until no other world of this process is in containers.
    pub fn take() -> Self {
        let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = GIVEN_BACK.wait_while(taken, |taken| *taken);
        *taken.unwrap_or_else(PoisonError::into_inner) = true;
        Self(())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) = false;
        GIVEN_BACK.notify_one();
    }
}
