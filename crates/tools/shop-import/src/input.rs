//! The input files, all opened before anything is sent.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use futures_util::{Stream, stream};
use indicatif::ProgressBar;
use tokio::sync::mpsc;

use crate::args::Args;
use crate::ids::{ForeignId, Kind};
use crate::lines::{LINE_BYTES_MAX, Line, Lines};
use crate::records::{self, Request};

/// A file cannot be used. Nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    #[error("open {path}", path = path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("only one of the files can be stdin (`-`)")]
    StdinTwice,
    #[error("write the errors to {path}", path = path.display())]
    Errors { path: PathBuf, source: io::Error },
    #[error("{path} cannot be read and overwritten with errors", path = .0.display())]
    ErrorsIntoInput(PathBuf),
}

/// An open file.
pub(crate) struct Input {
    pub(crate) kind: Kind,
    /// The name for reports.
    pub(crate) name: String,
    /// `None` for pipes.
    pub(crate) bytes: Option<u64>,
    reader: Box<dyn Read + Send>,
}

/// A line of a file, ready to be sent.
pub(crate) struct Entry {
    pub(crate) line: u64,
    /// The request, or what is wrong with the line.
    pub(crate) request: Result<Request, String>,
    /// The id of an invalid line, if it could be read.
    pub(crate) refused_id: Option<ForeignId>,
}

/// Opens the given files: users, products, orders.
pub(crate) fn open(args: &Args) -> Result<[Option<Input>; 3], InputError> {
    let given = args.files().filter(|path| is_stdin(path));
    if given.count() > 1 {
        return Err(InputError::StdinTwice);
    }
    let open = |kind, path: &Option<PathBuf>| {
        let path = path.as_deref();
        path.map(|path| Input::open(kind, path)).transpose()
    };
    Ok([
        open(Kind::Users, &args.users)?,
        open(Kind::Products, &args.products)?,
        open(Kind::Orders, &args.orders)?,
    ])
}

/// Creates the file of errors, if requested. The input files are already open.
pub(crate) fn errors(args: &Args) -> Result<Option<File>, InputError> {
    let Some(path) = &args.errors else {
        return Ok(None);
    };
    let is_there = path.canonicalize().ok();
    if is_there.is_some()
        && args
            .files()
            .any(|file| file.canonicalize().ok() == is_there)
    {
        return Err(InputError::ErrorsIntoInput(path.clone()));
    }
    // Reasons may quote the lines.
    let mut private = File::options();
    private.write(true).create(true).truncate(true).mode(0o600);
    private
        .open(path)
        .map(Some)
        .map_err(|source| InputError::Errors {
            path: path.clone(),
            source,
        })
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

impl Input {
    fn open(kind: Kind, path: &Path) -> Result<Self, InputError> {
        if is_stdin(path) {
            let reader = Box::new(io::stdin());
            return Ok(Self {
                kind,
                name: "stdin".to_owned(),
                bytes: None,
                reader,
            });
        }
        let failed = |source| InputError::Open {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        }
        let bytes = metadata.is_file().then_some(metadata.len());
        Ok(Self {
            kind,
            name: path.display().to_string(),
            bytes,
            reader: Box::new(file),
        })
    }

    /// Reads and maps the lines on a separate thread, at most `ahead` lines in advance. `bar` shows
    /// the bytes read.
    ///
    /// It is not one of the runtime's blocking threads: the process waits for those at its end, and
    /// reading from a terminal may never end.
    pub(crate) fn entries(
        self,
        ahead: usize,
        bar: &ProgressBar,
    ) -> impl Stream<Item = Entry> + Send + Unpin + use<> {
        let (sender, mut receiver) = mpsc::channel(ahead);
        let lines = Lines::new(bar.wrap_read(self.reader), LINE_BYTES_MAX);
        std::thread::spawn(move || {
            for line in lines {
                if sender.blocking_send(entry(self.kind, line)).is_err() {
                    return; // the import has stopped
                }
            }
        });
        stream::poll_fn(move |context| receiver.poll_recv(context))
    }
}

fn entry(kind: Kind, line: Line) -> Entry {
    let request = line
        .text
        .map_err(|error| error.to_string())
        .and_then(|text| records::request(kind, &text).map_err(|error| error.to_string()));
    Entry {
        line: line.number,
        request,
        refused_id: None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::StreamExt as _;

    use super::*;

    const LINE: &[u8] = b"a line of 32 bytes with its end\n";

    /// The same line forever; counts how often it is read.
    struct Endless(Arc<AtomicUsize>);

    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let lines = buffer.len() / LINE.len();
            buffer[..lines * LINE.len()].copy_from_slice(&LINE.repeat(lines));
            self.0.fetch_add(lines, Ordering::SeqCst);
            Ok(lines * LINE.len())
        }
    }

    #[tokio::test]
    async fn a_file_is_read_only_a_little_ahead() {
        const BUFFER_BYTES: usize = 8 * 1024;
        let read = Arc::new(AtomicUsize::new(0));
        let reader = Box::new(Endless(Arc::clone(&read)));
        let input = Input {
            kind: Kind::Users,
            name: "endless".to_owned(),
            bytes: None,
            reader,
        };
        let mut entries = input.entries(10, &ProgressBar::hidden());
        for taken in 1..2_000 {
            entries.next().await.expect("there is always one more");
            // Slower than the reader, which would otherwise read far ahead.
            std::hint::black_box(LINE.repeat(10_000));
            let lines_max = taken + 10 + 1 + BUFFER_BYTES / LINE.len();
            let read = read.load(Ordering::SeqCst);
            assert!(read <= lines_max, "{read} lines read, {taken} taken");
        }
    }

    #[tokio::test]
    async fn every_byte_is_shown_by_the_bar() {
        let file = [
            b"\xef\xbb\xbfa\r\n\n".to_vec(),
            vec![b'x'; 3 << 20],
            b"\n\xff\nb".to_vec(),
        ]
        .concat();
        let (bar, bytes) = (ProgressBar::hidden(), file.len() as u64);
        let input = Input {
            kind: Kind::Users,
            name: "all sorts".to_owned(),
            bytes: Some(bytes),
            reader: Box::new(io::Cursor::new(file)),
        };
        let lines: Vec<u64> = input
            .entries(10, &bar)
            .map(|entry| entry.line)
            .collect()
            .await;
        assert_eq!((lines, bar.position()), (vec![1, 3, 4, 5], bytes));
    }
}
