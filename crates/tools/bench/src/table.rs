//! Figures as text: for the terminal and in Markdown.

use std::fmt::Write as _;

use crate::figure::{Figure, Ratio, Table};
use crate::report::{Measured, Regression};

/// A table of text: the head, then the rows.
type Cells = Vec<Vec<String>>;

/// A figure for the terminal.
pub(crate) fn plain(figure: &Figure) -> String {
    let mut text = aligned(&cells(&figure.table));
    if !figure.ratios.is_empty() {
        text.push('\n');
        text.push_str(&aligned(&ratio_cells(&figure.ratios)));
    }
    for note in &figure.notes {
        let _ = writeln!(text, "  {note}");
    }
    text
}

/// A figure for a document.
pub(crate) fn markdown(measured: &Measured) -> String {
    let Measured {
        name,
        form,
        machine,
        figure,
    } = measured;
    let mut text = pipes(&cells(&figure.table));
    if !figure.ratios.is_empty() {
        text.push('\n');
        text.push_str(&pipes(&ratio_cells(&figure.ratios)));
    }
    text.push('\n');
    for note in &figure.notes {
        let _ = writeln!(text, "* {note}");
    }
    let form = form.name();
    let _ = writeln!(
        text,
        "\n`just bench {form} --only {name} --docs`: {machine}."
    );
    text
}

/// A description of a regression.
pub(crate) fn worse(regression: &Regression) -> String {
    let Regression {
        figure,
        before,
        now,
    } = regression;
    format!(
        "REGRESSION {figure}: {}: {} ({}), was {} ({})",
        now.name,
        short(now.median),
        spread(now),
        short(before.median),
        spread(before),
    )
}

fn cells(table: &Table) -> Cells {
    let head = table.columns.iter().map(|column| column.name.clone());
    let mut cells = vec![[table.of.clone()].into_iter().chain(head).collect()];
    for row in &table.rows {
        let numbers = row.cells.iter().zip(&table.columns).map(|(cell, column)| {
            cell.map_or_else(|| "–".to_owned(), |number| grouped(number, column.decimals))
        });
        cells.push([row.name.clone()].into_iter().chain(numbers).collect());
    }
    cells
}

fn ratio_cells(ratios: &[Ratio]) -> Cells {
    let head = ["ratio", "median", "of all rounds", "target", ""].map(str::to_owned);
    let rows = ratios.iter().map(|ratio| {
        vec![
            ratio.name.clone(),
            short(ratio.median),
            spread(ratio),
            ratio.target.to_string(),
            ratio.verdict().to_owned(),
        ]
    });
    [head.to_vec()].into_iter().chain(rows).collect()
}

fn spread(ratio: &Ratio) -> String {
    format!("{} to {}", short(ratio.lowest), short(ratio.highest))
}

/// A ratio with two decimals, or one from 10 on.
pub(crate) fn short(ratio: f64) -> String {
    if ratio < 10.0 {
        format!("{ratio:.2}")
    } else {
        format!("{ratio:.1}")
    }
}

/// A number with a thousands separator: `12,345.6`.
pub(crate) fn grouped(number: f64, decimals: usize) -> String {
    let text = format!("{number:.decimals$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut out = String::new();
    for (index, digit) in whole.chars().enumerate() {
        let is_apart = index > 0 && (whole.len() - index).is_multiple_of(3);
        if is_apart && digit.is_ascii_digit() && !out.ends_with('-') {
            out.push(',');
        }
        out.push(digit);
    }
    out + rest
}

/// Aligned columns: names to the left, numbers to the right.
fn aligned(cells: &Cells) -> String {
    let width = |column: usize| {
        let lengths = cells.iter().map(|row| row[column].chars().count());
        lengths.max().unwrap_or(0)
    };
    let mut text = String::new();
    for row in cells {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = width(column);
            let _ = match column {
                0 => write!(line, "  {cell:<width$}"),
                _ => write!(line, "  {cell:>width$}"),
            };
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

fn pipes(cells: &Cells) -> String {
    let mut text = String::new();
    for (index, row) in cells.iter().enumerate() {
        let _ = writeln!(text, "| {} |", row.join(" | "));
        if index == 0 {
            let rules = (0..row.len()).map(|column| if column == 0 { "---" } else { "---:" });
            let _ = writeln!(text, "| {} |", rules.collect::<Vec<_>>().join(" | "));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_apart() {
        for (number, decimals, text) in [
            (0.0, 0, "0"),
            (999.4, 0, "999"),
            (1234.0, 0, "1,234"),
            (1_234_567.89, 1, "1,234,567.9"),
            (-123.0, 0, "-123"),
        ] {
            assert_eq!(grouped(number, decimals), text);
        }
    }

    #[test]
    fn columns_stand_under_each_other() {
        let mut table = Table::new("clients", &[("p50 ms", 2)]);
        table.row("1", &[0.5]);
        table.row("sixty-four", &[10.0]);
        let figure = Figure {
            table,
            ratios: Vec::new(),
            notes: vec!["said".to_owned()],
        };
        let expected = "  clients     p50 ms\n  1             0.50\n  sixty-four   10.00\n  said\n";
        assert_eq!(plain(&figure), expected);
    }

    #[test]
    fn markdown_has_a_rule_under_the_head() {
        let mut table = Table::new("clients", &[("p50 ms", 2)]);
        table.row("1", &[0.5]);
        assert_eq!(
            pipes(&cells(&table)),
            "| clients | p50 ms |\n| --- | ---: |\n| 1 | 0.50 |\n"
        );
    }
}
