//! Logs to systemd's journal: each value is a field, to ask for it, and in the text, to read it.
//!
//! (`tracing-journald` has the fields alone: `journalctl -u headwater-orders` would show
//! "projection waits", and not which one, nor why.)

use std::fmt::{Debug, Write as _};
use std::io;
use std::os::unix::net::UnixDatagram;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::lines;

/// Where the journal listens.
const SOCKET: &str = "/run/systemd/journal/socket";

/// The longest entry that is sent as it is, in bytes: below what a datagram may have.
const ENTRY_MAX: usize = 128 * 1024;

/// The longest text of an entry that is too long as it is, in bytes.
const TEXT_MAX: usize = 16 * 1024;

/// The way to the journal.
#[derive(Debug)]
pub(crate) struct Socket {
    /// Not connected: the journal may be restarted.
    socket: UnixDatagram,
}

impl Socket {
    /// Makes sure that there is a journal.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn open() -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        // An empty entry, which the journal drops; one that is too busy for it is there.
        match socket.send_to(b"", SOCKET) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
        socket.set_nonblocking(false)?;
        Ok(Self { socket })
    }

    /// Sends one entry; waits where the journal has not taken those before it.
    ///
    /// # Errors
    /// The journal is away.
    pub(crate) fn send(&self, entry: &[u8]) -> io::Result<()> {
        self.socket.send_to(entry, SOCKET).map(drop)
    }
}

/// The journal, as a place to log to.
#[derive(Debug)]
pub(crate) struct Journal {
    identifier: String,
}

impl Journal {
    /// The journal, for what this program logs.
    ///
    /// # Errors
    /// The program has no name.
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

/// As syslog has them: `journalctl -p err` shows what a person must act on.
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        Level::DEBUG | Level::TRACE => "7",
    }
}

/// What an event says.
#[derive(Default)]
struct Entry {
    message: String,
    /// The values, as people read them behind the message.
    values: String,
    /// The values, as the journal takes them.
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
        // Writing to a string does not fail.
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

/// A name as the journal takes it: `event.subject` is `EVENT_SUBJECT`.
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

/// Appends a field whose value may have lines.
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
