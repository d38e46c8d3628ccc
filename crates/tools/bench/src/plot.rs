//! The plot: how far each ratio reaches its target, as horizontal bars.

use std::fmt::Write as _;

use crate::figure::Ratio;
use crate::figures;
use crate::report::Report;
use crate::table::short;

/// The left end of the bars, in the drawing's units.
const LEFT: f64 = 400.0;
/// The length of a bar that reaches its target.
const TARGET: f64 = 200.0;
/// The longest bar, in targets; longer bars are cut off and marked.
const SCORE_MAX: f64 = 1.6;
/// The position of the numbers, to the right of the longest bar.
const NUMBERS: f64 = LEFT + SCORE_MAX * TARGET + 14.0;
/// The width of the drawing.
const WIDTH: f64 = 900.0;
/// The distance between two bars.
const STEP: f64 = 26.0;
/// The position of the first bar.
const TOP: f64 = 52.0;

/// Readable on white and on black, in the reader's font.
const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#1f2328}\
.faint{fill:#59636e}.met{fill:#2c7a4b}.missed{fill:#b35900}.line{stroke:#59636e;stroke-dasharray:3 3}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.faint{fill:#9198a1}.met{fill:#3fb46c}\
.missed{fill:#e0803a}.line{stroke:#9198a1}}";

/// All ratios of `report` that have a target, as an SVG document.
pub(crate) fn svg(report: &Report) -> String {
    let measured = figures::ALL.iter().filter_map(|it| report.best(it.name));
    let bars: Vec<(&str, &Ratio)> = measured
        .flat_map(|it| {
            it.figure
                .ratios
                .iter()
                .map(|ratio| (it.name.as_str(), ratio))
        })
        .filter(|(_, ratio)| ratio.score().is_some())
        .collect();
    let bottom = bars.iter().fold(TOP, |y, _| y + STEP);
    let height = bottom + 12.0;
    let target = LEFT + TARGET;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-label=\"Each ratio against its target\">\n<style>{STYLE}</style>\n\
         <text x=\"{target}\" y=\"20\" text-anchor=\"middle\">target</text>\n\
         <text class=\"faint\" x=\"{target}\" y=\"37\" text-anchor=\"middle\">better →</text>\n"
    );
    for ((figure, ratio), row) in bars.into_iter().zip(0_u32..) {
        bar(&mut svg, figure, ratio, TOP + STEP * f64::from(row));
    }
    let _ = writeln!(
        svg,
        "<line class=\"line\" x1=\"{target}\" x2=\"{target}\" y1=\"44\" y2=\"{bottom}\"/>\n</svg>"
    );
    svg
}

fn bar(svg: &mut String, figure: &str, ratio: &Ratio, y: f64) {
    let score = ratio
        .score()
        .filter(|score| score.is_finite())
        .unwrap_or(0.0);
    let width = score.clamp(0.0, SCORE_MAX) * TARGET;
    let beyond = if score > SCORE_MAX { " »" } else { "" };
    let (name, verdict) = (escaped(&ratio.name), ratio.verdict());
    let (median, target) = (short(ratio.median), escaped(&ratio.target.to_string()));
    let (text_y, name_x) = (y + 13.0, LEFT - 10.0);
    let _ = writeln!(
        svg,
        "<text class=\"faint\" x=\"8\" y=\"{text_y}\">{figure}</text>\
         <text x=\"{name_x}\" y=\"{text_y}\" text-anchor=\"end\">{name}</text>\
         <rect class=\"{verdict}\" x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" height=\"17\" rx=\"2\"/>\
         <text x=\"{NUMBERS}\" y=\"{text_y}\">{median} <tspan class=\"faint\">{target}{beyond}</tspan></text>"
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Form;
    use crate::figure::{Figure, Table, Target};
    use crate::machine::Machine;
    use crate::report::Measured;

    fn report(ratios: Vec<Ratio>) -> Report {
        let table = Table::new("x", &[]);
        let figure = Figure {
            table,
            ratios,
            notes: Vec::new(),
        };
        let measured = Measured {
            name: "reads".to_owned(),
            form: Form::Full,
            machine: Machine::default(),
            figure,
        };
        Report {
            figures: vec![measured],
        }
    }

    /// Checks that all tags are closed in order, and that there is no stray `<` or `&`.
    fn assert_well_formed(svg: &str) {
        let mut open = Vec::new();
        let mut pieces = svg.split('<');
        assert_eq!(pieces.next(), Some(""));
        for piece in pieces {
            let (tag, text) = piece.split_once('>').expect("a tag ends");
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name));
            } else if !tag.ends_with('/') {
                open.push(tag.split(' ').next().unwrap());
            }
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            for entity in text.split('&').skip(1) {
                assert!(
                    ["lt;", "gt;", "amp;"]
                        .iter()
                        .any(|it| entity.starts_with(it)),
                    "{text}"
                );
            }
        }
        assert!(open.is_empty(), "{open:?}");
    }

    #[test]
    fn the_plot_is_well_formed_and_has_a_bar_for_each_target() {
        let svg = svg(&report(vec![
            Ratio::over("a <b> & c", vec![0.5], Target::AtLeast(0.9)),
            Ratio::over("p99", vec![f64::INFINITY], Target::AtMost(1.2)),
            Ratio::over("far beyond", vec![99.0], Target::AtLeast(1.0)),
            Ratio::over("only said", vec![1.0], Target::None),
        ]));
        assert_well_formed(&svg);
        assert_eq!(svg.matches("<rect").count(), 3);
        assert!(svg.contains("a &lt;b&gt; &amp; c"));
        assert!(svg.contains("prefers-color-scheme:dark"));
    }

    #[test]
    fn a_plot_of_nothing_is_well_formed() {
        assert_well_formed(&svg(&Report::default()));
    }
}
