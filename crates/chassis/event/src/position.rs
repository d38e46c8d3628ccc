//! Positions as clients see them: `orders:4711`, and lists of them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The number of an event within its source: 1, 2, 3 …, without holes. `0` is before the first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The source.
    pub source: String,
    /// The number.
    pub position: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.source, self.position)
    }
}

/// One position per source, as in `orders:4711,users:12`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Positions(pub BTreeMap<String, u64>);

impl Positions {
    /// The position of `source`; 0 if there is none.
    pub fn get(&self, source: &str) -> u64 {
        self.0.get(source).copied().unwrap_or(0)
    }

    /// Whether there is no position.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether every position in `asked` has been reached.
    pub fn reach(&self, asked: &Positions) -> bool {
        asked.0.iter().all(|(source, &p)| self.get(source) >= p)
    }
}

impl fmt::Display for Positions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (source, position)) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{source}:{position}")?;
        }
        Ok(())
    }
}

/// A list of positions that is not `source:number[,source:number …]`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "`{0}` is not a position: write source:number, several with commas, such as orders:4711,users:12"
)]
pub struct NotPositions(String);

impl FromStr for Positions {
    type Err = NotPositions;

    /// If a source occurs twice, the higher position counts.
    fn from_str(text: &str) -> Result<Self, NotPositions> {
        let mut positions = BTreeMap::new();
        for part in text.split(',').map(str::trim) {
            let (source, number) = part
                .split_once(':')
                .filter(|(source, _)| !source.is_empty())
                .ok_or_else(|| NotPositions(part.to_owned()))?;
            let number: u64 = number.parse().map_err(|_| NotPositions(part.to_owned()))?;
            let highest = positions.entry(source.to_owned()).or_insert(number);
            *highest = number.max(*highest);
        }
        Ok(Self(positions))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_as_they_are_written() {
        let positions: Positions = "orders:4711,users:12".parse().unwrap();
        assert_eq!(positions.get("orders"), 4711);
        assert_eq!(positions.get("products"), 0);
        assert_eq!(positions.to_string(), "orders:4711,users:12");
        assert_eq!(
            "users:3,users:12"
                .parse::<Positions>()
                .unwrap()
                .get("users"),
            12
        );
    }

    #[test]
    fn what_is_not_a_position_is_named() {
        for wrong in [
            "",
            "orders",
            ":4",
            "orders:",
            "orders:-1",
            "orders:1;users:2",
            "a:1,,b:2",
        ] {
            assert!(
                wrong.parse::<Positions>().is_err(),
                "{wrong:?} was accepted"
            );
        }
    }

    #[test]
    fn reaching_needs_every_source() {
        let at: Positions = "a:5,b:2".parse().unwrap();
        assert!(at.reach(&"a:5".parse().unwrap()));
        assert!(!at.reach(&"a:5,b:3".parse().unwrap()));
        assert!(!at.reach(&"c:1".parse().unwrap()));
        assert!(at.reach(&Positions::default()));
    }
}
