//! What a person sees on stderr: lines that say whose they are.

use std::env;
use std::io::{self, IsTerminal, Write as _};

use crate::service::Service;

/// The longest name, `purchases-composition`.
const NAME_WIDTH: usize = 21;

/// How to write on stderr.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Screen {
    /// Whether services may use colours, too.
    pub(crate) colours: bool,
}

impl Screen {
    pub(crate) fn new() -> Self {
        Self {
            colours: colours(&io::stderr()),
        }
    }

    /// A line of our own.
    pub(crate) fn say(self, what: &str) {
        self.line("dev", 1, what);
    }

    /// A line of a service's log.
    pub(crate) fn log(self, service: Service, line: &str) {
        self.line(service.name(), service.colour(), line);
    }

    /// Why it all ends; the last thing written.
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

/// One line in one piece. A terminal that has gone leaves nobody to tell.
fn write(line: &str) {
    let _gone = io::stderr()
        .lock()
        .write_all(format!("{line}\n").as_bytes());
}
