//! Rows in columns.

use std::fmt::{self, Display, Formatter};

/// A table without rules. Its last column may be of any width.
#[derive(Debug)]
pub struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    pub fn new(head: [&str; N]) -> Self {
        Self {
            rows: vec![head.map(str::to_owned)],
        }
    }

    pub fn row(&mut self, row: [String; N]) {
        self.rows.push(row);
    }

    /// The heads of the columns, and the rows.
    pub fn parts(&self) -> (&[String; N], &[[String; N]]) {
        let (head, rows) = self.rows.split_first().expect("`new` adds the head");
        (head, rows)
    }
}

impl<const N: usize> Display for Table<N> {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or(0)
        };
        for row in &self.rows {
            let cells = row.iter().enumerate();
            let cells =
                cells.map(|(column, cell)| format!("{cell:<width$}", width = width(column)));
            writeln!(f, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// A count, or `?` if unknown.
pub fn count(count: Option<u64>) -> String {
    count.map_or_else(|| "?".to_owned(), |count| count.to_string())
}

/// An age or a lag: `0 s`, `1.2 s`, `3 min 20 s`, `2 h 5 min`.
pub fn age(seconds: Option<f64>) -> String {
    let Some(seconds) = seconds else {
        return "?".to_owned();
    };
    if seconds < 60.0 {
        let tenths = format!("{seconds:.1}");
        return format!("{} s", tenths.trim_end_matches(".0"));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a positive number of seconds"
    )]
    let whole = seconds as u64;
    match (whole / 86400, whole / 3600, whole / 60) {
        (0, 0, minutes) => format!("{minutes} min {} s", whole % 60),
        (0, hours, _) => format!("{hours} h {} min", whole / 60 % 60),
        (days, hours, _) => format!("{days} d {} h", hours % 24),
    }
}

/// Bytes: `12 B`, `3.4 KiB`, `1.2 GiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let (mut tenths, mut unit) = (u128::from(bytes) * 10 / 1024, 0);
    while tenths >= 10240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_blanks_at_their_end() {
        let mut table = Table::new(["NAME", "EVENTS"]);
        table.row(["a".to_owned(), "1".to_owned()]);
        table.row(["longer".to_owned(), String::new()]);
        assert_eq!(table.to_string(), "NAME    EVENTS\na       1\nlonger\n");
    }

    #[test]
    fn ages_and_sizes_are_for_people() {
        let ages = [0.0, 1.24, 59.0, 60.0, 200.0, 7500.0, 90_000.0].map(|s| age(Some(s)));
        let expected = [
            "0 s",
            "1.2 s",
            "59 s",
            "1 min 0 s",
            "3 min 20 s",
            "2 h 5 min",
            "1 d 1 h",
        ];
        assert_eq!(ages, expected);
        assert_eq!((age(None), count(None)), ("?".to_owned(), "?".to_owned()));
        let sizes = [0, 1023, 1024, 1536, 1024 * 1024 * 1024].map(bytes);
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 GiB"]);
    }
}
