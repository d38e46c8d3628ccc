//! The server's log: passed on line by line, the last lines kept for errors.

use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, PipeReader, Write},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use crate::options::Log;

/// How many lines are kept.
const LINES_MAX: usize = 40;

/// The last lines of the log, over all runs of one broker.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tail(Arc<Mutex<VecDeque<String>>>);

impl Tail {
    /// Reads `pipe` to its end on a thread.
    pub(crate) fn follow(&self, pipe: PipeReader, log: &Log) -> io::Result<JoinHandle<()>> {
        let mut file = match log {
            Log::File(path) => Some(OpenOptions::new().create(true).append(true).open(path)?),
            Log::Null | Log::Lines(_) => None,
        };
        let (tail, log) = (self.clone(), log.clone());
        thread::Builder::new()
            .name("nats-server log".to_owned())
            .spawn(move || {
                let mut lines = BufReader::new(pipe);
                let mut line = Vec::new();
                while lines
                    .read_until(b'\n', &mut line)
                    .is_ok_and(|read| read > 0)
                {
                    tail.pass_on(
                        String::from_utf8_lossy(&line).trim_end(),
                        &log,
                        file.as_mut(),
                    );
                    line.clear();
                }
            })
    }

    fn pass_on(&self, line: &str, log: &Log, file: Option<&mut File>) {
        if let Some(file) = file {
            // A full disk must not stop the reading: the server would stop with it.
            let _lost = writeln!(file, "{line}");
        }
        if let Log::Lines(function) = log {
            function(line);
        }
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push_back(line.to_owned());
        if lines.len() > LINES_MAX {
            lines.pop_front();
        }
    }

    /// The lines kept, the newest last.
    pub(crate) fn text(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join("\n")
    }
}
