//! The console's log: who did what, when, and how it ended.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::Context as _;
use headwater::Clock;
use headwater::database::private;
use serde::{Deserialize, Serialize};

/// How many entries are kept in memory, and shown.
const KEPT: usize = 1_000;

/// How much of an existing file is read at the start.
const READ_BYTES_MAX: u64 = 1024 * 1024;

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// RFC 3339.
    pub(crate) at: String,
    /// The login to NATS, and the context that it is from.
    pub(crate) nats: String,
    /// The user of the operating system.
    pub(crate) user: String,
    /// The number of the action in this run of the console, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) action: Option<u64>,
    pub(crate) what: String,
    /// `begun`, `done`, `failed`, `shown`, with details.
    pub(crate) outcome: String,
}

/// Who uses the console.
#[derive(Clone, Debug)]
pub(crate) struct Who {
    pub(crate) nats: String,
    pub(crate) user: String,
}

/// The log's file, and its newest entries.
#[derive(Debug)]
pub(crate) struct Journal {
    who: Who,
    clock: Clock,
    pub(crate) path: PathBuf,
    open: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    newest: VecDeque<Entry>,
    /// Whether the last line may be incomplete.
    is_torn: bool,
}

impl Journal {
    /// Opens the file, or creates it for this user only.
    pub(crate) fn open(path: PathBuf, who: Who) -> anyhow::Result<Self> {
        let context = || {
            format!(
                "open the console's log {}; name another file with --log",
                path.display()
            )
        };
        if let Some(folder) = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
        {
            private::make_folder(folder).with_context(context)?;
        }
        let mut options = private::options();
        let options = options.read(true).append(true).create(true);
        let mut file = options.open(&path).with_context(context)?;
        let (newest, is_torn) = read(&mut file).with_context(context)?;
        let open = Mutex::new(Open {
            file,
            newest,
            is_torn,
        });
        Ok(Self {
            who,
            clock: Clock::system(),
            path,
            open,
        })
    }

    pub(crate) fn who(&self) -> &Who {
        &self.who
    }

    /// Writes an entry to the disk.
    pub(crate) fn write(
        &self,
        action: Option<u64>,
        what: &str,
        outcome: &str,
    ) -> anyhow::Result<()> {
        let entry = Entry {
            at: Clock::text(self.clock.now_ms()),
            nats: self.who.nats.clone(),
            user: self.who.user.clone(),
            action,
            what: what.to_owned(),
            outcome: outcome.to_owned(),
        };
        let mut line = serde_json::to_string(&entry).context("write JSON")? + "\n";
        let mut open = self.open.lock().expect("no holder panics");
        if open.is_torn {
            line.insert(0, '\n');
        }
        let written = open.file.write_all(line.as_bytes());
        open.is_torn = written.is_err();
        let written = written.and_then(|()| open.file.sync_data());
        written.with_context(|| format!("write to the console's log {}", self.path.display()))?;
        open.newest.push_front(entry);
        open.newest.truncate(KEPT);
        Ok(())
    }

    /// The newest entries, the newest first.
    pub(crate) fn newest(&self) -> Vec<Entry> {
        let open = self.open.lock().expect("no holder panics");
        open.newest.iter().cloned().collect()
    }
}

/// The newest entries of the file, and whether its last line is incomplete. Lines that are not ours
/// are left out.
fn read(file: &mut File) -> std::io::Result<(VecDeque<Entry>, bool)> {
    let end = file.metadata()?.len();
    file.seek(SeekFrom::Start(end.saturating_sub(READ_BYTES_MAX)))?;
    let mut bytes = Vec::new();
    file.take(READ_BYTES_MAX).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.lines().rev();
    let entries = lines.filter_map(|line| serde_json::from_str(line).ok());
    let is_torn = bytes.last().is_some_and(|last| *last != b'\n');
    Ok((entries.take(KEPT).collect(), is_torn))
}

/// Where the log is by default: `${XDG_STATE_HOME:-~/.local/state}/headwater/console.log`.
pub(crate) fn default_path() -> anyhow::Result<PathBuf> {
    let folder = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let state = folder("XDG_STATE_HOME").map(PathBuf::from);
    let state = state.or_else(|| Some(PathBuf::from(folder("HOME")?).join(".local/state")));
    let state = state.filter(|state| state.is_absolute());
    let state = state
        .context("neither XDG_STATE_HOME nor HOME is set: name the console's log with --log")?;
    Ok(state.join("headwater").join("console.log"))
}

/// The user of the operating system: `alice (1000)`.
pub(crate) fn user() -> String {
    let id = rustix::process::getuid().as_raw();
    match name_of(id, Path::new("/etc/passwd")) {
        Some(name) => format!("{name} ({id})"),
        None => id.to_string(),
    }
}

fn name_of(id: u32, file: &Path) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let mut users = text.lines().map(|line| line.split(':'));
    users.find_map(|mut fields| {
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn who() -> Who {
        Who {
            nats: "user operator".to_owned(),
            user: "alice (1000)".to_owned(),
        }
    }

    #[test]
    fn entries_are_in_a_private_file_and_outlive_the_console() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state").join("console.log");
        let journal = Journal::open(path.clone(), who()).expect("open");
        journal
            .write(Some(7), "discard \"x\"", "begun")
            .expect("write");
        journal
            .write(Some(7), "discard \"x\"", "done: 1 discarded\nall")
            .expect("write");
        let mode = std::fs::metadata(&path).expect("it exists").permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        std::fs::write(folder.path().join("junk"), "").expect("write");
        let again = Journal::open(path.clone(), who()).expect("open");
        assert_eq!(again.newest(), journal.newest());
        assert_eq!(again.newest()[0].outcome, "done: 1 discarded\nall");
        let text = std::fs::read_to_string(&path).expect("read");
        assert_eq!(text.lines().count(), 2, "one line each: {text}");
        assert!(Journal::open(folder.path().to_owned(), who()).is_err());
    }

    /// The machine went down within the last line, or the disk was full.
    #[test]
    fn a_torn_last_line_does_not_hide_later_ones() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("console.log");
        let journal = Journal::open(path.clone(), who()).expect("open");
        journal.write(None, "first", "done").expect("write");
        journal.write(None, "torn", "done").expect("write");
        let text = std::fs::read_to_string(&path).expect("read");
        std::fs::write(&path, &text[..text.len() - 9]).expect("write");
        let again = Journal::open(path.clone(), who()).expect("open");
        again.write(None, "second", "begun").expect("write");
        again.write(None, "second", "done").expect("write");
        let read = Journal::open(path, who()).expect("open").newest();
        let read: Vec<_> = read.iter().map(|entry| &*entry.what).collect();
        assert_eq!(read, ["second", "second", "first"]);
        let text = std::fs::read_to_string(folder.path().join("console.log")).expect("read");
        assert_eq!(text.lines().count(), 4, "no empty lines: {text}");
    }

    #[test]
    fn memory_has_the_newest_entries_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("console.log");
        let line = |at: usize| {
            let who = who();
            let entry = Entry {
                at: at.to_string(),
                nats: who.nats,
                user: who.user,
                action: None,
                what: "x".repeat(900),
                outcome: "done".to_owned(),
            };
            serde_json::to_string(&entry).expect("JSON") + "\n"
        };
        std::fs::write(&path, (0..2_000).map(line).collect::<String>()).expect("write");
        let journal = Journal::open(path, who()).expect("open");
        let newest = journal.newest();
        assert_eq!((newest.len(), &*newest[0].at), (KEPT, "1999"));
    }

    #[test]
    fn the_name_of_a_user_is_looked_up() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("passwd");
        std::fs::write(
            &file,
            "root:x:0:0::/root:/bin/sh\nbad\nada:x:1001:1001:Ada:/:/bin/sh\n",
        )
        .expect("write");
        assert_eq!(name_of(1001, &file).as_deref(), Some("ada"));
        assert_eq!(name_of(7, &file), None);
    }
}
