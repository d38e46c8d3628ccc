//! Lines of a file, one at a time, in bounded memory.

use std::io::{self, BufRead, ErrorKind};

/// A longer line is reported and skipped.
pub(crate) const LINE_BYTES_MAX: usize = 1024 * 1024;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// One line that is not blank.
#[derive(Debug)]
pub(crate) struct Line {
    /// The first line of the file is 1; blank lines count.
    pub(crate) number: u64,
    /// What was read for it, blank lines before it included.
    pub(crate) bytes: u64,
    /// Without the line end.
    pub(crate) text: Result<String, Unusable>,
}

/// Why a line has no text.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("longer than {0} bytes")]
    TooLong(usize),
    #[error("not UTF-8")]
    NotUtf8,
    /// Nothing can be read after it.
    #[error("read: {0}")]
    Io(io::Error),
}

/// Iterates over the lines of a reader. A byte order mark at the start is left out.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    reader: R,
    bytes_max: usize,
    number: u64,
    ended: bool,
    /// The line being read; at most one byte more than a line may have.
    kept: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(reader: R, bytes_max: usize) -> Self {
        Self {
            reader,
            bytes_max,
            number: 0,
            ended: false,
            kept: Vec::new(),
        }
    }

    /// Reads one line into `kept` and answers with the bytes taken, line end included; 0 at the end.
    fn fill(&mut self) -> io::Result<u64> {
        self.kept.clear();
        let mut taken = 0;
        loop {
            let chunk = match self.reader.fill_buf() {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                chunk => chunk?,
            };
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let part = &chunk[..end.unwrap_or(chunk.len())];
            let room = self.bytes_max + 1 - self.kept.len();
            self.kept.extend_from_slice(&part[..part.len().min(room)]);
            let used = end.map_or(chunk.len(), |end| end + 1);
            self.reader.consume(used);
            taken += used as u64;
            if end.is_some() || used == 0 {
                return Ok(taken);
            }
        }
    }

    fn text(&self) -> Result<String, Unusable> {
        if self.kept.len() > self.bytes_max {
            return Err(Unusable::TooLong(self.bytes_max));
        }
        let bytes = match self.kept.strip_prefix(BYTE_ORDER_MARK) {
            Some(rest) if self.number == 1 => rest,
            _ => &self.kept,
        };
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        str::from_utf8(bytes)
            .map(str::to_owned)
            .map_err(|_| Unusable::NotUtf8)
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = Line;

    fn next(&mut self) -> Option<Line> {
        let mut bytes = 0;
        while !self.ended {
            self.number += 1;
            let text = match self.fill() {
                Ok(0) => return None,
                Ok(taken) => {
                    bytes += taken;
                    self.text()
                }
                Err(error) => {
                    self.ended = true;
                    Err(Unusable::Io(error))
                }
            };
            if !text.as_ref().is_ok_and(|text| text.trim_ascii().is_empty()) {
                return Some(Line {
                    number: self.number,
                    bytes,
                    text,
                });
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Read};

    use proptest::prelude::*;

    use super::*;

    /// What a file's lines look like in a report: number and text, or what is wrong.
    fn read(file: &[u8], bytes_max: usize, buffer_bytes: usize) -> Vec<(u64, String)> {
        let reader = BufReader::with_capacity(buffer_bytes, file);
        Lines::new(reader, bytes_max)
            .map(|line| {
                (
                    line.number,
                    line.text.unwrap_or_else(|error| format!("! {error}")),
                )
            })
            .collect()
    }

    fn expect(file: &[u8], lines: &[(u64, &str)]) {
        let lines: Vec<_> = lines
            .iter()
            .map(|(n, text)| (*n, (*text).to_owned()))
            .collect();
        assert_eq!(read(file, 8, 3), lines, "{}", file.escape_ascii());
    }

    #[test]
    fn blank_lines_are_skipped_but_counted() {
        expect(b"a\n\n \t\r\nb\n", &[(1, "a"), (4, "b")]);
        expect(b"", &[]);
        expect(b"\n\n", &[]);
    }

    #[test]
    fn the_last_line_needs_no_line_end() {
        expect(b"a\nb", &[(1, "a"), (2, "b")]);
    }

    #[test]
    fn a_byte_order_mark_and_carriage_returns_are_left_out() {
        expect(b"\xef\xbb\xbfa\r\nb\r\n", &[(1, "a"), (2, "b")]);
    }

    #[test]
    fn a_byte_order_mark_further_down_is_text() {
        expect(b"a\n\xef\xbb\xbfb\n", &[(1, "a"), (2, "\u{feff}b")]);
    }

    #[test]
    fn a_line_of_exactly_the_limit_is_read_and_a_longer_one_is_not() {
        expect(
            b"12345678\n123456789\nc\n",
            &[(1, "12345678"), (2, "! longer than 8 bytes"), (3, "c")],
        );
        expect(b"123456789", &[(1, "! longer than 8 bytes")]);
    }

    #[test]
    fn invalid_utf8_costs_only_its_line() {
        expect(
            b"a\n\xff\xfe\nb\n",
            &[(1, "a"), (2, "! not UTF-8"), (3, "b")],
        );
    }

    #[test]
    fn an_endless_line_takes_bounded_memory() {
        let endless = io::repeat(b'x').take(64 * 1024 * 1024);
        let mut lines = Lines::new(BufReader::new(endless), 1024);
        assert!(matches!(
            lines.next(),
            Some(Line {
                text: Err(Unusable::TooLong(1024)),
                ..
            })
        ));
        assert!(
            lines.kept.capacity() <= 64 * 1024,
            "{}",
            lines.kept.capacity()
        );
    }

    #[test]
    fn a_read_error_ends_the_file_with_a_report() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("disk on fire"))
            }
        }
        let mut lines = Lines::new(BufReader::new(b"a\n".chain(Broken)), 8);
        assert_eq!(lines.next().expect("first line").text.expect("text"), "a");
        let broken = lines.next().expect("second line");
        assert_eq!(
            (broken.number, broken.text.expect_err("broken").to_string()),
            (2, "read: disk on fire".to_owned())
        );
        assert!(lines.next().is_none());
    }

    proptest! {
        #[test]
        fn lines_are_those_of_the_standard_library(
            file in proptest::collection::vec(prop::sample::select(b"ab \r\n".as_slice()), 0..200),
            buffer_bytes in 1_usize..20,
        ) {
            let text = str::from_utf8(&file).expect("ASCII");
            let expected: Vec<_> = (1..)
                .zip(text.lines().map(str::to_owned))
                .filter(|(_, line)| !line.trim_ascii().is_empty())
                .collect();
            // `lines` keeps a carriage return that ends the file; it is white space to JSON.
            let trimmed = |lines: Vec<(u64, String)>| -> Vec<_> {
                lines.into_iter().map(|(n, line)| (n, line.trim_end().to_owned())).collect()
            };
            prop_assert_eq!(trimmed(read(&file, 1000, buffer_bytes)), trimmed(expected));
        }

        #[test]
        fn every_byte_is_accounted_for(file: Vec<u8>, buffer_bytes in 1_usize..20) {
            let mut file = file;
            file.push(b'.');
            let lines = Lines::new(BufReader::with_capacity(buffer_bytes, file.as_slice()), 50);
            prop_assert_eq!(lines.map(|line| line.bytes).sum::<u64>(), file.len() as u64);
        }
    }
}
