//! Logs to systemd's journal. Each value is a field, for queries, and also in the text.
//!
//! (`tracing-journald` writes only the fields: `journalctl -u headwater-orders` would show
//! "projection waits", but not which projection or why.)

use std::fmt::{Debug, Write as _};
use std::io;
use std::os::unix::net::UnixDatagram;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::lines;

/// The journal's socket.
const SOCKET: &str = "/run/systemd/journal/socket";

/// The longest entry that is sent unchanged, in bytes: below the limit of a datagram.
const ENTRY_MAX: usize = 128 * 1024;

/// The longest text of a shortened entry, in bytes.
const TEXT_MAX: usize = 16 * 1024;

/// A socket to the journal.
#[derive(Debug)]
pub(crate) struct Socket {
    /// Not connected: the journal may be restarted.
    socket: UnixDatagram,
}

impl Socket {
    /// Opens the socket.
    ///
    /// # Errors
    /// There is no journal.
    pub(crate) fn open() -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        // An empty entry, which the journal drops. If it is too busy to take it, it exists.
        match socket.send_to(b"", SOCKET) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
        socket.set_nonblocking(false)?;
        Ok(Self { socket })
    }

    /// Sends one entry; waits until the journal has taken earlier ones.
    ///
    /// # Errors
    /// The journal is not running.
    pub(crate) fn send(&self, entry: &[u8]) -> io::Result<()> {
        self.socket.send_to(entry, SOCKET).map(drop)
    }
}

/// A layer that logs to the journal.
#[derive(Debug)]
pub(crate) struct Journal {
    identifier: String,
}

impl Journal {
    /// A layer for this program.
    ///
    /// # Errors
    /// The program's path cannot be read.
    pub(crate) fn new() -> io::Result<Self> {
        let program = std::env::current_exe()?;
        let name = program.file_name().unwrap_or_default();
        Ok(Self {
            identifier: name.to_string_lossy().into_owned(),
        })
    }

    fn bytes(&self, metadata: &Metadata<'_>, entry: &Entry) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(512);
        put(&mut bytes, "MESSAGE", &entry.text());
        put(&mut bytes, "PRIORITY", priority(*metadata.level()));
        put(&mut bytes, "SYSLOG_IDENTIFIER", &self.identifier);
        put(&mut bytes, "TARGET", metadata.target());
        bytes.extend_from_slice(&entry.fields);
        bytes
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut entry = Entry::default();
        event.record(&mut entry);
        let mut bytes = self.bytes(event.metadata(), &entry);
        if bytes.len() > ENTRY_MAX {
            bytes = self.bytes(event.metadata(), &entry.shortened());
        }
        lines::push(&bytes);
    }
}

/// The syslog priority: `journalctl -p err` shows where an operator must act.
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        Level::DEBUG | Level::TRACE => "7",
    }
}

/// A log event.
#[derive(Default)]
struct Entry {
    message: String,
    /// The values as text, to append to the message.
    values: String,
    /// The values in the format of the journal.
    fields: Vec<u8>,
}

impl Entry {
    fn text(&self) -> String {
        format!("{}{}", self.message, self.values)
    }

    fn shortened(&self) -> Self {
        let mut message = self.text();
        message.truncate(message.floor_char_boundary(TEXT_MAX));
        Self {
            message,
            ..Self::default()
        }
    }

    fn note(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
            return;
        }
        // Writing to a string cannot fail.
        let _ = write!(self.values, " {}={value}", field.name());
        put(&mut self.fields, &name(field.name()), value);
    }
}

impl Visit for Entry {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.note(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.note(field, &format!("{value:?}"));
    }
}

/// A field name for the journal: `event.subject` becomes `EVENT_SUBJECT`.
fn name(field: &str) -> String {
    let letters = field.chars().map(|letter| match letter {
        letter if letter.is_ascii_alphanumeric() => letter.to_ascii_uppercase(),
        _ => '_',
    });
    letters
        .skip_while(|letter| *letter == '_')
        .take(64)
        .collect()
}

/// Appends a field whose value may have several lines.
fn put(bytes: &mut Vec<u8>, name: &str, value: &str) {
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(b'\n');
    bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
    bytes.extend_from_slice(value.as_bytes());
    bytes.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_log_in_capitals() {
        assert_eq!(name("event.subject"), "EVENT_SUBJECT");
        assert_eq!(name("_took-ms"), "TOOK_MS");
        assert_eq!(name(&"x".repeat(70)).len(), 64);
    }

    #[test]
    fn an_entry_that_is_too_long_keeps_its_beginning() {
        let entry = Entry {
            message: "é".repeat(TEXT_MAX),
            fields: vec![0; 9],
            ..Entry::default()
        };
        let short = entry.shortened();
        assert_eq!((short.text().len(), short.fields.len()), (TEXT_MAX, 0));
    }
}
