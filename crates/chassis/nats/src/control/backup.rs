//! `backup`, `backup.status` and `backup.stop`: a service copies its own database.

use serde::{Deserialize, Serialize};

/// The request of `backup`, `backup.status` and `backup.stop`: `{}`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupRequest {}

/// The status of the newest backup that an operator started: the answer of `backup`,
/// `backup.status` and `backup.stop`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupStatus {
    /// Its state.
    pub state: BackupState,
    /// When it began or, once it has ended, when it ended, in milliseconds since 1970; `None` if
    /// there was none since the service started.
    pub since: Option<i64>,
    /// The bytes copied so far.
    pub copied: u64,
    /// The bytes to copy; 0 if not yet known.
    pub total: u64,
    /// The folder of the copies, on the service's machine.
    pub folder: String,
    /// The number of copies that are kept there.
    pub keep: usize,
    /// The key file that a copy cannot be read without, and that is not copied, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<String>,
    /// The copy, once it is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<BackupCopy>,
    /// Why it failed, or what could not be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// The state of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackupState {
    /// There was none since the service started.
    Idle,
    /// It waits for another backup to the same folder.
    Waiting,
    /// The database is copied.
    Copying,
    /// The copy is checked, and its digest computed.
    Checking,
    /// It has succeeded.
    Done,
    /// It has failed or was stopped: there is no copy.
    Failed,
}

impl BackupState {
    /// Whether it is under way.
    pub fn is_running(self) -> bool {
        matches!(self, Self::Waiting | Self::Copying | Self::Checking)
    }
}

/// A complete, checked copy of a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupCopy {
    /// Its path, on the service's machine.
    pub file: String,
    /// Its size.
    pub bytes: u64,
    /// The position of the newest event in it.
    pub position: u64,
    /// The epoch of the database.
    pub epoch: String,
    /// Its digest, in hexadecimal.
    pub sha256: String,
    /// Older copies that were removed.
    pub removed: Vec<String>,
}
