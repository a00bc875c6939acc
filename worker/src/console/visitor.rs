//! What is known of whoever asks, before anybody is signed in.

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts},
};
use muneem_jobs::people::signin;
use secrecy::SecretString;

use super::{Console, cookies::Crumb};
use crate::http::client;

/// A browser and where it is.
pub(super) struct Visitor {
    /// The client's address, through our own proxies alone.
    pub(super) address: IpAddr,
    /// The browser's lasting mark; a fresh one for a browser that has none.
    pub(super) device: SecretString,
    /// What the browser calls itself: `Firefox on Linux`.
    pub(super) browser: String,
    /// The country that a trusted proxy names.
    pub(super) country: Option<String>,
    /// What binds a sent code to this browser.
    pub(super) code: Option<SecretString>,
}

impl FromRequestParts<Arc<Console>> for Visitor {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, console: &Arc<Console>) -> Result<Self, Infallible> {
        let headers = &parts.headers;
        let known = console.crumb(headers, Crumb::Device).filter(|mark| signin::token_digest(mark).is_some());
        let device = known.map_or_else(|| signin::new_token(&*console.chance), |mark| mark.to_owned().into());
        let text = |name: &header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let country = console.country_header.as_ref().and_then(text).map(str::to_ascii_uppercase);
        let trusted = &console.trusted_proxies;
        Ok(Self {
            // Without a peer there is no network: all such requests are from one place.
            address: client::address_through(trusted, parts).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            device,
            browser: browser(text(&header::USER_AGENT).unwrap_or_default()),
            country: country.filter(|_| client::is_through(trusted, parts)),
            code: console.crumb(headers, Crumb::Code).map(|value| value.to_owned().into()),
        })
    }
}

/// The network that wrong attempts are counted by: one address of IPv4, a /64 of IPv6, since that is what one customer
/// is given.
pub(super) fn network(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}

/// Whether the answer is looked at by a person: a navigation or a form, not a program.
pub(super) fn wants_page(headers: &HeaderMap) -> bool {
    headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("text/html"))
}

/// A name that its owner recognises. Every browser claims to be several others, so the order matters.
fn browser(agent: &str) -> String {
    let first =
        |known: &[(&str, &'static str)]| known.iter().find(|(part, _)| agent.contains(part)).map(|(_, name)| *name);
    let browser = first(&[
        ("Edg", "Edge"),
        ("OPR/", "Opera"),
        ("SamsungBrowser", "Samsung Internet"),
        ("Firefox", "Firefox"),
        ("FxiOS", "Firefox"),
        ("CriOS", "Chrome"),
        ("Chrome", "Chrome"),
        ("Safari", "Safari"),
    ]);
    let system = first(&[
        ("Android", "Android"),
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("Windows", "Windows"),
        ("CrOS", "ChromeOS"),
        ("Mac OS X", "Mac"),
        ("Linux", "Linux"),
    ]);
    match (browser, system) {
        (Some(browser), Some(system)) => format!("{browser} on {system}"),
        (Some(one), None) | (None, Some(one)) => one.to_owned(),
        (None, None) => "A browser".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_is_called_what_its_owner_calls_it() {
        for (agent, name) in [
            ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox on Linux"),
            (
                "Mozilla/5.0 (Linux; Android 14; SM-A155F) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 \
                 Mobile Safari/537.36",
                "Chrome on Android",
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) \
                 Version/18.1 Mobile/15E148 Safari/604.1",
                "Safari on iPhone",
            ),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 \
                 Safari/537.36 Edg/143.0.0.0",
                "Edge on Windows",
            ),
            ("curl/8.9", "A browser"),
            ("", "A browser"),
        ] {
            assert_eq!(browser(agent), name, "{agent}");
        }
    }

    #[test]
    fn one_customer_is_one_network() {
        assert_eq!(network("203.0.113.9".parse().expect("an address")), "203.0.113.9");
        let two = ["2001:db8:1:2::1", "2001:db8:1:2:ffff::9"].map(|text| network(text.parse().expect("an address")));
        assert_eq!(two[0], two[1]);
        assert_ne!(two[0], network("2001:db8:1:3::1".parse().expect("an address")));
    }
}
