//! Generated tables in documents, between `<!-- bench:NAME -->` and `<!-- /bench:NAME -->`.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::plot;
use crate::report::Report;
use crate::table::markdown;

/// The path of the plot in the workspace.
const PLOT: &str = "docs/figures.svg";

/// Writes the figures of `report` to all documents with markers, and the plot. Returns the changed
/// files.
pub(crate) fn write(root: &Path, report: &Report) -> anyhow::Result<Vec<PathBuf>> {
    let mut changed = Vec::new();
    for path in documents(root)? {
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let new = replace(&text, |name| report.best(name).map(markdown))
            .with_context(|| format!("in {}", path.display()))?;
        put(&path, &text, &new, &mut changed)?;
    }
    let path = root.join(PLOT);
    let old = fs::read_to_string(&path).unwrap_or_default();
    put(&path, &old, &plot::svg(report), &mut changed)?;
    Ok(changed)
}

fn put(path: &Path, old: &str, new: &str, changed: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    if old != new {
        fs::write(path, new).with_context(|| format!("write {}", path.display()))?;
        changed.push(path.to_owned());
    }
    Ok(())
}

/// The Markdown files at the root and in `docs`.
fn documents(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut documents = Vec::new();
    for folder in [root.to_owned(), root.join("docs")] {
        let failed = || format!("list {}", folder.display());
        for entry in fs::read_dir(&folder).with_context(failed)? {
            let path = entry.with_context(failed)?.path();
            if path.extension().is_some_and(|extension| extension == "md") {
                documents.push(path);
            }
        }
    }
    documents.sort();
    Ok(documents)
}

/// Replaces the text between the markers of each name by what `table` returns; without a table, the
/// text stays.
fn replace(text: &str, table: impl Fn(&str) -> Option<String>) -> anyhow::Result<String> {
    let mut new = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("<!-- bench:") {
        let Some((name, after)) = after.split_once(" -->") else {
            bail!("a marker `<!-- bench:` has no end");
        };
        let end = format!("<!-- /bench:{name} -->");
        let Some((old, after)) = after.split_once(&end) else {
            bail!("the marker of `{name}` has no `{end}` after it");
        };
        let inside = table(name).map_or_else(|| old.to_owned(), |table| format!("\n{table}"));
        let _ = write!(new, "{before}<!-- bench:{name} -->{inside}{end}");
        rest = after;
    }
    new.push_str(rest);
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{args, figures};

    #[test]
    fn every_figure_has_its_place_in_the_documents() {
        let page = args::workspace().join("docs/figures.md");
        let page = fs::read_to_string(page).unwrap();
        for entry in figures::ALL {
            let marker = format!("<!-- bench:{} -->", entry.name);
            assert!(page.contains(&marker), "no {marker}");
        }
    }

    fn table(name: &str) -> Option<String> {
        (name == "reads").then(|| "| new |\n".to_owned())
    }

    #[test]
    fn what_is_between_the_markers_is_replaced_and_nothing_else() {
        let text = "a\n<!-- bench:reads -->\n| old |\n<!-- /bench:reads -->\nb\n";
        let new = "a\n<!-- bench:reads -->\n| new |\n<!-- /bench:reads -->\nb\n";
        assert_eq!(replace(text, table).unwrap(), new);
        assert_eq!(replace(new, table).unwrap(), new, "again changes nothing");
        assert_eq!(replace("no marker", table).unwrap(), "no marker");
    }

    #[test]
    fn a_figure_that_was_not_measured_stays_as_it_is() {
        let text = "<!-- bench:relay -->\n| old |\n<!-- /bench:relay --> and \
                    <!-- bench:reads --><!-- /bench:reads -->";
        let new = "<!-- bench:relay -->\n| old |\n<!-- /bench:relay --> and \
                   <!-- bench:reads -->\n| new |\n<!-- /bench:reads -->";
        assert_eq!(replace(text, table).unwrap(), new);
    }

    #[test]
    fn a_marker_without_an_end_is_an_error_that_names_it() {
        let error = replace("<!-- bench:reads -->\n| old |\n", table).unwrap_err();
        assert!(error.to_string().contains("/bench:reads"), "{error}");
        assert!(replace("<!-- bench:reads", table).is_err());
    }
}
