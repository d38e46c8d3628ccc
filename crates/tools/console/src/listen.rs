//! The address that the console listens on.

use std::net::SocketAddr;

/// Checks `--listen`: other machines never reach the console.
pub(crate) fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text
        .parse()
        .map_err(|_| "must be an address with a port, such as 127.0.0.1:7777".to_owned())?;
    if address.ip().is_loopback() {
        return Ok(address);
    }
    Err(
        "must be a loopback address, such as 127.0.0.1:7777; from another machine, use `ssh -L`"
            .to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_console_listens_on_loopback_only() {
        for good in ["127.0.0.1:0", "127.9.9.9:80", "[::1]:7777"] {
            assert!(loopback(good).is_ok(), "{good}");
        }
        for bad in [
            "0.0.0.0:80",
            "[::]:80",
            "192.168.0.1:80",
            "127.0.0.1",
            "localhost:80",
        ] {
            assert!(loopback(bad).is_err(), "{bad}");
        }
    }
}
