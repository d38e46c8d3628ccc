//! A server's membership in a cluster, and its monitoring endpoint.

use std::{
    fmt::Write as _,
    io::{self, Read, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::Value;

/// How long the monitoring endpoint may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// A server's membership in a cluster.
#[derive(Clone, Debug)]
pub struct Member {
    /// The cluster's name.
    pub(crate) name: String,
    /// The port on 127.0.0.1 for the other servers.
    pub(crate) port: u16,
    /// The port of the HTTP monitoring endpoint.
    pub(crate) monitor: u16,
    /// The ports of the other servers.
    pub(crate) routes: Vec<u16>,
}

impl Member {
    /// The member's part of the server's configuration.
    ///
    /// A retiring server waits one second instead of ten before it closes its connections: tests
    /// need no more.
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

    /// Whether this server reaches the cluster's leader and its streams are up to date.
    pub(crate) fn health(&self) -> Result<(), String> {
        let asked = get(self.monitor, "/healthz").map_err(|error| error.to_string())?;
        if asked["status"] == "ok" {
            Ok(())
        } else {
            Err(asked.to_string())
        }
    }

    /// The name of the cluster's leader, as far as this server knows.
    pub(crate) fn leader(&self) -> Option<String> {
        let asked = get(self.monitor, "/jsz").ok()?;
        asked["meta_cluster"]["leader"].as_str().map(str::to_owned)
    }
}

/// An answer of the server's monitoring endpoint.
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
