//! Waits until the server is ready: ours, and not another server on the same port.
//!
//! A NATS server sends a line `INFO {…}` to each new connection. Its `server_name` identifies our
//! server, and `jetstream` is true once the store is open.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::ExitStatus,
    time::Duration,
};

use serde_json::Value;

use crate::{
    child::Child,
    deadline,
    error::{self, Error},
    options::Port,
    tail::Tail,
};

/// How long a connection, or its first line, may take before a retry.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// The most bytes read of that line, which has about 500.
const INFO_BYTES_MAX: u64 = 64 * 1024;

/// The server to expect.
#[derive(Debug)]
pub(crate) struct Expected<'a> {
    pub(crate) name: &'a str,
    pub(crate) port: Port,
    /// The folder where the server writes its free port.
    pub(crate) ports: &'a Path,
    pub(crate) within: Duration,
}

/// Checks that nothing listens on `port`.
pub(crate) fn check_free(port: u16) -> Result<(), Error> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_closed_at_once) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(Error::PortTaken { port }),
        Err(error) => Err(error::io("listen on port", port)(error)),
    }
}

/// Waits until `child` is ready and returns its port.
pub(crate) fn wait(child: &mut Child, expected: &Expected<'_>, tail: &Tail) -> Result<u16, Error> {
    let mut last = "it has no port yet".to_owned();
    let ready = deadline::poll(expected.within, || {
        match child.wait(Duration::ZERO) {
            Ok(None) => {}
            Ok(Some(status)) => return Some(Err(ended(status, expected.port, tail))),
            Err(error) => return Some(Err(error)),
        }
        let port = port(expected)?;
        match introduction(port) {
            Ok(info) if info["server_name"] != expected.name => {
                Some(Err(Error::PortTaken { port }))
            }
            Ok(info) if info["jetstream"] == true => Some(Ok(port)),
            Ok(_) => {
                "JetStream has not started".clone_into(&mut last);
                None
            }
            Err(error) => {
                last = format!("port {port}: {error}");
                None
            }
        }
    });
    ready.unwrap_or_else(|| {
        Err(Error::NotReady {
            within: expected.within,
            last,
            log: tail.text(),
        })
    })
}

/// Why the server ended: if another program took the port after our check, that.
fn ended(status: ExitStatus, port: Port, tail: &Tail) -> Error {
    match port {
        Port::Fixed(port) => check_free(port).err(),
        Port::Free => None,
    }
    .unwrap_or_else(|| Error::Ended {
        status,
        log: tail.text(),
    })
}

/// The server's port, if known. The file, `{"nats":["nats://127.0.0.1:46411"]}`, may be half
/// written.
fn port(expected: &Expected<'_>) -> Option<u16> {
    if let Port::Fixed(port) = expected.port {
        return Some(port);
    }
    let file = fs::read_dir(expected.ports).ok()?.flatten().next()?.path();
    let ports: Value = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    ports["nats"][0].as_str()?.rsplit_once(':')?.1.parse().ok()
}

/// The `INFO` of the server on `port`; `Null` if it is not a NATS server.
fn introduction(port: u16) -> io::Result<Value> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let stream = TcpStream::connect_timeout(&address, ANSWER_WITHIN)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    let mut line = String::new();
    BufReader::new(stream.take(INFO_BYTES_MAX)).read_line(&mut line)?;
    let info = line.strip_prefix("INFO ").unwrap_or_default();
    Ok(serde_json::from_str(info).unwrap_or_default())
}
