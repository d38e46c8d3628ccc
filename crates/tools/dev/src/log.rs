//! A service's log: passed on line by line, the last lines kept for errors.

use std::collections::VecDeque;
use std::io::{self, BufRead as _, BufReader, PipeReader};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::sync::oneshot;

use crate::screen::Screen;
use crate::service::Service;

/// How many lines are kept.
const LINES_MAX: usize = 10;

/// The last lines of a log. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tail(Arc<Mutex<VecDeque<String>>>);

impl Tail {
    fn push(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push_back(line);
        if lines.len() > LINES_MAX {
            lines.pop_front();
        }
    }

    /// The lines kept, each on a line of its own, indented.
    pub(crate) fn text(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().flat_map(|line| ["\n  ", line]).collect()
    }
}

/// Reads `pipe` to its end on a thread; the receiver is told when that is done.
pub(crate) fn follow(
    service: Service,
    pipe: PipeReader,
    screen: Screen,
) -> io::Result<(Tail, oneshot::Receiver<()>)> {
    let (tail, (done, is_done)) = (Tail::default(), oneshot::channel());
    let kept = tail.clone();
    thread::Builder::new()
        .name(format!("{} log", service.name()))
        .spawn(move || {
            let (mut reader, mut line) = (BufReader::new(pipe), Vec::new());
            while reader
                .read_until(b'\n', &mut line)
                .is_ok_and(|read| read > 0)
            {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                screen.log(service, &text);
                kept.push(text);
                line.clear();
            }
            // Nobody waits for a service that was killed.
            let _unheard = done.send(());
        })?;
    Ok((tail, is_done))
}
