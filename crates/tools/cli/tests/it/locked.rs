//! A server that requires a login.

use std::path::Path;
use std::process::Stdio;

use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::source::eventually;

/// Runs until it is dropped.
pub(crate) struct Locked {
    pub(crate) port: u16,
    folder: TempDir,
    _child: Child,
}

impl Locked {
    /// `who`: the `authorization` block, or other configuration of logins.
    pub(crate) async fn start(who: &str) -> Self {
        let folder = tempfile::tempdir().expect("make a folder");
        let path = |name: &str| folder.path().join(name);
        let text = format!(
            "listen: \"127.0.0.1:-1\"\njetstream {{ store_dir: \"{}\" }}\n{who}\n",
            path("jetstream").display()
        );
        // A repeated block extends the first one.
        std::fs::write(path("nats.conf"), text).expect("write");
        let server = broker::find(&|_| {}).expect("find nats-server");
        let child = Command::new(server.path)
            .arg("--config")
            .arg(path("nats.conf"))
            .arg("--ports_file_dir")
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("start nats-server");
        let port = eventually("the port", async || port(folder.path()).ok_or("none")).await;
        Self {
            port,
            folder,
            _child: child,
        }
    }

    /// Writes a file that lives as long as the server; returns its path.
    pub(crate) fn keep(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        let folder = path.parent().expect("a folder");
        std::fs::create_dir_all(folder).expect("make a folder");
        std::fs::write(&path, text).expect("write");
        path.to_str().expect("UTF-8").to_owned()
    }

    /// The value of `XDG_CONFIG_HOME` for contexts in `nats/context/`.
    pub(crate) fn home(&self) -> &str {
        self.folder.path().to_str().expect("UTF-8")
    }
}

/// The port of the server in `folder`, once it is known.
fn port(folder: &Path) -> Option<u16> {
    let mut files = std::fs::read_dir(folder).ok()?.flatten();
    let file = files.find(|file| file.path().extension().is_some_and(|ext| ext == "ports"))?;
    let text = std::fs::read_to_string(file.path()).ok()?;
    let ports: serde_json::Value = serde_json::from_str(&text).ok()?;
    let url = ports["nats"][0].as_str()?;
    url.rsplit_once(':')?.1.parse().ok()
}
