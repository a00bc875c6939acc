//! Where a request comes from, as far as it can be known.

use std::net::{IpAddr, SocketAddr};

use axum::{
    extract::ConnectInfo,
    http::{HeaderMap, request::Parts},
};

use super::Api;

/// The client's address: the peer, or, when the peer is a proxy of ours, what that proxy wrote into `X-Forwarded-For`.
///
/// Each proxy appends the address it was called from, so the list is read from the right for as long as proxies of ours
/// stand there; the first other address is the client. What stands to its left is the client's own invention.
pub(super) fn address(api: &Api, parts: &Parts) -> Option<IpAddr> {
    address_through(&api.settings.trusted_proxies, parts)
}

/// As [`address`], for whoever has the proxies of `server.trusted_proxies` at hand.
pub(crate) fn address_through(trusted: &[IpAddr], parts: &Parts) -> Option<IpAddr> {
    peer(parts).map(|peer| behind(peer, &parts.headers, trusted))
}

/// Whether the peer is a proxy of ours, whose headers are believed.
pub(crate) fn is_through(trusted: &[IpAddr], parts: &Parts) -> bool {
    peer(parts).is_some_and(|peer| is_ours(peer.to_canonical(), trusted))
}

fn peer(parts: &Parts) -> Option<IpAddr> {
    parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip())
}

fn behind(peer: IpAddr, headers: &HeaderMap, trusted: &[IpAddr]) -> IpAddr {
    let mut client = peer.to_canonical();
    let lines: Vec<&str> =
        headers.get_all("x-forwarded-for").iter().map(|line| line.to_str().unwrap_or_default()).collect();
    for hop in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
        if !is_ours(client, trusted) {
            break;
        }
        // What a proxy of ours did not write as an address leaves the proxy itself: known, and never forged.
        let Some(address) = hop_address(hop.trim()) else { break };
        client = address;
    }
    client
}

fn is_ours(peer: IpAddr, trusted: &[IpAddr]) -> bool {
    trusted.iter().any(|proxy| proxy.to_canonical() == peer)
}

/// `203.0.113.7`, `203.0.113.7:4711`, `[2001:db8::1]:4711` or `2001:db8::1`.
fn hop_address(hop: &str) -> Option<IpAddr> {
    let bare = hop.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(hop);
    let address = bare.parse().ok().or_else(|| hop.parse::<SocketAddr>().ok().map(|socket| socket.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn atk_056_forwarded_addresses_count_from_the_right_through_our_proxies() {
        let trusted = [ip("10.0.0.7"), ip("::ffff:10.0.0.8")];
        for (peer, lines, client) in [
            // Not a proxy of ours: its header is its own invention.
            ("203.0.113.9", &["198.51.100.1"][..], "203.0.113.9"),
            ("10.0.0.7", &["198.51.100.1, 203.0.113.5"], "203.0.113.5"),
            ("10.0.0.7", &["1.1.1.1, 198.51.100.1, 10.0.0.8"], "198.51.100.1"),
            ("10.0.0.7", &["1.1.1.1", "203.0.113.5"], "203.0.113.5"),
            ("10.0.0.7", &["203.0.113.5, "], "10.0.0.7"),
            ("10.0.0.7", &["1.1.1.1, nonsense"], "10.0.0.7"),
            ("10.0.0.7", &["203.0.113.5:4711"], "203.0.113.5"),
            ("10.0.0.7", &["[2001:db8::1]:4711"], "2001:db8::1"),
            ("10.0.0.7", &["::ffff:203.0.113.5"], "203.0.113.5"),
            ("::ffff:10.0.0.7", &["203.0.113.5"], "203.0.113.5"),
            ("10.0.0.7", &[], "10.0.0.7"),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("x-forwarded-for", line.parse().expect("a header"));
            }
            assert_eq!(behind(ip(peer), &headers, &trusted), ip(client), "{peer} {lines:?}");
        }
    }
}
