//! What is printed of dead letters.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use headwater::Clock;
use headwater::operator::{DiscardAnswer, DiscardManyAnswer, InOutbox, Letter, RetryAnswer};
use serde::Serialize;
use terminal::output::printable;

/// Bytes a line of a dump.
const DUMP_LINE: usize = 16;

/// The letters of one or more services.
#[derive(Debug, Default, Serialize)]
pub(super) struct Listed(BTreeMap<String, Page>);

#[derive(Debug, Serialize)]
struct Page {
    /// How many there are, also beyond those that are listed.
    total: u64,
    letters: Vec<Letter>,
}

impl Listed {
    pub(super) fn add(&mut self, service: String, letters: Vec<Letter>, total: u64) {
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
                write!(f, "\n  {}", Line(letter))?;
            }
            let left = page.total.saturating_sub(page.letters.len() as u64);
            if left > 0 {
                write!(f, "\n  and {left} more; --limit shows more of them")?;
            }
        }
        Ok(())
    }
}

/// A letter in one line.
struct Line<'a>(&'a Letter);

impl Display for Line<'_> {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let letter = self.0;
        write!(
            f,
            "{} {} {} ({}): ",
            letter.id,
            Place(letter),
            printable(&letter.subject),
            printable(&letter.lane),
        )?;
        if letter.waiting {
            write!(f, "waits behind another one")?;
        } else {
            write!(f, "{}", printable(&letter.reason))?;
        }
        match &letter.discarded_because {
            Some(because) => write!(f, "; discarded: {}", printable(because)),
            None => Ok(()),
        }
    }
}

/// Where a letter's event came from: `orders:4711`.
struct Place<'a>(&'a Letter);

impl Display for Place<'_> {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let source = &self.0.source;
        match (self.0.position, self.0.sequence) {
            (Some(position), _) => write!(f, "{source}:{position}"),
            (None, Some(sequence)) => write!(f, "{source} (by hand, sequence {sequence})"),
            (None, None) => write!(f, "{source}"),
        }
    }
}

/// One letter with all that is known of it.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    pub(super) service: String,
    #[serde(flatten)]
    pub(super) letter: Letter,
}

impl Display for Shown {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let letter = &self.letter;
        let mut line = |name: &str, value: &str| writeln!(f, "{name:12}{}", printable(value));
        line("id", &letter.id.to_string())?;
        line("service", &self.service)?;
        line("projection", &letter.projection)?;
        line("event", &Place(letter).to_string())?;
        line("epoch", letter.epoch.as_deref().unwrap_or("none"))?;
        if let Some(sequence) = letter.sequence {
            line("sequence", &sequence.to_string())?;
        }
        line("subject", &letter.subject)?;
        line("lane", &letter.lane)?;
        line("parked", &Clock::text(letter.recorded_at))?;
        line("reason", &letter.reason)?;
        if let Some(at) = letter.discarded_at {
            line("discarded", &Clock::text(at))?;
        }
        if let Some(because) = &letter.discarded_because {
            line("because", because)?;
        }
        write!(f, "{:12}{} bytes", "payload", letter.bytes)?;
        let payload = letter.payload.as_deref().unwrap_or_default();
        // It was encoded by a service of ours; shown as it is if not.
        match BASE64_STANDARD.decode(payload) {
            Ok(bytes) => write!(f, "{}", Dump(&bytes))?,
            Err(_) => write!(f, "\n{}", printable(payload))?,
        }
        self.in_outbox(f)
    }
}

impl Shown {
    /// What the outbox has where the letter is from, if that is not the same.
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
                    Dump(&decoded.and_then(Result::ok).unwrap_or_default())
                )
            }
            Some(InOutbox::Missing) => write!(
                f,
                "\nTHE OUTBOX HAS NO SUCH POSITION: it is not an event of {}; discard it",
                self.letter.source
            ),
            Some(InOutbox::Unknown(why)) => {
                write!(f, "\nwhat the outbox has is not known: {}", printable(why))
            }
        }
    }
}

/// Bytes in hexadecimal, and as text where they are.
struct Dump<'a>(&'a [u8]);

impl Display for Dump<'_> {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        for (line, bytes) in self.0.chunks(DUMP_LINE).enumerate() {
            write!(f, "\n{:06x} ", line * DUMP_LINE)?;
            for place in 0..DUMP_LINE {
                match bytes.get(place) {
                    Some(byte) => write!(f, " {byte:02x}")?,
                    None => write!(f, "   ")?,
                }
            }
            let text = bytes.iter().map(|&byte| match byte {
                b' '..=b'~' => char::from(byte),
                _ => '.',
            });
            write!(f, "  {}", text.collect::<String>())?;
        }
        Ok(())
    }
}

/// What trying again came to.
#[derive(Debug, Serialize)]
pub(super) struct Retried {
    pub(super) service: String,
    /// Whether no other service was asked.
    #[serde(skip)]
    pub(super) is_one: bool,
    #[serde(flatten)]
    pub(super) answer: RetryAnswer,
}

impl Display for Retried {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        if !self.is_one {
            write!(f, "{}: ", self.service)?;
        }
        write!(f, "{}", Outcome(&self.answer))
    }
}

struct Outcome<'a>(&'a RetryAnswer);

impl Display for Outcome<'_> {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let RetryAnswer {
            applied,
            left,
            failed,
            ..
        } = self.0;
        let failed_total = self.0.failed_in_all();
        write!(
            f,
            "{applied} applied, {failed_total} failed again, {left} left"
        )?;
        for letter in failed {
            write!(f, "\n  {}", Line(letter))?;
        }
        let more = failed_total.saturating_sub(failed.len() as u64);
        if more > 0 {
            write!(
                f,
                "\n  and {more} more; `headwater dead-letter list` shows them"
            )?;
        }
        Ok(())
    }
}

/// What was given up, and what became of those behind it.
#[derive(Debug, Serialize)]
pub(super) struct Discarded {
    pub(super) service: String,
    #[serde(flatten)]
    pub(super) answer: DiscardAnswer,
}

impl Display for Discarded {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let (letter, retried) = (&self.answer.discarded, &self.answer.retried);
        write!(f, "discarded {} ({})", letter.id, Place(letter))?;
        if retried.applied > 0 || retried.failed_in_all() > 0 {
            write!(f, "; behind it: {}", Outcome(retried))?;
        }
        Ok(())
    }
}

/// What was given up of each service, and what became of those behind it.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub(super) struct DiscardedMany(BTreeMap<String, DiscardManyAnswer>);

impl DiscardedMany {
    pub(super) fn add(&mut self, service: &str, answer: &DiscardManyAnswer) {
        let sum = self.0.entry(service.to_owned()).or_default();
        sum.discarded += answer.discarded;
        sum.skipped += answer.skipped;
        sum.applied += answer.applied;
        sum.failed += answer.failed;
        sum.left = answer.left;
    }

    pub(super) fn discarded(&self) -> u64 {
        self.0.values().map(|answer| answer.discarded).sum()
    }
}

impl Display for DiscardedMany {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("there are none");
        }
        let lines = self.0.iter().map(|(service, answer)| {
            let DiscardManyAnswer {
                discarded,
                skipped,
                applied,
                failed,
                left,
            } = answer;
            let skipped = match skipped {
                0 => String::new(),
                skipped => format!(", {skipped} meanwhile tried again or gone"),
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
        let dumped = Dump(b"\n\x240193-4a7e-kettle").to_string();
        assert_eq!(
            dumped,
            "\n000000  0a 24 30 31 39 33 2d 34 61 37 65 2d 6b 65 74 74  .$0193-4a7e-kett\
             \n000010  6c 65                                            le"
        );
    }
}
