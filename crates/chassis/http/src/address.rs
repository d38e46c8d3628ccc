//! What a listener remembers of an address: the answers that its clients do not take, its debt, and
//! whose turn it is.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// The share of the memory for answers that may be [untaken](UNTAKEN) at one address.
pub(super) const ADDRESS_SHARE: usize = 8;

/// The answer of a client that has taken nothing for this long is untaken.
pub(super) const UNTAKEN: Duration = Duration::from_millis(100);

/// A client that took something of its answer so recently is slow; the answer is not untaken.
pub(super) const SLOW: Duration = Duration::from_secs(5);

/// The most bytes that one connection adds to the debt of its address.
const DEBT_BYTES_MAX: usize = 64 * 1024;

/// The bytes per second by which the debt of an address decreases.
const REPAID: usize = 1024 * 1024;

/// The longest time until an address has no more debt.
const DEBT_MAX: Duration = Duration::from_mins(1);

/// The longest that a request waits, and at least half of it, until its address has taken enough before it becomes a 503.
pub(super) const TURN_MAX: Duration = Duration::from_secs(5);

/// How often a waiting request checks, and the time between the first two that go on at one address:
/// long enough to see whether the first answer is taken.
pub(super) const TURN_PAUSE: Duration = Duration::from_millis(250);

/// What is known of an address while it has connections or debt.
#[derive(Debug, Default)]
pub(super) struct Address {
    pub(super) connections: AtomicUsize,
    /// The bytes of the answers of clients that take nothing at the moment.
    pub(super) waiting: AtomicUsize,
    /// When the next of its waiting requests may go on. Times are in milliseconds since the listener
    /// started.
    next_turn: AtomicU64,
    /// The time between two turns, in milliseconds. It halves with each while answers are taken.
    turn_ms: AtomicU64,
    /// When its debt is repaid: the bytes that its clients had not taken when their connections were
    /// closed.
    repaid_at: AtomicU64,
}

impl Address {
    /// Whether none of its requests had to wait a moment ago.
    pub(super) fn has_no_turns(&self, now: u64) -> bool {
        self.next_turn.load(Ordering::Relaxed) <= now
    }

    /// Lets one waiting request go on; false if another one just did.
    pub(super) fn take_turn(&self, now: u64) -> bool {
        let pause = self.turn_ms.load(Ordering::Relaxed);
        let later = |next: u64| (next <= now).then_some(now + pause);
        let order = Ordering::Relaxed;
        let is_taken = self.next_turn.fetch_update(order, order, later).is_ok();
        if is_taken {
            self.turn_ms.store(pause / 2, order);
        }
        is_taken
    }

    /// Its answers are not taken.
    pub(super) fn slow_turns(&self) {
        self.turn_ms.store(millis(TURN_PAUSE), Ordering::Relaxed);
    }

    /// Adds what a client had not taken when its connection was closed.
    pub(super) fn owe(&self, bytes: usize, now: u64) {
        let bytes = bytes.min(DEBT_BYTES_MAX);
        let ms = u64::try_from(bytes * 1000 / REPAID).unwrap_or(u64::MAX);
        let latest = now.saturating_add(millis(DEBT_MAX));
        let more = |at: u64| Some(at.max(now).saturating_add(ms).min(latest));
        let order = Ordering::Relaxed;
        let _ = self.repaid_at.fetch_update(order, order, more);
    }

    /// The time until its debt is repaid.
    pub(super) fn debt_ms(&self, now: u64) -> u64 {
        self.repaid_at.load(Ordering::Relaxed).saturating_sub(now)
    }

    /// Its debt in bytes.
    pub(super) fn debt(&self, now: u64) -> usize {
        let ms = usize::try_from(self.debt_ms(now)).unwrap_or(usize::MAX);
        ms.saturating_mul(REPAID / 1000)
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1024;

    #[test]
    fn a_debt_is_capped_for_each_connection_and_forgiven_with_time() {
        let address = Address::default();
        assert_eq!(address.debt(0), 0);
        address.owe(2 * KIB * KIB, 1_000);
        let owed = address.debt(1_000);
        assert!((63 * KIB..=64 * KIB).contains(&owed), "{owed}");
        address.owe(KIB, 1_000);
        assert!(address.debt(1_000) >= owed);
        assert_eq!(address.debt_ms(1_100), 0);
        for _ in 0..2_000 {
            address.owe(64 * KIB, 2_000);
        }
        assert_eq!(address.debt_ms(2_000), millis(DEBT_MAX));
    }

    #[test]
    fn waiting_requests_go_on_one_by_one_and_ever_faster_while_answers_are_taken() {
        let address = Address::default();
        assert!(address.has_no_turns(0));
        address.slow_turns();
        assert!(address.take_turn(1_000));
        assert!(!address.take_turn(1_000), "two at once");
        assert!(!address.has_no_turns(1_249) && address.has_no_turns(1_250));
        assert!(address.take_turn(1_250));
        assert!(!address.take_turn(1_374) && address.take_turn(1_375));
        // Untaken again.
        address.slow_turns();
        assert!(address.take_turn(2_000));
        assert!(!address.take_turn(2_249) && address.take_turn(2_250));
    }
}
