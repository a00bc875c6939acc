//! `[evidence]`: the key that signs heads of the log, and the places where they are laid down.

use std::{path::PathBuf, time::Duration};

use muneem_jobs::outbound::Email;
use secrecy::SecretString;
use serde::Deserialize;

use super::{is_loopback, path_unless_empty, secs, unless_empty};
use crate::outbound::anchor_objects::Lock;

/// Proof of what was done.
#[derive(Clone, Debug, Deserialize)]
pub struct Evidence {
    /// The key that signs heads of the log; `None`: `evidence.key` in the data directory.
    #[serde(deserialize_with = "path_unless_empty")]
    pub key_file: Option<PathBuf>,
    /// Where heads are laid down; `None`: `anchors` in the data directory.
    #[serde(deserialize_with = "path_unless_empty")]
    pub anchor_dir: Option<PathBuf>,
    /// How often at most.
    #[serde(rename = "anchor_every_secs", deserialize_with = "secs")]
    pub anchor_every: Duration,
    /// Authorities that sign the time.
    pub timestamp: Timestamp,
    /// A bucket with object lock.
    pub objects: AnchorObjects,
    /// People who keep heads.
    pub mail: AnchorMail,
}

/// Authorities that sign the time of heads (RFC 3161).
#[derive(Clone, Debug, Deserialize)]
pub struct Timestamp {
    /// Where they answer.
    pub urls: Vec<String>,
    /// Roots that they are believed by.
    #[serde(deserialize_with = "path_unless_empty")]
    pub roots_file: Option<PathBuf>,
    /// How often at most.
    #[serde(rename = "every_secs", deserialize_with = "secs")]
    pub every: Duration,
    /// Longest wait for an answer.
    #[serde(rename = "timeout_secs", deserialize_with = "secs")]
    pub timeout: Duration,
}

/// A bucket of an S3-compatible store.
#[derive(Clone, Debug, Deserialize)]
pub struct AnchorObjects {
    /// Its name; `None`: no such place.
    #[serde(deserialize_with = "unless_empty")]
    pub bucket: Option<String>,
    /// Where it answers, without a slash at the end; `None`: Amazon S3.
    #[serde(deserialize_with = "unless_empty")]
    pub endpoint: Option<String>,
    /// Its region.
    pub region: String,
    /// What names begin with.
    pub prefix: String,
    /// How heads are held.
    pub lock: Lock,
    /// For how many days.
    pub retain_days: u32,
    /// Public half of the key.
    pub access_key_id: String,
    /// Secret half of the key.
    #[serde(skip)]
    pub secret_access_key: Option<SecretString>,
    /// How often at most.
    #[serde(rename = "every_secs", deserialize_with = "secs")]
    pub every: Duration,
    /// Longest wait for an answer.
    #[serde(rename = "timeout_secs", deserialize_with = "secs")]
    pub timeout: Duration,
}

/// People who keep heads that they get by mail.
#[derive(Clone, Debug, Deserialize)]
pub struct AnchorMail {
    /// Their addresses.
    #[serde(deserialize_with = "emails")]
    pub to: Vec<Email>,
    /// How often at most.
    #[serde(rename = "every_secs", deserialize_with = "secs")]
    pub every: Duration,
}

impl Evidence {
    /// With the secret half of the store's key, and addresses in one form.
    pub(super) fn with_secret(mut self, secret: Option<SecretString>) -> Self {
        self.objects.secret_access_key = secret;
        self.objects.endpoint = self.objects.endpoint.map(|url| url.trim_end_matches('/').to_owned());
        self.objects.prefix = self.objects.prefix.trim_matches('/').to_owned();
        self
    }

    /// What keeps the anchors that are named from being asked.
    pub(super) fn problems(&self, has_mail: bool) -> Vec<String> {
        let Self { timestamp, objects, mail, .. } = self;
        let mut problems = Vec::new();
        let mut told = |problem: &str| problems.push(problem.to_owned());
        if timestamp.urls.len() > 4 || timestamp.urls.iter().any(|url| !is_http(url)) {
            told("`evidence.timestamp.urls` takes up to four addresses that begin with http:// or https://");
        }
        if !timestamp.urls.is_empty() && timestamp.roots_file.is_none() {
            told(
                "`evidence.timestamp.roots_file` is not set: name a file with the authorities' root certificates, PEM",
            );
        }
        if !mail.to.is_empty() && !has_mail {
            told("`evidence.mail.to` needs a mail server: set `messaging.mail.host`");
        }
        let Some(bucket) = &objects.bucket else { return problems };
        if objects.access_key_id.is_empty() || objects.secret_access_key.is_none() {
            told(
                "`evidence.objects.access_key_id` and `evidence.objects.secret_access_key_file` are needed with a bucket",
            );
        }
        if objects.endpoint.as_ref().is_some_and(|url| !url.starts_with("https://") && !is_loopback(url)) {
            told("`evidence.objects.endpoint` must begin with https:// (plain http is for loopback alone)");
        }
        let plain = |text: &str, more: &[u8]| {
            text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte) || more.contains(&byte))
        };
        if !plain(bucket, b"") || !plain(&objects.prefix, b"_/") {
            told(
                "`evidence.objects.bucket` and `prefix` take letters, digits, `-` and `.`, the prefix `_` and `/` too",
            );
        }
        if objects.retain_days > 36_500 {
            told("`evidence.objects.retain_days` is more than a hundred years: take 36500 at most");
        }
        problems
    }
}

fn is_http(url: &str) -> bool {
    url.parse::<http::Uri>().is_ok_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some())
}

fn emails<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Email>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| Email::parse(text).map_err(serde::de::Error::custom)).collect()
}
