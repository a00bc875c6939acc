//! Heads of the evidence log in an S3-compatible store that lets nobody change or delete them: object lock.
//!
//! Each head is an object that is put if it is not there (`If-None-Match: *`) and held for years from then on. Requests
//! that the `object_store` crate has no words for, a put with a retention and the question whether the bucket has a lock,
//! are built here and signed with its signer (AWS Signature Version 4).

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    sync::{Arc, Once},
    time::Duration,
};

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{SecondsFormat, TimeDelta};
use futures_util::TryStreamExt;
use http::{Method, StatusCode, header};
use muneem_jobs::{
    evidence::bundle::object_name,
    outbound::{Anchor, AnchorError, AnchorKind, Clock},
};
use object_store::{
    ClientOptions, ObjectStore, ObjectStoreExt, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder, AwsAuthorizer, AwsCredential},
    client::HttpRequest,
    path::Path,
};
use reqwest::Client;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::http::{Timeouts, client};

/// Longest part of an answer that is read for its error code.
const LONGEST_ANSWER: usize = 16_384;

/// How objects are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lock {
    /// Each for the configured days, in compliance mode: nobody can shorten it, the account's root user included.
    Compliance,
    /// Each for the configured days, in governance mode: who has the right to bypass it can.
    Governance,
    /// As the bucket's own default says; it must have one.
    Bucket,
    /// Not at all. Whoever has the store's keys can delete heads.
    None,
}

/// How to reach the store.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it answers, without a slash at the end; none: Amazon's, by region.
    pub endpoint: Option<String>,
    /// Its region.
    pub region: String,
    /// The bucket.
    pub bucket: String,
    /// What names begin with; may be empty.
    pub prefix: String,
    /// Public half of the key.
    pub access_key_id: String,
    /// Secret half of the key.
    pub secret_access_key: SecretString,
    /// How objects are held.
    pub lock: Lock,
    /// For how long.
    pub retain: TimeDelta,
    /// How often a head goes there at most.
    pub every: Duration,
    /// Waits of one call.
    pub timeouts: Timeouts,
}

/// Settings that no store can be reached with.
#[derive(Debug, thiserror::Error)]
#[error("`evidence.objects` cannot be used: {0}")]
pub struct BadSettings(String);

/// A bucket.
pub struct ObjectsAnchor {
    settings: Settings,
    store: AmazonS3,
    http: Client,
    clock: Arc<dyn Clock>,
    lock_seen: AtomicBool,
    newest_seen: AtomicU64,
}

/// The error document of S3.
fn code_of(answer: &str) -> &str {
    let inside = answer.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
    inside.map_or("", |(code, _)| code)
}

impl ObjectsAnchor {
    /// Prepares; nothing is asked yet.
    ///
    /// # Errors
    /// The settings make no address.
    pub fn new(settings: Settings, clock: Arc<dyn Clock>) -> Result<Self, BadSettings> {
        let bad = |error: &dyn std::error::Error| BadSettings(error.to_string());
        // Sets the process's TLS provider up, which the store's own client takes as well.
        let http = client(settings.timeouts).map_err(|error| bad(&error))?;
        let options = ClientOptions::new()
            .with_allow_http(settings.endpoint.as_deref().is_some_and(|url| url.starts_with("http://")))
            .with_connect_timeout(settings.timeouts.connect)
            .with_timeout(settings.timeouts.total);
        let retry = RetryConfig { max_retries: 1, retry_timeout: settings.timeouts.total, ..RetryConfig::default() };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&settings.bucket)
            .with_region(&settings.region)
            .with_access_key_id(&settings.access_key_id)
            .with_secret_access_key(settings.secret_access_key.expose_secret())
            .with_client_options(options)
            .with_retry(retry);
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        let store = builder.build().map_err(|error| bad(&error))?;
        if settings.lock == Lock::None {
            static TOLD: Once = Once::new();
            TOLD.call_once(|| {
                tracing::warn!(
                    "`evidence.objects.lock` is \"none\": whoever has the keys of the store can delete heads of the \
                     evidence log; set it to \"compliance\" on a bucket with object lock"
                );
            });
        }
        Ok(Self { settings, store, http, clock, lock_seen: AtomicBool::new(false), newest_seen: AtomicU64::new(0) })
    }

    /// Where the bucket answers. Path style where an endpoint is named, as stores other than Amazon's have it.
    fn bucket_url(&self) -> String {
        let Settings { endpoint, region, bucket, .. } = &self.settings;
        match endpoint {
            Some(endpoint) => format!("{endpoint}/{bucket}"),
            None => format!("https://s3.{region}.amazonaws.com/{bucket}"),
        }
    }

    async fn call(&self, mut request: HttpRequest) -> Result<(StatusCode, String), AnchorError> {
        let credential = AwsCredential {
            key_id: self.settings.access_key_id.clone(),
            secret_key: self.settings.secret_access_key.expose_secret().to_owned(),
            token: None,
        };
        AwsAuthorizer::new(&credential, "s3", &self.settings.region)
            .try_authorize(&mut request, None)
            .map_err(|error| AnchorError::because("the request could not be signed", error))?;
        let (parts, body) = request.into_parts();
        let body = body.as_bytes().cloned().unwrap_or_default();
        let failed =
            |error: reqwest::Error| AnchorError::because("the object store could not be asked", error.without_url());
        let call = self.http.request(parts.method, parts.uri.to_string()).headers(parts.headers).body(body);
        let mut answer = call.send().await.map_err(failed)?;
        let status = answer.status();
        let mut text = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            text.extend_from_slice(&chunk);
            if text.len() > LONGEST_ANSWER {
                break;
            }
        }
        Ok((status, String::from_utf8_lossy(&text).into_owned()))
    }

    /// Refuses a bucket without a lock: what is laid there could be taken away again.
    async fn check_lock(&self) -> Result<(), AnchorError> {
        if self.settings.lock == Lock::None || self.lock_seen.load(Ordering::Relaxed) {
            return Ok(());
        }
        let request = http::Request::builder().method(Method::GET).uri(format!("{}?object-lock=", self.bucket_url()));
        let request = request.body(Vec::new().into()).map_err(|error| AnchorError::because("no address", error))?;
        let (status, answer) = self.call(request).await?;
        let enabled = status == StatusCode::OK && answer.contains("<ObjectLockEnabled>Enabled</ObjectLockEnabled>");
        match (status, code_of(&answer)) {
            _ if enabled && (self.settings.lock != Lock::Bucket || answer.contains("<DefaultRetention>")) => {
                self.lock_seen.store(true, Ordering::Relaxed);
                Ok(())
            }
            _ if enabled => Err(AnchorError::new(
                "the bucket has object lock but no default retention: give it one, or set `evidence.objects.lock` to \
                 \"compliance\"",
            )),
            (StatusCode::OK | StatusCode::NOT_FOUND, "" | "ObjectLockConfigurationNotFoundError") => {
                Err(AnchorError::new(
                    "the bucket has no object lock, so nothing is laid there: make one with object lock (it cannot be \
                     added to every bucket later), or set `evidence.objects.lock` to \"none\" and know that heads can be \
                     deleted",
                ))
            }
            (status, code) => Err(AnchorError::new(format!(
                "the object store does not say whether the bucket has a lock (HTTP {} {code}): allow \
                 s3:GetBucketObjectLockConfiguration",
                status.as_u16()
            ))),
        }
    }

    fn put(&self, name: &str, note: &str) -> Result<HttpRequest, AnchorError> {
        let digest = STANDARD.encode(Sha256::digest(note));
        let mut request = http::Request::builder()
            .method(Method::PUT)
            .uri(format!("{}/{name}", self.bucket_url()))
            .header(header::CONTENT_TYPE, "text/plain; charset=utf-8")
            .header(header::IF_NONE_MATCH, "*")
            // S3 takes a put into a locked bucket only with a digest.
            .header("x-amz-sdk-checksum-algorithm", "SHA256")
            .header("x-amz-checksum-sha256", digest);
        let mode = match self.settings.lock {
            Lock::Compliance => Some("COMPLIANCE"),
            Lock::Governance => Some("GOVERNANCE"),
            Lock::Bucket | Lock::None => None,
        };
        if let Some(mode) = mode {
            let until = self.clock.now() + self.settings.retain;
            request = request
                .header("x-amz-object-lock-mode", mode)
                .header("x-amz-object-lock-retain-until-date", until.to_rfc3339_opts(SecondsFormat::Secs, true));
        }
        let body = note.as_bytes().to_vec();
        request.body(body.into()).map_err(|error| AnchorError::because("the name cannot be written", error))
    }
}

#[async_trait]
impl Anchor for ObjectsAnchor {
    fn name(&self) -> &str {
        "objects"
    }

    fn kind(&self) -> AnchorKind {
        AnchorKind::Objects
    }

    fn every(&self) -> Duration {
        self.settings.every
    }

    fn remembers(&self) -> bool {
        true
    }

    fn is_outside(&self) -> bool {
        true
    }

    async fn lay(&self, size: u64, note: &str) -> Result<Vec<u8>, AnchorError> {
        self.check_lock().await?;
        let name = object_name(size, note);
        let full = match self.settings.prefix.as_str() {
            "" => name.clone(),
            prefix => format!("{prefix}/{name}"),
        };
        let (status, answer) = self.call(self.put(&full, note)?).await?;
        match (status.as_u16(), code_of(&answer)) {
            // 412: it lies there already, and its name holds its digest.
            (200 | 412, _) => Ok(name.into_bytes()),
            (501, _) => Err(AnchorError::new("the object store knows no put-if-absent (HTTP 501): take one that does")),
            (status, code) => {
                Err(AnchorError::new(format!("the checkpoint could not be laid down (HTTP {status} {code})")))
            }
        }
    }

    async fn latest(&self) -> Result<Option<String>, AnchorError> {
        let failed = |error| AnchorError::because("the last checkpoint could not be read", error);
        let Some(newest) = self.newest().await.map_err(failed)? else { return Ok(None) };
        let bytes = self.store.get(&newest).await.map_err(failed)?.bytes().await.map_err(failed)?;
        let note = String::from_utf8(bytes.to_vec());
        note.map(Some).map_err(|error| AnchorError::because("the last checkpoint is no text", error))
    }
}

impl ObjectsAnchor {
    /// The object with the largest size. Names sort as sizes, and the store lists from a name on: a few questions find it
    /// among millions, and two when nothing came since the last time.
    async fn newest(&self) -> object_store::Result<Option<Path>> {
        let prefix = Some(self.settings.prefix.as_str()).filter(|prefix| !prefix.is_empty()).map(Path::from);
        let folders = self.store.list_with_delimiter(prefix.as_ref()).await?;
        let Some(folder) = folders.common_prefixes.into_iter().max() else { return Ok(None) };
        let known = self.newest_seen.load(Ordering::Relaxed);
        // Nothing from there on: it is the first time, or another folder than the last.
        let first = match self.first_from(&folder, known).await? {
            Some(first) => Some(first),
            None => self.first_from(&folder, 0).await?,
        };
        let Some(mut newest) = first else { return Ok(None) };
        let (mut behind, mut step) = (u64::MAX, 1);
        while newest.0.saturating_add(1) < behind {
            // In doubling steps until nothing comes, then halving what is left.
            let at = match behind {
                u64::MAX => newest.0.saturating_add(step),
                behind => newest.0 + (behind - newest.0).div_ceil(2),
            };
            match self.first_from(&folder, at).await? {
                Some(later) => newest = later,
                None => behind = at,
            }
            step = step.saturating_mul(2);
        }
        self.newest_seen.store(newest.0, Ordering::Relaxed);
        Ok(Some(newest.1))
    }

    /// The first object of a folder over so many leaves or more.
    async fn first_from(&self, folder: &Path, size: u64) -> object_store::Result<Option<(u64, Path)>> {
        let offset = Path::from(format!("{folder}/{size:020}"));
        let mut names = self.store.list_with_offset(Some(folder), &offset);
        while let Some(found) = names.try_next().await? {
            // What somebody else put there is passed over.
            if let Some(size) = size_of(&found.location) {
                return Ok(Some((size, found.location)));
            }
        }
        Ok(None)
    }
}

/// Leaves under the head that has this name.
fn size_of(name: &Path) -> Option<u64> {
    let (size, rest) = name.filename()?.split_once('-')?;
    (size.len() == 20 && rest.ends_with(".note")).then(|| size.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_of_an_error_is_read_and_nothing_else_shown() {
        let answer = "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>no</Message></Error>";
        assert_eq!(code_of(answer), "AccessDenied");
        assert_eq!(code_of("<html>"), "");
        assert_eq!(size_of(&Path::from(object_name(42, "note"))), Some(42));
        for other in ["a", "1-2.note", "0/00000000000000000042-abc.txt"] {
            assert_eq!(size_of(&Path::from(other)), None, "{other}");
        }
    }
}
