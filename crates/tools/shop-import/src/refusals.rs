//! Failed lines: the first of each reason are printed, the rest are counted, and all are written to
//! the file of errors.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;

use serde::Serialize;
use terminal::Screen;

use crate::ids::ForeignId;
use crate::requests::Failure;

/// How many lines of a file with the same reason are printed.
const SAID_MAX: u64 = 20;

/// How many reasons are distinguished; lines with further reasons are counted together.
const REASONS_MAX: usize = 200;

/// The reason that counts lines with further reasons.
const OTHER: &str = "other reasons";

/// Counts the failed lines.
pub(crate) struct Refusals {
    screen: Screen,
    errors: Option<File>,
    /// The number of lines by file and reason.
    counts: HashMap<(String, String), u64>,
}

/// The lines of a file that failed for the same reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// The file's name as given.
    pub file: String,
    /// What was wrong, with `…` for the parts that differ from line to line.
    pub reason: String,
    /// The number of lines.
    pub lines: u64,
}

/// A line of the file of errors.
#[derive(Serialize)]
struct Error<'a> {
    file: &'a str,
    line: u64,
    /// The id in the input file; `None` if it cannot be read.
    id: Option<&'a ForeignId>,
    reason: &'a str,
    /// The HTTP status of the service's answer, if any.
    status: Option<u16>,
}

impl Refusals {
    pub(crate) fn new(screen: Screen, errors: Option<File>) -> Self {
        Self {
            screen,
            errors,
            counts: HashMap::new(),
        }
    }

    /// Prints or counts a failed line, and writes it to the file of errors.
    pub(crate) fn note(
        &mut self,
        file: &str,
        line: u64,
        id: Option<&ForeignId>,
        failure: &Failure,
    ) {
        let reason = failure.to_string();
        let mut key = (file.to_owned(), kind(&reason));
        if self.counts.len() >= REASONS_MAX && !self.counts.contains_key(&key) {
            OTHER.clone_into(&mut key.1);
        }
        let count = self.counts.entry(key).or_default();
        *count += 1;
        if *count <= SAID_MAX {
            self.screen.say(&format!("{file}:{line}: {reason}"));
        }
        if *count == SAID_MAX {
            let kept = match self.errors {
                Some(_) => "the file of errors has all of them",
                None => "--errors FILE keeps all of them",
            };
            let notice =
                format!("{file}: further lines like the last one are only counted; {kept}");
            self.screen.say(&notice);
        }
        self.keep(&Error {
            file,
            line,
            id,
            reason: &reason,
            status: failure.status(),
        });
    }

    fn keep(&mut self, error: &Error) {
        let Some(file) = &mut self.errors else { return };
        let mut text = serde_json::to_vec(error).expect("texts and numbers always encode");
        text.push(b'\n');
        if let Err(error) = file.write_all(&text) {
            let notice = format!("cannot write to the file of errors, it ends here: {error}");
            self.screen.say(&notice);
            self.errors = None;
        }
    }

    /// Prints the counts of lines not shown, and returns all counts, the most frequent first.
    pub(crate) fn sums(&self) -> Vec<Refused> {
        let counts = self.counts.iter();
        let mut sums: Vec<_> = counts
            .map(|((file, reason), lines)| Refused {
                file: file.clone(),
                reason: reason.clone(),
                lines: *lines,
            })
            .collect();
        sums.sort_by(|a, b| (b.lines, &a.file, &a.reason).cmp(&(a.lines, &b.file, &b.reason)));
        for sum in sums.iter().filter(|sum| sum.lines > SAID_MAX) {
            let Refused {
                file,
                reason,
                lines,
            } = sum;
            let more = lines - SAID_MAX;
            self.screen
                .say(&format!("{file}: {more} more lines: {reason}"));
        }
        sums
    }
}

/// The reason without the parts that differ from line to line: quoted texts, and words with a
/// digit.
fn kind(reason: &str) -> String {
    let (mut kind, mut rest) = (String::with_capacity(reason.len()), reason);
    // The status is a number too.
    if let Some(end) = reason.find(": ").filter(|end| *end < 40) {
        kind.push_str(&reason[..end]);
        rest = &reason[end..];
    }
    while let Some(c) = rest.chars().next() {
        let quoted = matches!(c, '"' | '`').then(|| rest[1..].find(c)).flatten();
        if let Some(end) = quoted {
            kind.push('…');
            rest = &rest[end + 2..];
        } else if c.is_alphanumeric() {
            let end = rest.find(|c: char| !(c.is_alphanumeric() || "-_@.".contains(c)));
            let (word, tail) = rest.split_at(end.unwrap_or(rest.len()));
            let differs = word.contains(|c: char| c.is_ascii_digit()) || word.contains('@');
            kind.push_str(if differs { "…" } else { word });
            rest = tail;
        } else {
            kind.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    kind
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_that_differ_in_ids_and_values_are_the_same() {
        let kinds = [
            (
                "422 Unprocessable Entity: user 0198c0de-0000-7000-8000-00000000abcd is unknown",
                "422 Unprocessable Entity: user … is unknown",
            ),
            (
                "409 Conflict: the e-mail ann@example.org is taken",
                "409 Conflict: the e-mail … is taken",
            ),
            (
                "unknown field `age`, expected one of `id`, `name` (column 15)",
                "unknown field …, expected one of …, … (column …)",
            ),
            ("not UTF-8", "not …"),
            ("a \"quote without end", "a \"quote without end"),
        ];
        for (reason, expected) in kinds {
            assert_eq!(kind(reason), expected);
        }
    }
}
