//! What the console keeps in a browser. Over https every name begins with `__Host-`: only this host may set it, for all
//! its paths and never in clear. Over plain http on loopback, where browsers differ in what they take, the names are
//! bare.

use axum::http::{HeaderMap, HeaderValue, header};
use secrecy::{ExposeSecret, SecretString};

use super::Console;

/// One cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crumb {
    /// The session's token, until the browser is closed; the session's own end is kept by the table.
    Session,
    /// The browser's lasting mark, for a year.
    Device,
    /// What binds a sent code to the browser that asked for it, for its ten minutes.
    Code,
    /// What binds a way to an identity provider and back to this browser, for its ten minutes.
    Provider,
    /// A token that was just made, sealed for its session, on the way to the page that shows it.
    Made,
}

impl Crumb {
    const fn name(self, is_secure: bool) -> &'static str {
        match (self, is_secure) {
            (Self::Session, true) => "__Host-muneem",
            (Self::Session, false) => "muneem",
            (Self::Device, true) => "__Host-muneem-device",
            (Self::Device, false) => "muneem-device",
            (Self::Code, true) => "__Host-muneem-code",
            (Self::Code, false) => "muneem-code",
            (Self::Provider, true) => "__Host-muneem-oidc",
            (Self::Provider, false) => "muneem-oidc",
            (Self::Made, true) => "__Host-muneem-made",
            (Self::Made, false) => "muneem-made",
        }
    }

    const fn life(self) -> &'static str {
        match self {
            Self::Session => "",
            Self::Device => "; Max-Age=31536000",
            Self::Code | Self::Provider => "; Max-Age=600",
            Self::Made => "; Max-Age=120",
        }
    }
}

impl Console {
    fn is_secure(&self) -> bool {
        self.origin.starts_with("https://")
    }

    /// `Set-Cookie` that keeps `value`. No script reads it, no other site's form carries it.
    pub fn keep(&self, crumb: Crumb, value: &SecretString) -> HeaderValue {
        self.set(crumb, value.expose_secret(), crumb.life())
    }

    /// `Set-Cookie` that takes it out of the browser.
    pub fn forget(&self, crumb: Crumb) -> HeaderValue {
        self.set(crumb, "", "; Max-Age=0")
    }

    /// What the browser brings. Two of one name are none: one of them was planted.
    pub fn crumb<'a>(&self, headers: &'a HeaderMap, crumb: Crumb) -> Option<&'a str> {
        let name = crumb.name(self.is_secure());
        let mut found = headers
            .get_all(header::COOKIE)
            .iter()
            .filter_map(|cookies| cookies.to_str().ok())
            .flat_map(|cookies| cookies.split(';'))
            .filter_map(|cookie| cookie.trim().split_once('='))
            .filter(|(known, _)| *known == name)
            .map(|(_, value)| value);
        found.next().filter(|_| found.next().is_none())
    }

    fn set(&self, crumb: Crumb, value: &str, life: &str) -> HeaderValue {
        let name = crumb.name(self.is_secure());
        let secure = if self.is_secure() { "; Secure" } else { "" };
        let text = format!("{name}={value}; Path=/{secure}; HttpOnly; SameSite=Lax{life}");
        let mut value = HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""));
        value.set_sensitive(true);
        value
    }
}
