//! Which hosts are on the public Internet. A request to another one, sent for a stranger, may do
//! something in our own network that they could not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Names that no public host has (RFC 6761, RFC 6762, RFC 8375, and ICANN's `internal`).
const PRIVATE_NAMES: [&str; 4] = ["localhost", "local", "home.arpa", "internal"];

/// Whether a host of this name may be public. Does not look it up: a public name may have a private
/// address. A name with one label belongs to a private network.
pub fn is_public_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_below = |private: &&str| {
        let rest = name.strip_suffix(private);
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    name.contains('.') && !PRIVATE_NAMES.iter().any(is_below)
}

/// Whether `address` is globally reachable, by IANA's registry of special-purpose addresses.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let special = match address.octets() {
        [0 | 240..=255, ..] | [192, 0, 0, _] | [198, 18..=19, ..] => true,
        [100, second, ..] => (64..=127).contains(&second),
        _ => false,
    };
    !(special
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast())
}

/// As [`is_public_v4`]: the public range (`2000::/3`), except documentation, tunnels and protocols,
/// and 6to4 of an IPv4 address that is not public.
fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(address) = address.to_ipv4_mapped() {
        return is_public_v4(address);
    }
    match address.segments() {
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        [0x2002, high, low, ..] => is_public_v4((u32::from(high) << 16 | u32::from(low)).into()),
        [first, ..] => first >> 13 == 1,
    }
}
