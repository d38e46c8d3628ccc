//! The ports, checked before anything is started.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context as _, bail};

use crate::Args;
use crate::service::Service;

/// Reserved ports: nothing else can take them while the services are being built.
#[derive(Debug)]
pub(crate) struct Claim {
    ports: Ports,
    room: Option<TcpListener>,
    _reserved: Vec<TcpListener>,
}

/// The ports of the services, in the order of [`Service::all`].
#[derive(Clone, Debug)]
pub(crate) struct Ports {
    public: Vec<u16>,
    /// Ports for health and metrics.
    admin: Vec<u16>,
}

/// The distance of the admin ports from the public ones.
const ADMIN_OFFSET: u16 = 1000;

/// The distance of the control room's port from that of purchases.
const ROOM_OFFSET: u16 = 100;

/// Reserves the ports that `args` ask for.
pub(crate) fn claim(args: &Args) -> anyhow::Result<Claim> {
    let mut reserved = Vec::new();
    let mut claimed = |from: u16| -> anyhow::Result<Vec<u16>> {
        let mut ports = Vec::new();
        for service in Service::all() {
            let wanted = match args.http_port {
                0 => 0,
                first => first + from + service.offset(),
            };
            let listener = take(wanted, service.name(), "--http-port (0: free ports)")?;
            ports.push(listener.local_addr().context("read a port")?.port());
            reserved.push(listener);
        }
        Ok(ports)
    };
    let ports = Ports {
        public: claimed(0)?,
        admin: claimed(ADMIN_OFFSET)?,
    };
    if args.nats_url.is_none() && args.nats_port != 0 {
        let flags = "--nats-port (0: a free port), or use the broker there with --nats-url";
        reserved.push(take(args.nats_port, "NATS", flags)?);
    }
    let room = match args.room_port {
        _ if args.no_room => None,
        Some(port) => Some(port),
        None if args.http_port == 0 => Some(0),
        None => Some(args.http_port + ROOM_OFFSET),
    };
    let flags = "--room-port (0: a free port), or leave it out with --no-room";
    let room = room.map(|port| take(port, "the control room", flags));
    Ok(Claim {
        ports,
        room: room.transpose()?,
        _reserved: reserved,
    })
}

fn take(port: u16, whose: &str, flags: &str) -> anyhow::Result<TcpListener> {
    if port == 0 {
        return broker::free_listener().with_context(|| format!("find a port for {whose}"));
    }
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == ErrorKind::AddrInUse => bail!(
            "port {port}, for {whose}, is used by another program; stop it, or choose another port with {flags}"
        ),
        Err(error) => Err(error).with_context(|| {
            format!("listen on port {port}, for {whose}; choose another port with {flags}")
        }),
    }
}

impl Claim {
    /// Releases the ports for the services; the control room listens from now on.
    pub(crate) fn release(self) -> (Ports, Option<TcpListener>) {
        (self.ports, self.room)
    }
}

impl Ports {
    pub(crate) fn of(&self, service: Service) -> u16 {
        self.public[service.number()]
    }

    /// The port for health and metrics.
    pub(crate) fn admin(&self, service: Service) -> u16 {
        self.admin[service.number()]
    }

    /// `http://127.0.0.1:8080`
    pub(crate) fn url(&self, service: Service) -> String {
        format!("http://127.0.0.1:{}", self.of(service))
    }
}
