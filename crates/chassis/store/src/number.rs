//! Positions and sequences as columns: SQLite's integers are signed.

/// A position or sequence as a database column holds it: SQLite's integers are signed.
pub fn signed(number: u64) -> i64 {
    i64::try_from(number).expect("fewer than 2^63 events")
}

/// The way back from [`signed`].
pub fn unsigned(number: i64) -> u64 {
    u64::try_from(number).expect("positions and sequences are never negative")
}
