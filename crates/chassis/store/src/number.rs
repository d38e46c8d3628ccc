//! Positions and sequences as columns: SQLite's integers are signed.

/// A position or sequence as stored in a column.
pub fn signed(number: u64) -> i64 {
    i64::try_from(number).expect("fewer than 2^63 events")
}

/// The inverse of [`signed`].
pub fn unsigned(number: i64) -> u64 {
    u64::try_from(number).expect("positions and sequences are never negative")
}
