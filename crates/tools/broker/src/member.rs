//! The part of a server in a cluster, and what its monitoring says.

use std::{
    fmt::Write as _,
    io::{self, Read, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::Value;

/// How long a server may take to say how it is.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// The part of a server in a cluster.
#[derive(Clone, Debug)]
pub struct Member {
    /// The cluster's name.
    pub(crate) name: String,
    /// Where the other servers reach it, on 127.0.0.1.
    pub(crate) port: u16,
    /// Where it says how it is, over HTTP.
    pub(crate) monitor: u16,
    /// Where the others are reached.
    pub(crate) routes: Vec<u16>,
}

impl Member {
    /// What a configuration has for it.
    ///
    /// A server that retires waits a second, not ten, before it closes its connections: here nobody needs longer.
    pub(crate) fn text(&self) -> String {
        let Self {
            name,
            port,
            monitor,
            ..
        } = self;
        let mut text = format!(
            "http: \"127.0.0.1:{monitor}\"\n\
             lame_duck_duration: \"30s\"\n\
             lame_duck_grace_period: \"1s\"\n\
             cluster {{\n  \
               name: \"{name}\"\n  \
               listen: \"127.0.0.1:{port}\"\n  \
               routes: [\n"
        );
        for route in &self.routes {
            let _infallible = writeln!(text, "    \"nats://127.0.0.1:{route}\"");
        }
        text + "  ]\n}\n"
    }

    /// Whether this server reaches the cluster's leader and has all that it should: its streams, up to date.
    pub(crate) fn health(&self) -> Result<(), String> {
        let asked = get(self.monitor, "/healthz").map_err(|error| error.to_string())?;
        if asked["status"] == "ok" {
            Ok(())
        } else {
            Err(asked.to_string())
        }
    }

    /// The name of the server that leads the cluster, as far as this one knows.
    pub(crate) fn leader(&self) -> Option<String> {
        let asked = get(self.monitor, "/jsz").ok()?;
        asked["meta_cluster"]["leader"].as_str().map(str::to_owned)
    }
}

/// What the monitoring of a server says.
fn get(port: u16, path: &str) -> io::Result<Value> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_WITHIN)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok(serde_json::from_str(body)?)
}
