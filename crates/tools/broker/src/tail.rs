//! A program's log: forwarded line by line, with the last lines kept for errors.

use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, PipeReader, Write},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use crate::options::Log;

/// The number of lines kept.
const LINES_MAX: usize = 40;

/// The last 40 lines of a program's log, across restarts. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Tail(Arc<Mutex<VecDeque<String>>>);

impl Tail {
    /// Reads `pipe` to its end on a thread.
    pub(crate) fn follow(&self, pipe: PipeReader, log: &Log) -> io::Result<JoinHandle<()>> {
        let mut file = match log {
            Log::File(path) => Some(OpenOptions::new().create(true).append(true).open(path)?),
            Log::Null | Log::Lines(_) => None,
        };
        let (tail, log) = (self.clone(), log.clone());
        thread::Builder::new()
            .name("log of a child".to_owned())
            .spawn(move || {
                for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                    let line = String::from_utf8_lossy(&line);
                    tail.pass_on(line.trim_end(), &log, file.as_mut());
                }
            })
    }

    fn pass_on(&self, line: &str, log: &Log, file: Option<&mut File>) {
        if let Some(file) = file {
            // A full disk must not stop the reading: the server would then block.
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

    /// The kept lines, the newest last.
    pub fn text(&self) -> String {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.make_contiguous().join("\n")
    }
}
