//! The root key in Azure Key Vault or Managed HSM (REST API 7.4): `wrapkey` and `unwrapkey` with an RSA key, or
//! `encrypt` and `decrypt` with A256GCM where the key is a symmetric one of a Managed HSM.
//!
//! A256GCM authenticates a key's context. RSA-OAEP authenticates nothing, so the digest of the context is wrapped
//! together with the key and compared when it comes back. It keeps a wrapped key from passing for another; whoever can
//! write to our tables and knows the public key could still wrap a key of his own for a business that is new. Managed
//! HSM leaves no such door.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use muneem_jobs::outbound::{
    Chance, KeyManager, KmsError,
    kms::{KeyBytes, KeyContext, prove},
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::kms_call::{Answer, Caller, words};

const API_VERSION: &str = "7.4";
/// A token is not used in the last part of its life.
const TOKEN_MARGIN: Duration = Duration::from_secs(300);

/// How keys are wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Algorithm {
    /// With an RSA key, SHA-256 and MGF1 with SHA-256.
    #[serde(rename = "RSA-OAEP-256")]
    RsaOaep256,
    /// With a symmetric key of a Managed HSM.
    #[serde(rename = "A256GCM")]
    A256Gcm,
}

impl Algorithm {
    const fn as_str(self) -> &'static str {
        match self {
            Self::RsaOaep256 => "RSA-OAEP-256",
            Self::A256Gcm => "A256GCM",
        }
    }
}

/// Who asks for tokens.
#[derive(Clone, Debug)]
pub enum Identity {
    /// An app registration with a secret.
    App {
        /// Of the directory.
        tenant_id: String,
        /// Of the app.
        client_id: String,
        /// Of the app.
        client_secret: SecretString,
    },
    /// The identity of the machine.
    Managed,
}

/// Which key, and how it is reached.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `https://NAME.vault.azure.net/keys/KEY`, without a version: the newest wraps.
    pub key_url: String,
    /// How keys are wrapped.
    pub algorithm: Algorithm,
    /// Who asks.
    pub identity: Identity,
    /// Where apps get tokens, and machines.
    pub login_endpoint: String,
    /// Where machines get tokens.
    pub metadata_endpoint: String,
    /// For whom tokens are: `https://vault.azure.net`, or that of a Managed HSM or another cloud.
    pub resource: String,
    /// Longest wait for an answer, repeats included.
    pub patience: Duration,
}

/// Azure Key Vault.
pub struct AzureKms {
    caller: Caller,
    settings: Settings,
    token: Mutex<Option<(SecretString, Instant)>>,
}

/// What is stored: the version that wrapped is named, so that the key may be rotated.
#[derive(Deserialize, Serialize)]
struct Wrapped {
    kid: String,
    value: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    iv: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tag: Option<String>,
}

#[derive(Deserialize)]
struct Opened {
    value: Zeroizing<String>,
}

#[derive(Deserialize)]
struct Granted {
    access_token: SecretString,
    /// A number from one endpoint, a string from the other.
    expires_in: Value,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Fault {
    error: Told,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Told {
    code: String,
    message: String,
    innererror: Inner,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Inner {
    code: String,
}

impl AzureKms {
    /// # Errors
    /// When the machine has no usable certificate store.
    pub fn new(settings: Settings, chance: Arc<dyn Chance>) -> anyhow::Result<Self> {
        Ok(Self { caller: Caller::new(settings.patience, chance)?, settings, token: Mutex::new(None) })
    }

    fn key_url(&self) -> &str {
        self.settings.key_url.trim_end_matches('/')
    }

    async fn token(&self) -> Result<SecretString, KmsError> {
        let mut held = self.token.lock().await;
        if let Some((token, until)) = &*held
            && Instant::now() < *until
        {
            return Ok(token.clone());
        }
        let Settings { login_endpoint, metadata_endpoint, resource, .. } = &self.settings;
        let client = self.caller.client();
        let request = match &self.settings.identity {
            Identity::App { tenant_id, client_id, client_secret } => client
                .post(format!("{}/{tenant_id}/oauth2/v2.0/token", login_endpoint.trim_end_matches('/')))
                .header("content-type", "application/x-www-form-urlencoded")
                .body(form(&[
                    ("grant_type", "client_credentials"),
                    ("client_id", client_id),
                    ("client_secret", client_secret.expose_secret()),
                    ("scope", &format!("{resource}/.default")),
                ])),
            Identity::Managed => client
                .get(format!("{}/metadata/identity/oauth2/token", metadata_endpoint.trim_end_matches('/')))
                .query(&[("api-version", "2018-02-01"), ("resource", resource)])
                .header("metadata", "true"),
        };
        let answer = self.caller.send(request).await?;
        let granted: Granted = match answer.status {
            200 => answer.json()?,
            429 => return Err(KmsError::Throttled("Azure gives no token for now".to_owned())),
            status @ 500.. => return Err(KmsError::Unavailable(format!("no Azure token: HTTP {status}"))),
            // The answer may repeat what was sent.
            status => return Err(KmsError::Refused(format!("no Azure token: HTTP {status}; check `[vault.azure]`"))),
        };
        let life = match &granted.expires_in {
            Value::Number(secs) => secs.as_u64(),
            Value::String(secs) => secs.parse().ok(),
            _ => None,
        };
        let life = Duration::from_secs(life.unwrap_or(0)).saturating_sub(TOKEN_MARGIN);
        *held = Some((granted.access_token.clone(), Instant::now() + life));
        Ok(granted.access_token)
    }

    async fn ask<T: serde::de::DeserializeOwned>(&self, url: &str, verb: &str, body: &Value) -> Result<T, KmsError> {
        let token = self.token().await?;
        let request = self.caller.client().post(format!("{url}/{verb}")).query(&[("api-version", API_VERSION)]);
        let answer = self.caller.send(request.bearer_auth(token.expose_secret()).json(body)).await?;
        if answer.status == 200 {
            return answer.json();
        }
        if answer.status == 401 {
            // Withdrawn before its time: the next question asks for another.
            *self.token.lock().await = None;
        }
        Err(fault(matches!(verb, "unwrapkey" | "decrypt"), &answer))
    }
}

/// What a no means (Key Vault REST API, authentication, requests and responses).
fn fault(opening: bool, answer: &Answer) -> KmsError {
    let Told { code, message, innererror } = serde_json::from_slice::<Fault>(&answer.body).unwrap_or_default().error;
    let told = words(format!("{code} {} {message}", innererror.code).trim());
    let told = if told.is_empty() { format!("HTTP {}", answer.status) } else { told };
    match (answer.status, innererror.code.as_str(), code.as_str()) {
        (_, "KeyDisabled" | "KeyExpired" | "KeyNotYetValid", _) | (404, ..) => KmsError::KeyGone(told),
        (409, _, "Conflict") | (_, "ObjectIsDeletedButRecoverable", _) => KmsError::KeyGone(told),
        (429, ..) => KmsError::Throttled(told),
        (500.., ..) => KmsError::Unavailable(told),
        (400, ..) if opening => KmsError::NotOurs,
        _ => KmsError::Refused(told),
    }
}

#[async_trait]
impl KeyManager for AzureKms {
    async fn wrap(&self, context: &KeyContext, key: &KeyBytes) -> Result<Vec<u8>, KmsError> {
        let algorithm = self.settings.algorithm;
        let (verb, body) = match algorithm {
            Algorithm::RsaOaep256 => {
                let value = Zeroizing::new([&key[..], &Sha256::digest(context.binding())].concat());
                ("wrapkey", json!({ "alg": algorithm.as_str(), "value": BASE64_URL_SAFE_NO_PAD.encode(&value) }))
            }
            Algorithm::A256Gcm => (
                "encrypt",
                json!({
                    "alg": algorithm.as_str(),
                    "value": BASE64_URL_SAFE_NO_PAD.encode(&key[..]),
                    "aad": BASE64_URL_SAFE_NO_PAD.encode(context.binding()),
                }),
            ),
        };
        let wrapped: Wrapped = self.caller.patiently(|| Box::pin(self.ask(self.key_url(), verb, &body))).await?;
        let is_whole = algorithm == Algorithm::RsaOaep256 || (wrapped.iv.is_some() && wrapped.tag.is_some());
        if !is_whole || !self.is_version_of_ours(&wrapped.kid) {
            return Err(KmsError::Unavailable("an answer that is not about our key".to_owned()));
        }
        serde_json::to_vec(&wrapped).map_err(|_| KmsError::Unavailable("an answer that cannot be kept".to_owned()))
    }

    async fn unwrap(&self, context: &KeyContext, wrapped: &[u8]) -> Result<KeyBytes, KmsError> {
        let wrapped: Wrapped = serde_json::from_slice(wrapped).map_err(|_| KmsError::NotOurs)?;
        // The row says where to ask: nowhere but at versions of the key in the settings.
        if !self.is_version_of_ours(&wrapped.kid) {
            return Err(KmsError::NotOurs);
        }
        let algorithm = self.settings.algorithm;
        let (verb, body) = match algorithm {
            Algorithm::RsaOaep256 => ("unwrapkey", json!({ "alg": algorithm.as_str(), "value": wrapped.value })),
            Algorithm::A256Gcm => (
                "decrypt",
                json!({
                    "alg": algorithm.as_str(),
                    "value": wrapped.value,
                    "iv": wrapped.iv,
                    "tag": wrapped.tag,
                    "aad": BASE64_URL_SAFE_NO_PAD.encode(context.binding()),
                }),
            ),
        };
        let opened: Opened = self.caller.patiently(|| Box::pin(self.ask(&wrapped.kid, verb, &body))).await?;
        let value = opened.value.trim_end_matches('=').as_bytes();
        let plain = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.decode(value).unwrap_or_default());
        let (key, rest) = plain.split_first_chunk::<32>().ok_or(KmsError::NotOurs)?;
        let expected = match algorithm {
            Algorithm::RsaOaep256 => Sha256::digest(context.binding()).to_vec(),
            Algorithm::A256Gcm => Vec::new(),
        };
        if bool::from(rest.ct_eq(&expected)) { Ok(Zeroizing::new(*key)) } else { Err(KmsError::NotOurs) }
    }

    fn describe(&self) -> String {
        format!("azure:{}", self.key_url())
    }

    async fn health(&self) -> Result<(), KmsError> {
        prove(self, self.caller.chance()).await
    }
}

impl AzureKms {
    fn is_version_of_ours(&self, kid: &str) -> bool {
        let version = kid.strip_prefix(self.key_url()).and_then(|rest| rest.strip_prefix('/'));
        version.is_some_and(|version| !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_alphanumeric()))
    }
}

/// `application/x-www-form-urlencoded`.
fn form(pairs: &[(&str, &str)]) -> String {
    let url = reqwest::Url::parse_with_params("form:fields", pairs);
    url.ok().and_then(|url| url.query().map(str::to_owned)).unwrap_or_default()
}
