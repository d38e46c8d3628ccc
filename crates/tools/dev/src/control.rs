//! What the control room may ask of the system, and what it sees of it.

use tokio::sync::{mpsc, oneshot, watch};

/// Commands that wait for the system.
const WAITING_MAX: usize = 16;

/// What to do with a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Start,
    /// SIGTERM: it finishes what is in progress.
    Stop,
    /// SIGSTOP: its connections stay open, and it answers nothing.
    Pause,
    Continue,
    /// SIGKILL, as a crash.
    Kill,
}

impl Verb {
    pub(crate) const ALL: [Self; 5] = [
        Self::Start,
        Self::Stop,
        Self::Pause,
        Self::Continue,
        Self::Kill,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Pause => "pause",
            Self::Continue => "continue",
            Self::Kill => "kill",
        }
    }
}

/// The state of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Starting,
    Running,
    Paused,
    Stopping,
    /// It has ended because the control room stopped or killed it.
    Stopped,
}

impl State {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        }
    }
}

/// A process of the system, as the control room shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) name: &'static str,
    pub(crate) state: State,
    pub(crate) pid: u32,
}

/// A command to the system.
#[derive(Debug)]
pub(crate) struct Command {
    /// The name of a process.
    pub(crate) name: String,
    pub(crate) verb: Verb,
    /// Why it cannot be done, in a sentence.
    pub(crate) answer: oneshot::Sender<Result<(), String>>,
}

/// The system's side.
#[derive(Debug)]
pub(crate) struct Commands {
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) seen: watch::Sender<Vec<Seen>>,
}

/// The control room's side.
#[derive(Clone, Debug)]
pub(crate) struct Control {
    commands: mpsc::Sender<Command>,
    pub(crate) seen: watch::Receiver<Vec<Seen>>,
}

pub(crate) fn channel() -> (Control, Commands) {
    let (sender, commands) = mpsc::channel(WAITING_MAX);
    let (seen, receiver) = watch::channel(Vec::new());
    let control = Control {
        commands: sender,
        seen: receiver,
    };
    (control, Commands { commands, seen })
}

impl Control {
    /// Does `verb` to the process `name`; an error says why that is not possible.
    pub(crate) async fn command(&self, name: &str, verb: Verb) -> Result<(), String> {
        let (answer, answered) = oneshot::channel();
        let command = Command {
            name: name.to_owned(),
            verb,
            answer,
        };
        let ends = || "cargo dev is stopping.".to_owned();
        self.commands.send(command).await.map_err(|_| ends())?;
        answered.await.unwrap_or_else(|_| Err(ends()))
    }
}
