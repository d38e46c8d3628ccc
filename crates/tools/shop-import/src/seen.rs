//! The ids of a file that are numbers or spell one, such as `1000` and `"1000"`.

use std::collections::BTreeMap;

use crate::ids::ForeignId;

/// How many runs of ids are kept per file, at about 80 bytes each. Ids that count up with the lines
/// are one run.
pub(crate) const RUNS_MAX: usize = 250_000;

/// Which line has which number, or its text. Other texts cannot be confused with a number.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The runs by their first number.
    runs: BTreeMap<i128, Run>,
    /// Whether some ids could not be kept.
    pub(crate) is_full: bool,
}

/// Consecutive numbers in consecutive lines.
#[derive(Debug)]
struct Run {
    line: u64,
    length: u64,
    is_text: bool,
}

impl Seen {
    /// Notes the id of a line. Returns an earlier line that has the same number in the other form,
    /// number or text.
    pub(crate) fn note(&mut self, id: &ForeignId, line: u64) -> Option<u64> {
        let number = id.number()?;
        let is_text = matches!(id, ForeignId::Text(_));
        if let Some((first, run)) = self.runs.range_mut(..=number).next_back() {
            let offset = u64::try_from(number - first).unwrap_or(u64::MAX);
            if offset < run.length {
                return (run.is_text != is_text).then(|| run.line + offset);
            }
            let follows = offset == run.length && run.line + offset == line;
            if follows && run.is_text == is_text {
                run.length += 1;
                return None;
            }
        }
        if self.runs.len() >= RUNS_MAX {
            self.is_full = true;
            return None;
        }
        let run = Run {
            line,
            length: 1,
            is_text,
        };
        self.runs.insert(number, run);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(number: i128) -> ForeignId {
        ForeignId::Number(number)
    }

    fn text(text: &str) -> ForeignId {
        ForeignId::Text(text.to_owned())
    }

    #[test]
    fn a_number_and_its_text_are_noticed_in_either_order() {
        let mut seen = Seen::default();
        assert_eq!(seen.note(&number(7), 1), None);
        assert_eq!(seen.note(&number(8), 2), None);
        assert_eq!(seen.note(&text("9"), 3), None);
        assert_eq!(seen.note(&text("8"), 4), Some(2));
        assert_eq!(seen.note(&number(9), 5), Some(3));
        assert_eq!(seen.note(&number(7), 6), None, "a repeated line is none");
        for other in ["", "08", "8.0", " 8", "+8", "ann"] {
            assert_eq!(seen.note(&text(other), 7), None, "{other}");
        }
    }

    #[test]
    fn ids_that_count_up_take_the_room_of_one() {
        let mut seen = Seen::default();
        for line in 1..=100_000 {
            assert_eq!(seen.note(&number(i128::from(line) - 500), line), None);
        }
        assert_eq!((seen.runs.len(), seen.is_full), (1, false));
        assert_eq!(seen.note(&text("-1"), 100_001), Some(499));
    }

    #[test]
    fn other_ids_take_bounded_room() {
        let mut seen = Seen::default();
        let runs = i128::try_from(RUNS_MAX).expect("it fits");
        for id in 0..runs + 10 {
            seen.note(&number(id * 2), 1);
        }
        assert_eq!((seen.runs.len(), seen.is_full), (RUNS_MAX, true));
        assert_eq!(
            seen.note(&text("2"), 9),
            Some(1),
            "what is known stays known"
        );
    }
}
