//! The root key in Google Cloud KMS: `cryptoKeys.encrypt` and `cryptoKeys.decrypt` of its REST API v1. A key's context
//! is its additional authenticated data.

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use base64::{Engine, prelude::BASE64_STANDARD};
use muneem_jobs::outbound::{
    Chance, KeyManager, KmsError,
    kms::{KeyBytes, KeyContext, prove},
};
use object_store::{
    RetryConfig,
    gcp::{GcpCredentialProvider, GoogleCloudStorageBuilder},
};
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{
    kms_aws::key_of,
    kms_call::{Answer, Caller, words},
};

/// Which key, and how it is reached.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `projects/…/locations/…/keyRings/…/cryptoKeys/…`
    pub key: String,
    /// Where the service answers.
    pub endpoint: String,
    /// Key file of a service account; `None`: the default credentials of the environment or the machine.
    pub credentials_file: Option<PathBuf>,
    /// Longest wait for an answer, repeats included.
    pub patience: Duration,
}

/// Google Cloud KMS.
pub struct GcpKms {
    caller: Caller,
    endpoint: String,
    key: String,
    credentials: GcpCredentialProvider,
}

/// Integers of 64 bits are strings in Google's JSON.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Encrypted {
    ciphertext: String,
    ciphertext_crc32c: String,
    #[serde(default)]
    verified_plaintext_crc32c: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Decrypted {
    plaintext: Zeroizing<String>,
    plaintext_crc32c: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Fault {
    error: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    status: String,
    message: String,
}

/// What was asked for: some statuses mean another thing for each.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Encrypt,
    Decrypt,
}

impl GcpKms {
    /// # Errors
    /// The certificate store or the credentials cannot be used.
    pub fn new(settings: &Settings, chance: Arc<dyn Chance>) -> anyhow::Result<Self> {
        // First of all: it also chooses the process's cryptography, which the library's own client asks for.
        let caller = Caller::new(settings.patience, chance)?;
        let retry = RetryConfig { max_retries: 2, retry_timeout: settings.patience, ..RetryConfig::default() };
        let mut builder = GoogleCloudStorageBuilder::from_env().with_bucket_name("credentials-only").with_retry(retry);
        if let Some(file) = &settings.credentials_file {
            builder = builder.with_service_account_path(file.to_string_lossy());
        }
        Ok(Self {
            caller,
            endpoint: settings.endpoint.trim_end_matches('/').to_owned(),
            key: settings.key.clone(),
            credentials: Arc::clone(builder.build()?.credentials()),
        })
    }

    async fn ask<T: serde::de::DeserializeOwned>(&self, verb: Verb, body: &Value) -> Result<T, KmsError> {
        let credential =
            self.credentials.get_credential().await.map_err(|error| {
                KmsError::Unavailable(format!("no Google credentials: {}", words(&error.to_string())))
            })?;
        let name = if verb == Verb::Encrypt { "encrypt" } else { "decrypt" };
        let url = format!("{}/v1/{}:{name}", self.endpoint, self.key);
        let mut request = self.caller.client().post(url).json(body);
        if !credential.bearer.is_empty() {
            request = request.bearer_auth(&credential.bearer);
        }
        let answer = self.caller.send(request).await?;
        if answer.status == 200 { answer.json() } else { Err(fault(verb, &answer)) }
    }
}

/// What a no means (google.rpc.Code).
fn fault(verb: Verb, answer: &Answer) -> KmsError {
    let Status { status, message } = serde_json::from_slice::<Fault>(&answer.body).unwrap_or_default().error;
    let told = words(format!("{status} {message}").trim());
    let told = if told.is_empty() { format!("HTTP {}", answer.status) } else { told };
    match status.as_str() {
        // Wrong key, wrong context and a changed ciphertext are one answer.
        "INVALID_ARGUMENT" if verb == Verb::Decrypt => KmsError::NotOurs,
        "NOT_FOUND" | "FAILED_PRECONDITION" => KmsError::KeyGone(told),
        "RESOURCE_EXHAUSTED" => KmsError::Throttled(told),
        "UNAVAILABLE" | "DEADLINE_EXCEEDED" | "INTERNAL" | "ABORTED" | "UNKNOWN" => KmsError::Unavailable(told),
        _ if answer.status == 429 => KmsError::Throttled(told),
        _ if answer.status >= 500 => KmsError::Unavailable(told),
        _ => KmsError::Refused(told),
    }
}

#[async_trait]
impl KeyManager for GcpKms {
    async fn wrap(&self, context: &KeyContext, key: &KeyBytes) -> Result<Vec<u8>, KmsError> {
        let binding = context.binding();
        let body = json!({
            "plaintext": BASE64_STANDARD.encode(&key[..]),
            "plaintextCrc32c": crc32c(&key[..]).to_string(),
            "additionalAuthenticatedData": BASE64_STANDARD.encode(&binding),
            "additionalAuthenticatedDataCrc32c": crc32c(&binding).to_string(),
        });
        let answer: Encrypted = self.caller.patiently(|| Box::pin(self.ask(Verb::Encrypt, &body))).await?;
        let wrapped = BASE64_STANDARD.decode(answer.ciphertext).unwrap_or_default();
        let arrived = answer.verified_plaintext_crc32c && answer.ciphertext_crc32c == crc32c(&wrapped).to_string();
        if arrived && !wrapped.is_empty() { Ok(wrapped) } else { Err(damaged()) }
    }

    async fn unwrap(&self, context: &KeyContext, wrapped: &[u8]) -> Result<KeyBytes, KmsError> {
        let binding = context.binding();
        let body = json!({
            "ciphertext": BASE64_STANDARD.encode(wrapped),
            "ciphertextCrc32c": crc32c(wrapped).to_string(),
            "additionalAuthenticatedData": BASE64_STANDARD.encode(&binding),
            "additionalAuthenticatedDataCrc32c": crc32c(&binding).to_string(),
        });
        let answer: Decrypted = self.caller.patiently(|| Box::pin(self.ask(Verb::Decrypt, &body))).await?;
        let key = key_of(&answer.plaintext)?;
        if answer.plaintext_crc32c == crc32c(&key[..]).to_string() { Ok(key) } else { Err(damaged()) }
    }

    fn describe(&self) -> String {
        format!("gcp:{}", self.key)
    }

    async fn health(&self) -> Result<(), KmsError> {
        prove(self, self.caller.chance()).await
    }
}

fn damaged() -> KmsError {
    KmsError::Unavailable("a checksum does not fit: something was damaged on the way".to_owned())
}

/// CRC-32C (RFC 3720 appendix B.4), which Google asks clients to compare. A few dozen bytes need no table.
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    let reversed = bytes.iter().fold(u32::MAX, |mut crc, &byte| {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
        crc
    });
    !reversed
}

#[cfg(test)]
mod tests {
    use super::crc32c;

    #[test]
    fn checksums_are_those_of_rfc_3720() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }
}
