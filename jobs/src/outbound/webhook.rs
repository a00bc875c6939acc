//! Receivers of webhooks: where they are, what they are sent, and what came of it.
//!
//! Whoever runs a business says where its receiver is, and muneem calls that address from inside a network. So an address
//! is read strictly, and what a name leads to is looked at when it is connected to: [`is_public`] and [`WebhookUrl`] are
//! the rules, the real sender obeys them at every connection.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use url::{Host, Url};

/// Longest address of a receiver.
const LONGEST_URL: usize = 2048;
/// Ports that a receiver may listen on.
const PORTS: [u16; 2] = [443, 8443];
/// Names that lead nowhere but into a network of somebody's own (RFC 6761, RFC 6762, RFC 8375; `internal` is ICANN's).
const INNER_NAMES: [&str; 4] = ["localhost", "local", "internal", "home.arpa"];

/// Where a receiver is: an `https` address that may be called. `Debug` shows no path, which may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookUrl {
    url: Url,
    loopback: bool,
}

/// Why an address is none that webhooks go to. It never repeats the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the address {problem}: {mend}")]
pub struct BadUrl {
    /// What is wrong.
    pub problem: &'static str,
    /// What to do.
    pub mend: &'static str,
}

const fn bad(problem: &'static str, mend: &'static str) -> BadUrl {
    BadUrl { problem, mend }
}

impl WebhookUrl {
    /// Reads an address. With `loopback`, which is for sandbox mode alone, receivers on this machine are taken too, by
    /// any port and by plain `http`.
    ///
    /// # Errors
    /// [`BadUrl`]: not https, an unusual port, somebody's name and password in it, a host that is written in a way that
    /// two programs read differently, a name or address of a network of somebody's own.
    pub fn parse(text: &str, loopback: bool) -> Result<Self, BadUrl> {
        if text.len() > LONGEST_URL {
            return Err(bad("is longer than 2048 characters", "shorten it"));
        }
        // URL parsers drop line breaks and turn backslashes: what was typed would not be what is called.
        if !text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\') {
            return Err(bad(
                "holds a space, a backslash or a character that is not ASCII",
                "percent-encode the path, and write the host in its ASCII form (xn--…)",
            ));
        }
        let url = Url::parse(text).map_err(|_| bad("cannot be read", "write https://host/path"))?;
        let authority = text.split_once("://").map(|(_, rest)| rest).unwrap_or_default();
        let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.contains('@') || !url.username().is_empty() || url.password().is_some() {
            return Err(bad(
                "holds a user name or password",
                "check the signature instead; leave out what is before @",
            ));
        }
        if url.fragment().is_some() {
            return Err(bad("holds a #fragment, which is never sent", "leave it out"));
        }
        let host = url.host().ok_or(bad("names no host", "write https://host/path"))?;
        let typed = match authority.strip_prefix('[') {
            Some(_) => None,
            None => Some(authority.rsplit_once(':').map_or(authority, |(host, _)| host)),
        };
        let read = url.host_str().unwrap_or_default();
        if typed.is_some_and(|typed| !typed.eq_ignore_ascii_case(read)) {
            return Err(bad("writes its host in an unusual way", "write the name, or an address in its usual form"));
        }
        let here = loopback && is_loopback(&host);
        match &host {
            _ if here => {}
            Host::Ipv4(address) if is_public((*address).into()) => {}
            Host::Ipv6(address) if is_public((*address).into()) => {}
            Host::Ipv4(_) | Host::Ipv6(_) => {
                return Err(bad("is not on the public internet", "give one that everybody can reach"));
            }
            Host::Domain(name) if is_inner_name(name) => {
                return Err(bad("names a host of a network of somebody's own", "give a name of the public DNS"));
            }
            Host::Domain(_) => {}
        }
        match url.scheme() {
            "https" => {}
            "http" if here => {}
            _ => return Err(bad("is not https", "give the receiver a certificate and write https://")),
        }
        if !here && url.port().is_some_and(|port| !PORTS.contains(&port)) {
            return Err(bad("names an unusual port", "listen on 443 or 8443"));
        }
        Ok(Self { url, loopback })
    }

    /// The whole address: it may be a secret.
    pub fn expose(&self) -> &str {
        self.url.as_str()
    }

    /// Scheme, host and port: what may be shown.
    pub fn origin(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    /// The address that stands in it, where it names none by name: no resolver is asked for that.
    pub fn literal(&self) -> Option<IpAddr> {
        match self.url.host()? {
            Host::Ipv4(address) => Some(address.into()),
            Host::Ipv6(address) => Some(address.into()),
            Host::Domain(_) => None,
        }
    }

    /// Whether it may be connected to at this address.
    pub fn may_reach(&self, address: IpAddr) -> bool {
        may_reach(address, self.loopback)
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WebhookUrl").field(&self.origin()).finish()
    }
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => name.eq_ignore_ascii_case("localhost"),
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    }
}

/// A single label, a name with a dot at its end, or one of [`INNER_NAMES`].
fn is_inner_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let inner = INNER_NAMES.iter().any(|inner| name.strip_suffix(inner).is_some_and(|rest| rest.ends_with('.')));
    inner || name.ends_with('.') || !name.contains('.')
}

/// Whether a webhook may be sent to this address; with `loopback` also to this machine.
pub fn may_reach(address: IpAddr, loopback: bool) -> bool {
    is_public(address) || (loopback && address.to_canonical().is_loopback())
}

/// Whether an address is one of the public internet: none of the special ones (IANA special-purpose address registries,
/// RFC 6890), none that carries another address inside, none that a cloud keeps for itself.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(address) => is_public_v4(address),
            None => is_public_v6(address),
        },
    }
}

/// Not public: first address and length of prefix.
const NOT_PUBLIC_V4: &[(Ipv4Addr, u8)] = &[
    (Ipv4Addr::new(0, 0, 0, 0), 8),        // this network, RFC 791
    (Ipv4Addr::new(10, 0, 0, 0), 8),       // private, RFC 1918
    (Ipv4Addr::new(100, 64, 0, 0), 10),    // carriers' own, RFC 6598
    (Ipv4Addr::new(127, 0, 0, 0), 8),      // loopback, RFC 1122
    (Ipv4Addr::new(168, 63, 129, 16), 32), // Azure's host, which answers its machines alone
    (Ipv4Addr::new(169, 254, 0, 0), 16),   // link-local, RFC 3927: metadata of clouds
    (Ipv4Addr::new(172, 16, 0, 0), 12),    // private, RFC 1918
    (Ipv4Addr::new(192, 0, 0, 0), 24),     // protocol assignments, RFC 6890
    (Ipv4Addr::new(192, 0, 2, 0), 24),     // documentation, RFC 5737
    (Ipv4Addr::new(192, 88, 99, 0), 24),   // 6to4 relays, RFC 7526
    (Ipv4Addr::new(192, 168, 0, 0), 16),   // private, RFC 1918
    (Ipv4Addr::new(198, 18, 0, 0), 15),    // benchmarks, RFC 2544
    (Ipv4Addr::new(198, 51, 100, 0), 24),  // documentation, RFC 5737
    (Ipv4Addr::new(203, 0, 113, 0), 24),   // documentation, RFC 5737
    (Ipv4Addr::new(224, 0, 0, 0), 4),      // multicast, RFC 5771
    (Ipv4Addr::new(240, 0, 0, 0), 4),      // reserved, RFC 1112, and broadcast
];

/// Not public although within 2000::/3, which alone is given out (RFC 4291).
const NOT_PUBLIC_V6: &[(Ipv6Addr, u8)] = &[
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23), // protocols: Teredo (an IPv4 address inside), ORCHID, benchmarks
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32), // documentation, RFC 3849
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16), // 6to4: an IPv4 address inside, RFC 3056
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20), // documentation, RFC 9637
];

fn is_public_v4(address: Ipv4Addr) -> bool {
    let within =
        |&(base, length): &(Ipv4Addr, u8)| (address.to_bits() ^ base.to_bits()).leading_zeros() >= u32::from(length);
    !NOT_PUBLIC_V4.iter().any(within)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let within = |base: Ipv6Addr, length: u8| (address.to_bits() ^ base.to_bits()).leading_zeros() >= u32::from(length);
    // ISATAP carries an IPv4 address in any prefix (RFC 5214).
    let [.., high, low, _, _] = address.segments();
    let isatap = low == 0x5efe && matches!(high, 0 | 0x200);
    within(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3)
        && !isatap
        && !NOT_PUBLIC_V6.iter().any(|&(base, length)| within(base, length))
}

/// One POST to a receiver.
#[derive(Clone)]
pub struct WebhookCall {
    /// Where to.
    pub url: WebhookUrl,
    /// `webhook-id`
    pub id: String,
    /// `webhook-timestamp`: of the attempt, in seconds since 1970.
    pub timestamp: i64,
    /// `webhook-signature`: one for each secret in force.
    pub signature: String,
    /// The exact bytes that were signed.
    pub body: Bytes,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookOutcome {
    /// The answer, or why there is none.
    pub answer: Result<WebhookAnswer, WebhookFailure>,
    /// From the first look at the address to the head of the answer.
    pub took: Duration,
}

/// The head of an answer. Its body is nobody's business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookAnswer {
    /// HTTP status.
    pub status: u16,
    /// `Retry-After` as it stands there, if it is short and clean.
    pub retry_after: Option<String>,
}

/// Why there is no answer. The receiver may have acted all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookFailure {
    /// Its name leads to an address that is not public, or the address itself is not.
    Address,
    /// Its name leads nowhere.
    Name,
    /// Nobody answers there.
    Connect,
    /// Its certificate, or its TLS, is not good.
    Tls,
    /// No answer in time.
    TimedOut,
    /// The connection broke.
    Broken,
}

impl WebhookFailure {
    /// As it stands in rows, metrics and lists.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Name => "name",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::TimedOut => "timed_out",
            Self::Broken => "broken",
        }
    }
}

/// Posts to receivers: once a call, with a time-out, following nothing, and only where [`WebhookUrl::may_reach`] allows
/// at the very address that is connected to.
#[async_trait]
pub trait WebhookSender: Send + Sync + 'static {
    /// Posts once.
    async fn post(&self, call: &WebhookCall) -> WebhookOutcome;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused(text: &str) -> bool {
        WebhookUrl::parse(text, false).is_err()
    }

    #[test]
    fn addresses_of_public_receivers_are_taken_as_they_are_typed() {
        for good in [
            "https://hooks.example.in/muneem?key=1",
            "https://HOOKS.example.in:8443/",
            "https://hooks.example.in:443/a%20b",
            "https://xn--11b5bs3a9aj6g.example/",
            "https://8.8.8.8/hook",
            "https://[2606:4700:4700::1111]/hook",
        ] {
            let url = WebhookUrl::parse(good, false).unwrap_or_else(|error| panic!("{good}: {error}"));
            assert!(url.expose().starts_with("https://"));
        }
        let url = WebhookUrl::parse("https://hooks.example.in/services/T0/s3cret?token=s3cret", false).expect("good");
        assert_eq!(url.origin(), "https://hooks.example.in");
        assert!(!format!("{url:?}").contains("s3cret"));
    }

    #[test]
    fn atk_014_addresses_of_inner_networks_are_refused_when_they_are_saved() {
        for bad in [
            "http://169.254.169.254/",
            "https://169.254.169.254/latest/meta-data/",
            "https://localhost/",
            "https://LOCALHOST/",
            "https://localhost./",
            "https://db.localhost/",
            "https://[::1]/",
            "https://10.0.0.1/",
            "https://metadata.google.internal/",
            "https://printer.local/",
            "https://postgres/",
            "https://hooks.example.in./",
            "https://router.home.arpa/",
            "https://168.63.129.16/",
            "https://[fd00:ec2::254]/",
            "https://[fe80::1%25eth0]/",
            "https://[fe80::1%eth0]/",
        ] {
            assert!(refused(bad), "{bad}");
        }
    }

    #[test]
    fn atk_015_every_way_to_write_loopback_is_refused() {
        for host in [
            "0x7f000001",
            "2130706433",
            "127.1",
            "127.0.1",
            "0177.0.0.1",
            "017700000001",
            "0x7f.0.0.1",
            "0X7F.1",
            "127.0.0.1.",
            "127.0.0.1",
            "0",
            "0.0.0.0",
            "\u{ff10}.0.0.0",
            "\u{2460}27.0.0.1",
            "127\u{3002}0\u{3002}0\u{3002}1",
            "%31%32%37.0.0.1",
            "127.0.0.1%00.example.in",
            "[::127.0.0.1]",
            "[0:0:0:0:0:0:0:1]",
        ] {
            for loopback in [false, true] {
                let text = format!("https://{host}/");
                let taken = WebhookUrl::parse(&text, loopback);
                let plain = loopback && matches!(host, "127.0.0.1" | "[0:0:0:0:0:0:0:1]");
                assert_eq!(taken.is_ok(), plain, "{text}");
            }
        }
    }

    #[test]
    fn atk_016_addresses_with_another_inside_are_not_public() {
        for inner in [
            "::ffff:127.0.0.1",
            "::ffff:a00:1",
            "::ffff:169.254.169.254",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "64:ff9b::a00:1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::a00:1",
            "2001:0:a00:1::",
            "::10.0.0.1",
            "2606:4700::5efe:10.0.0.1",
            "2606:4700::200:5efe:10.0.0.1",
            "::",
            "::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "100::1",
            "2001:db8::1",
            "3fff::1",
            "5f00::1",
            "100.64.0.1",
            "100.100.100.200",
            "0.1.2.3",
            "127.255.255.254",
            "172.31.255.255",
            "192.0.0.192",
            "192.168.0.1",
            "198.19.255.255",
            "224.0.0.251",
            "255.255.255.255",
        ] {
            let address: IpAddr = inner.parse().unwrap_or_else(|_| panic!("{inner}"));
            assert!(!is_public(address), "{inner}");
            let url = if address.is_ipv6() { format!("https://[{inner}]/") } else { format!("https://{inner}/") };
            assert!(refused(&url), "{url}");
        }
        for outer in ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700:4700::1111", "::ffff:8.8.8.8"] {
            assert!(is_public(outer.parse().expect("an address")), "{outer}");
        }
    }

    #[test]
    fn atk_019_credentials_tricks_and_ports_of_other_services_are_refused() {
        for bad in [
            "https://user:pass@hooks.example.in/",
            "https://user@hooks.example.in/",
            "https://@hooks.example.in/",
            "https://:@hooks.example.in/",
            "https://hooks.example.in@127.0.0.1/",
            "https://127.0.0.1#@hooks.example.in/",
            "https://hooks.example.in#@127.0.0.1/",
            "https://hooks.example.in/#here",
            "https://hooks.example.in\\@127.0.0.1/",
            "https:\\\\hooks.example.in/",
            "https://hooks.example.in/\r\nhost: inner",
            "https://hooks.example.in/\ta",
            "ht\ntps://hooks.example.in/",
            "https://hooks.ex\u{430}mple.in/",
            "https://hooks.example.in:22/",
            "https://hooks.example.in:5432/",
            "https://hooks.example.in:6379/",
            "https://hooks.example.in:0/",
            "https://hooks.example.in:99999/",
            "http://hooks.example.in/",
            "ftp://hooks.example.in/",
            "file:///etc/passwd",
            "gopher://hooks.example.in/",
            "https:hooks.example.in",
            "https:///hooks.example.in/",
            "//hooks.example.in/",
            "hooks.example.in",
            "",
        ] {
            assert!(refused(bad), "{bad:?}");
            assert!(WebhookUrl::parse(bad, true).is_err(), "{bad:?} in the sandbox");
        }
        assert!(refused(&format!("https://hooks.example.in/{}", "a".repeat(2048))));
    }

    #[test]
    fn only_the_sandbox_takes_receivers_on_this_machine_and_no_other_inner_ones() {
        for here in ["http://127.0.0.1:9999/hook", "http://localhost:3000/", "http://[::1]:8080/", "https://127.0.0.1/"]
        {
            assert!(refused(here), "{here}");
            assert!(WebhookUrl::parse(here, true).is_ok(), "{here}");
        }
        for inner in ["http://10.0.0.1/", "https://192.168.1.1/", "http://169.254.169.254/", "http://hooks.example.in/"]
        {
            assert!(WebhookUrl::parse(inner, true).is_err(), "{inner}");
        }
        assert!(may_reach(Ipv4Addr::LOCALHOST.into(), true) && !may_reach(Ipv4Addr::LOCALHOST.into(), false));
        assert!(!may_reach(Ipv4Addr::new(10, 0, 0, 1).into(), true));
    }

    proptest! {
        /// Whatever is typed: what is taken names a host exactly as it is connected to, and no inner address.
        #[test]
        fn atk_015_whatever_is_typed_is_refused_or_called_as_it_stands(
            scheme in "(https|http|HTTPS|ftp)",
            host in "(\\[[0-9a-f:.%]{1,20}\\]|[0-9a-fx.%@:-]{1,24}|[a-z0-9-]{1,12}\\.[a-z]{2,5}\\.?)",
            tail in "(:[0-9]{1,6})?(/[ -~]{0,12})?",
        ) {
            if let Ok(url) = WebhookUrl::parse(&format!("{scheme}://{host}{tail}"), false) {
                prop_assert!(url.expose().starts_with("https://"));
                if let Some(address) = url.literal() {
                    prop_assert!(is_public(address), "{}", address);
                }
                let again = WebhookUrl::parse(url.expose(), false);
                prop_assert_eq!(again.as_ref(), Ok(&url));
            }
        }

        #[test]
        fn atk_016_an_address_is_as_public_as_the_one_mapped_inside(bits in any::<u32>()) {
            let inner = Ipv4Addr::from_bits(bits);
            prop_assert_eq!(is_public(inner.into()), is_public(inner.to_ipv6_mapped().into()));
            let public = !(inner.is_private() || inner.is_loopback() || inner.is_link_local() || inner.is_broadcast()
                || inner.is_documentation() || inner.is_multicast() || inner.is_unspecified());
            prop_assert!(public || !is_public(inner.into()), "{}", inner);
        }
    }
}
