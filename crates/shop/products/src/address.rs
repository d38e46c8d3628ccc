//! Web addresses of images.

use headwater::http::network;
use headwater::text;
use url::{Host, Url};

/// The hosts that an image may be on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hosts {
    /// Hosts on the public Internet. An address in the reader's private network could make the
    /// reader's browser or program do something there.
    Public,
    /// All hosts.
    Any,
}

/// Why an address is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    #[error("{0}")]
    Text(text::Unfit),
    #[error("must not have \\ in it")]
    Backslash,
    #[error("must be an http(s) URL, or a path that POST /images gave (/images/…)")]
    NoUrl,
    #[error("must have only the address in it")]
    Hidden,
    #[error("must not have a user name in it: {0}://…@…")]
    UserName(String),
    #[error("must be on a public host; {0} is on this machine or on a private network")]
    PrivateHost(Host),
}

/// Checks that `image` is an http(s) URL without a user name, on one of `hosts`. Host names are
/// not resolved.
pub(crate) fn check(image: &str, hosts: Hosts) -> Result<(), Unfit> {
    text::check_line(image).map_err(Unfit::Text)?;
    // With a backslash, programs disagree on where the host ends.
    if image.contains('\\') {
        return Err(Unfit::Backslash);
    }
    let url = Url::parse(image).ok().filter(is_http);
    let host = url.as_ref().and_then(Url::host);
    let (Some((scheme, rest)), Some(host)) = (image.split_once("://"), host) else {
        return Err(Unfit::NoUrl);
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if scheme.trim_start() != scheme || !authority.chars().all(text::is_visible) {
        return Err(Unfit::Hidden);
    }
    if authority.contains('@') {
        return Err(Unfit::UserName(scheme.to_owned()));
    }
    if hosts == Hosts::Public && !is_public(&host) {
        return Err(Unfit::PrivateHost(host.to_owned()));
    }
    Ok(())
}

fn is_http(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https") && url.has_host()
}

fn is_public(host: &Host<&str>) -> bool {
    match *host {
        Host::Domain(name) => network::is_public_name(name),
        Host::Ipv4(address) => network::is_public(address.into()),
        Host::Ipv6(address) => network::is_public(address.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_hosts_are_taken() {
        for image in [
            "https://example.com/mug.webp",
            "HTTP://example.com",
            "http://xn--bcher-kva.example:8080/a?b=c@d#e@f",
            "https://bücher.example/ä.png",
            "https://localhost.example.com/x",
            "https://notlocal.com/x",
            "http://127.example.com/x",
            "https://example.com/a mug.png",
            "http://9.9.9.9/x",
            "http://[2620:fe::fe]/x",
            "http://[::ffff:9.9.9.9]/x",
            "http://[2002:909:909::1]/x",
        ] {
            assert_eq!(check(image, Hosts::Public), Ok(()), "{image}");
        }
    }

    #[test]
    fn private_hosts_are_refused_however_they_are_written_unless_they_are_allowed() {
        for host in [
            "localhost",
            "LOCALHOST",
            "localhost.",
            "a.localhost",
            "printer.local",
            "printer.local.",
            "nas.home.arpa",
            "metadata.google.internal",
            "intranet",
            "products:8082",
            "127.0.0.1",
            "127.0.0.1.",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "0177.0.0.1",
            "%31%32%37.0.0.1",
            "１２７.0.0.1",
            "127。0。0。1",
            "0.0.0.0",
            "0",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "192.0.0.8",
            "192.0.2.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[::ffff:a9fe:a9fe]",
            "[::127.0.0.1]",
            "[64:ff9b::7f00:1]",
            "[fe80::1]",
            "[fec0::1]",
            "[fd00::1]",
            "[ff02::1]",
            "[2001::1]",
            "[2001:db8::1]",
            "[2002:7f00:1::]",
            "[2002:c0a8:101::]",
            "[3fff::1]",
            "[4000::1]",
        ] {
            for image in [format!("http://{host}/x.png"), format!("https://{host}")] {
                let refused = check(&image, Hosts::Public);
                assert!(
                    matches!(refused, Err(Unfit::PrivateHost(_))),
                    "{image}: {refused:?}"
                );
                assert_eq!(check(&image, Hosts::Any), Ok(()), "{image}");
            }
        }
    }

    #[test]
    fn user_names_and_what_programs_do_not_agree_on_are_refused() {
        for image in [
            "https://ada@example.com/x",
            "https://ada:secret@example.com/x",
            "https://:secret@example.com/x",
            "https://@example.com/x",
            "https://example.com\\@127.0.0.1/x",
            "https:\\\\example.com/x",
            "https:/example.com/x",
            "https:example.com/x",
            "https://exam\nple.com/x",
            " https://example.com/x",
            "https://example.com/x\u{202e}gnp",
            "https://exam\u{200b}ple.com/x",
        ] {
            assert!(check(image, Hosts::Any).is_err(), "{image}");
        }
    }
}
