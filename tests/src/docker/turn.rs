//! One world in containers at a time.

use std::sync::{Condvar, Mutex, PoisonError};

/// Whether a world has its turn.
static TAKEN: Mutex<bool> = Mutex::new(false);
static GIVEN_BACK: Condvar = Condvar::new();

/// The right to be the world that is in containers, until it is dropped.
///
/// The engine gives the address of a container that has ended to the next that starts, and for
/// some seconds the name of the one still leads there: services whose broker is away would find
/// the broker of another test.
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
