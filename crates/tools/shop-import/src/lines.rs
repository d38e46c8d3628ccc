//! Reads the lines of a file one at a time, in bounded memory.

use std::io::{self, ErrorKind, Read};

use bytes::BytesMut;
use tokio_util::codec::{Decoder as _, LinesCodec, LinesCodecError};

/// The longest line in bytes. A longer line is reported and skipped.
pub(crate) const LINE_BYTES_MAX: usize = 1024 * 1024;

/// Bytes per read.
const CHUNK_BYTES: usize = 8 * 1024;

const BYTE_ORDER_MARK: char = '\u{feff}';

/// A line that is not blank.
#[derive(Debug)]
pub(crate) struct Line {
    /// The line number, from 1. Blank lines count.
    pub(crate) number: u64,
    /// The text without the line end.
    pub(crate) text: Result<String, Unusable>,
}

/// Why a line has no usable text.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("longer than {0} bytes")]
    TooLong(usize),
    #[error("not UTF-8")]
    NotUtf8,
    /// Reading failed; no line follows.
    #[error("read: {0}")]
    Io(io::Error),
}

/// Iterates over the lines of a reader. A byte order mark at the start is skipped.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    reader: R,
    codec: LinesCodec,
    number: u64,
    has_ended: bool,
    /// Bytes read and not yet used.
    buffer: BytesMut,
}

impl<R: Read> Lines<R> {
    pub(crate) fn new(reader: R, bytes_max: usize) -> Self {
        Self {
            reader,
            codec: LinesCodec::new_with_max_length(bytes_max),
            number: 0,
            has_ended: false,
            buffer: BytesMut::new(),
        }
    }

    /// The next line, even if blank; `None` at the end.
    fn line(&mut self) -> Option<Result<String, Unusable>> {
        loop {
            let decoded = if self.has_ended {
                self.codec.decode_eof(&mut self.buffer)
            } else {
                self.codec.decode(&mut self.buffer)
            };
            match decoded {
                Ok(Some(text)) => return Some(Ok(text)),
                Ok(None) if self.has_ended => return None,
                Ok(None) => {}
                Err(LinesCodecError::MaxLineLengthExceeded) => {
                    return Some(Err(Unusable::TooLong(self.codec.max_length())));
                }
                Err(LinesCodecError::Io(_)) => return Some(Err(Unusable::NotUtf8)),
            }
            if let Err(error) = self.fill() {
                self.has_ended = true;
                self.buffer.clear();
                self.codec = LinesCodec::new_with_max_length(self.codec.max_length());
                return Some(Err(Unusable::Io(error)));
            }
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut chunk = [0; CHUNK_BYTES];
        match self.reader.read(&mut chunk) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(0) => self.has_ended = true,
            Ok(read) => self.buffer.extend_from_slice(&chunk[..read]),
        }
        Ok(())
    }
}

impl<R: Read> Iterator for Lines<R> {
    type Item = Line;

    fn next(&mut self) -> Option<Line> {
        loop {
            let mut text = self.line()?;
            self.number += 1;
            if let (Ok(text), 1) = (&mut text, self.number)
                && text.starts_with(BYTE_ORDER_MARK)
            {
                text.remove(0);
            }
            if !text.as_ref().is_ok_and(|text| text.trim_ascii().is_empty()) {
                let number = self.number;
                return Some(Line { number, text });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The lines of a file for a comparison: number and text, or what is wrong.
    fn read(file: &[u8], bytes_max: usize, chunk_bytes: usize) -> Vec<(u64, String)> {
        Lines::new(Slow(file, chunk_bytes), bytes_max)
            .map(|line| {
                (
                    line.number,
                    line.text.unwrap_or_else(|error| format!("! {error}")),
                )
            })
            .collect()
    }

    /// Returns a few bytes at a time, as a pipe may.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let end = self.1.min(buffer.len());
            self.0.read(&mut buffer[..end])
        }
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
        let mut lines = Lines::new(endless, 1024);
        assert!(matches!(
            lines.next(),
            Some(Line {
                text: Err(Unusable::TooLong(1024)),
                ..
            })
        ));
        assert!(
            lines.next().is_none() && lines.buffer.capacity() <= 64 * 1024,
            "{}",
            lines.buffer.capacity()
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
        let mut lines = Lines::new(b"a\n".chain(Broken), 8);
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
            chunk_bytes in 1_usize..20,
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
            prop_assert_eq!(trimmed(read(&file, 1000, chunk_bytes)), trimmed(expected));
        }
    }
}
