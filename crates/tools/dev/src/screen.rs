//! The output on stderr: lines prefixed with the name of their process.

use std::env;
use std::io::{self, IsTerminal, Write as _};

use crate::service::Service;

/// The length of the longest name, `purchases-composition`.
const NAME_WIDTH: usize = 21;

/// How to write to stderr.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Screen {
    /// Whether services may use colours too.
    pub(crate) colours: bool,
}

impl Screen {
    pub(crate) fn new() -> Self {
        Self {
            colours: colours(&io::stderr()),
        }
    }

    /// Writes a line of `cargo dev` itself.
    pub(crate) fn say(self, what: &str) {
        self.line("dev", 1, what);
    }

    /// Writes a line of a service's log.
    pub(crate) fn log(self, service: Service, line: &str) {
        self.line(service.name(), service.colour(), line);
    }

    /// Writes the final error.
    pub(crate) fn error(self, error: &anyhow::Error) {
        write(&format!("{} {error:#}", paint(self.colours, 31, "error:")));
    }

    fn line(self, name: &str, colour: u8, line: &str) {
        let prefix = format!("{name:>NAME_WIDTH$} │");
        write(&format!("{} {line}", paint(self.colours, colour, &prefix)));
    }
}

/// Whether to use colours on `stream`; see <https://no-color.org>.
pub(crate) fn colours(stream: &impl IsTerminal) -> bool {
    let unwanted = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    stream.is_terminal() && !unwanted
}

/// `text` in the colour, or other style, of an ANSI escape.
pub(crate) fn paint(colours: bool, style: u8, text: &str) -> String {
    if colours {
        format!("\x1b[{style}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

/// Writes one line at once. A failed write is ignored: the terminal has gone.
fn write(line: &str) {
    let _gone = io::stderr()
        .lock()
        .write_all(format!("{line}\n").as_bytes());
}
