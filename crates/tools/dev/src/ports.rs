//! The ports, looked at before anything is started.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context as _, bail};

use crate::Args;
use crate::service::Service;

/// Ports that are held, so that nobody takes them while the services are being built.
#[derive(Debug)]
pub(crate) struct Claim {
    ports: Ports,
    _held: Vec<TcpListener>,
}

/// Where the services listen, in the order of [`Service::ALL`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    public: [u16; 6],
    /// Of health and metrics.
    admin: [u16; 6],
}

/// How far those of health and metrics are from the public ones.
const ADMIN_OFFSET: u16 = 1000;

/// Takes the ports that `args` ask for.
pub(crate) fn claim(args: &Args) -> anyhow::Result<Claim> {
    let mut held = Vec::new();
    let mut claimed = |from: u16| -> anyhow::Result<[u16; 6]> {
        let mut ports = [0; 6];
        for (service, (port, offset)) in Service::ALL.iter().zip(ports.iter_mut().zip(from..)) {
            let wanted = match args.http_port {
                0 => 0,
                first => first + offset,
            };
            let listener = take(wanted, service.name(), "--http-port (0: free ones)")?;
            *port = listener.local_addr().context("read a port")?.port();
            held.push(listener);
        }
        Ok(ports)
    };
    let ports = Ports {
        public: claimed(0)?,
        admin: claimed(ADMIN_OFFSET)?,
    };
    if args.nats_url.is_none() && args.nats_port != 0 {
        let flags = "--nats-port (0: a free one), or use the broker there with --nats-url";
        held.push(take(args.nats_port, "NATS", flags)?);
    }
    Ok(Claim { ports, _held: held })
}

fn take(port: u16, whose: &str, flags: &str) -> anyhow::Result<TcpListener> {
    if port == 0 {
        return broker::free_listener().with_context(|| format!("find a port for {whose}"));
    }
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == ErrorKind::AddrInUse => bail!(
            "port {port}, for {whose}, is taken by another program; stop that, or choose another with {flags}"
        ),
        Err(error) => Err(error).with_context(|| {
            format!("listen on port {port}, for {whose}; choose another with {flags}")
        }),
    }
}

impl Claim {
    /// Lets the ports go, for the services to take.
    pub(crate) fn release(self) -> Ports {
        self.ports
    }
}

impl Ports {
    pub(crate) fn of(self, service: Service) -> u16 {
        self.public[service as usize]
    }

    /// Of its health and metrics.
    pub(crate) fn admin(self, service: Service) -> u16 {
        self.admin[service as usize]
    }

    /// `http://127.0.0.1:8080`
    pub(crate) fn url(self, service: Service) -> String {
        format!("http://127.0.0.1:{}", self.of(service))
    }
}
