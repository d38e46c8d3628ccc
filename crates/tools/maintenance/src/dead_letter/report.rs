//! The output of `headwater dead-letter`.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use headwater::Clock;
use headwater::operator::{DiscardAnswer, DiscardManyAnswer, InOutbox, Letter, RetryAnswer};
use serde::Serialize;
use terminal::output::printable;

/// Bytes per line of a dump.
const DUMP_LINE: usize = 16;

/// The letters of one or several services.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Listed(BTreeMap<String, Page>);

#[derive(Debug, Serialize)]
struct Page {
    /// The number of letters, including those not listed.
    total: u64,
    letters: Vec<Letter>,
}

impl Listed {
    pub(crate) fn add(&mut self, service: String, letters: Vec<Letter>, total: u64) {
        self.0.insert(service, Page { total, letters });
    }
}

impl Display for Listed {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let total: u64 = self.0.values().map(|page| page.total).sum();
        if total == 0 {
            return f.write_str("there are none");
        }
        let mut first = true;
        for (service, page) in self.0.iter().filter(|(_, page)| page.total > 0) {
            if !std::mem::take(&mut first) {
                writeln!(f)?;
            }
            write!(f, "{service}: {}", page.total)?;
            for letter in &page.letters {
                write!(f, "\n  {}", line(letter))?;
            }
            let left = page.total.saturating_sub(page.letters.len() as u64);
            if left > 0 {
                write!(f, "\n  and {left} more; use --limit to list them")?;
            }
        }
        Ok(())
    }
}

/// A letter in one line.
pub fn line(letter: &Letter) -> String {
    let (id, origin, subject, key) = (letter.id, origin(letter), &letter.subject, &letter.lane);
    let why = if letter.waiting {
        "waits behind a dead letter"
    } else {
        &letter.reason
    };
    let because = letter.discarded_because.as_ref();
    let because = because.map(|because| format!("; discarded: {because}"));
    let because = because.unwrap_or_default();
    printable(&format!("{id} {origin} {subject} ({key}): {why}{because}"))
}

/// The origin of a letter's event: `orders:4711`.
fn origin(letter: &Letter) -> String {
    let source = &letter.source;
    match (letter.position, letter.sequence) {
        (Some(position), _) => format!("{source}:{position}"),
        (None, Some(sequence)) => format!("{source} (by hand, sequence {sequence})"),
        (None, None) => source.clone(),
    }
}

/// One letter with all its details.
#[derive(Debug, Serialize)]
pub(crate) struct Shown {
    pub(crate) service: String,
    #[serde(flatten)]
    pub(crate) letter: Letter,
}

impl Display for Shown {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let letter = &self.letter;
        let mut row = |name: &str, value: &str| writeln!(f, "{name:12}{}", printable(value));
        row("id", &letter.id.to_string())?;
        row("service", &self.service)?;
        row("projection", &letter.projection)?;
        row("event", &origin(letter))?;
        row("epoch", letter.epoch.as_deref().unwrap_or("none"))?;
        if let Some(sequence) = letter.sequence {
            row("sequence", &sequence.to_string())?;
        }
        row("subject", &letter.subject)?;
        row("blocked key", &letter.lane)?;
        row("recorded", &Clock::text(letter.recorded_at))?;
        row("reason", &letter.reason)?;
        if let Some(at) = letter.discarded_at {
            row("discarded", &Clock::text(at))?;
        }
        if let Some(because) = &letter.discarded_because {
            row("because", because)?;
        }
        write!(f, "{:12}{} bytes", "payload", letter.bytes)?;
        let payload = letter.payload.as_deref().unwrap_or_default();
        // A service encoded it; if it is not base64, it is shown unchanged.
        match BASE64_STANDARD.decode(payload) {
            Ok(bytes) => write!(f, "{}", dump(&bytes))?,
            Err(_) => write!(f, "\n{}", printable(payload))?,
        }
        self.in_outbox(f)
    }
}

impl Shown {
    /// The outbox's event at the letter's position, if it differs.
    fn in_outbox(&self, f: &mut Formatter) -> fmt::Result {
        match &self.letter.outbox {
            None | Some(InOutbox::Same) => Ok(()),
            Some(InOutbox::Other {
                subject,
                bytes,
                payload,
            }) => {
                let decoded = payload
                    .as_ref()
                    .map(|payload| BASE64_STANDARD.decode(payload));
                write!(
                    f,
                    "\nTHE OUTBOX HAS ANOTHER EVENT at this position, which a retry applies:\n\
                     {:12}{}\n{:12}{bytes} bytes{}",
                    "subject",
                    printable(subject),
                    "payload",
                    dump(&decoded.and_then(Result::ok).unwrap_or_default())
                )
            }
            Some(InOutbox::Missing) => write!(
                f,
                "\nTHE OUTBOX HAS NO SUCH POSITION: it is not an event of {}; discard it",
                self.letter.source
            ),
            Some(InOutbox::Unknown(why)) => {
                write!(f, "\nthe outbox could not be read: {}", printable(why))
            }
        }
    }
}

/// Bytes in hexadecimal and as text.
fn dump(bytes: &[u8]) -> String {
    let lines = bytes.chunks(DUMP_LINE).enumerate().map(|(line, bytes)| {
        let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let text = bytes.iter().map(|&byte| match byte {
            b' '..=b'~' => char::from(byte),
            _ => '.',
        });
        let text: String = text.collect();
        let (place, width) = (line * DUMP_LINE, 3 * DUMP_LINE - 1);
        format!("\n{place:06x}  {:width$}  {text}", digits.join(" "))
    });
    lines.collect()
}

/// The result of a retry.
#[derive(Debug, Serialize)]
pub struct Retried {
    pub service: String,
    /// Whether only this service was asked.
    #[serde(skip)]
    pub is_one: bool,
    #[serde(flatten)]
    pub answer: RetryAnswer,
}

impl Display for Retried {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        if !self.is_one {
            write!(f, "{}: ", self.service)?;
        }
        write!(f, "{}", outcome(&self.answer))
    }
}

fn outcome(answer: &RetryAnswer) -> String {
    let (applied, left, failed) = (answer.applied, answer.left, answer.failed_in_all());
    let sum = format!("{applied} applied, {failed} failed again, {left} left");
    let mut lines = vec![sum];
    lines.extend(answer.failed.iter().map(line));
    let more = failed.saturating_sub(answer.failed.len() as u64);
    if more > 0 {
        lines.push(format!(
            "and {more} more; `headwater dead-letter list` shows them"
        ));
    }
    lines.join("\n  ")
}

/// The result of a discard, and of retrying the events behind it.
#[derive(Debug, Serialize)]
pub struct Discarded {
    pub service: String,
    #[serde(flatten)]
    pub answer: DiscardAnswer,
}

impl Display for Discarded {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let (letter, retried) = (&self.answer.discarded, &self.answer.retried);
        write!(f, "discarded {} ({})", letter.id, origin(letter))?;
        if retried.applied > 0 || retried.failed_in_all() > 0 {
            write!(f, "; behind it: {}", outcome(retried))?;
        }
        Ok(())
    }
}

/// The result of discarding several letters, by service.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub struct DiscardedMany(BTreeMap<String, DiscardManyAnswer>);

impl DiscardedMany {
    pub(crate) fn add(&mut self, service: &str, answer: &DiscardManyAnswer) {
        let sum = self.0.entry(service.to_owned()).or_default();
        sum.discarded += answer.discarded;
        sum.skipped += answer.skipped;
        sum.applied += answer.applied;
        sum.failed += answer.failed;
        sum.left = answer.left;
    }

    pub(crate) fn discarded(&self) -> u64 {
        self.0.values().map(|answer| answer.discarded).sum()
    }
}

impl Display for DiscardedMany {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("there are none");
        }
        let lines = self.0.iter().map(|(service, answer)| {
            let (discarded, applied) = (answer.discarded, answer.applied);
            let (failed, left) = (answer.failed, answer.left);
            let skipped = match answer.skipped {
                0 => String::new(),
                skipped => format!(", {skipped} retried or gone in the meantime"),
            };
            format!(
                "{service}: {discarded} discarded{skipped}; behind them: {applied} applied, \
                 {failed} failed; {left} left"
            )
        });
        f.write_str(&lines.collect::<Vec<_>>().join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_dumped_in_lines() {
        let dumped = dump(b"\n\x240193-4a7e-kettle");
        assert_eq!(
            dumped,
            "\n000000  0a 24 30 31 39 33 2d 34 61 37 65 2d 6b 65 74 74  .$0193-4a7e-kett\
             \n000010  6c 65                                            le"
        );
    }
}
