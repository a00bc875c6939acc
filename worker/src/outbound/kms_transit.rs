//! The root key in the transit engine of HashiCorp Vault or OpenBao: `encrypt` and `decrypt` of its HTTP API. A key's
//! context is its associated data, which the engine's AEAD key types (`aes256-gcm96`, `chacha20-poly1305`) bind.

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use base64::{Engine, prelude::BASE64_STANDARD};
use muneem_jobs::outbound::{
    Chance, KeyManager, KmsError,
    kms::{KeyBytes, KeyContext, prove},
};
use secrecy::{ExposeSecret, SecretString};
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
    /// `https://vault.example.in:8200`
    pub address: String,
    /// Where the engine is mounted.
    pub mount: String,
    /// Name of the key.
    pub key: String,
    /// Namespace, where the server has them.
    pub namespace: Option<String>,
    /// What opens the door.
    pub token: Token,
    /// Longest wait for an answer, repeats included.
    pub patience: Duration,
}

/// Where the token is.
#[derive(Clone, Debug)]
pub enum Token {
    /// In a file that an agent renews: read for each question.
    File(PathBuf),
    /// In the environment.
    Fixed(SecretString),
}

impl Token {
    fn read(&self) -> Result<SecretString, KmsError> {
        match self {
            Self::Fixed(token) => Ok(token.clone()),
            Self::File(path) => match std::fs::read_to_string(path) {
                Ok(token) => Ok(token.trim().to_owned().into()),
                Err(error) => Err(KmsError::Refused(format!(
                    "`vault.transit.token_file`: {}: {}: let the agent write it",
                    path.display(),
                    error.kind()
                ))),
            },
        }
    }
}

/// Vault or OpenBao.
pub struct Transit {
    caller: Caller,
    settings: Settings,
}

#[derive(Deserialize)]
struct Data<T> {
    data: T,
}

#[derive(Deserialize)]
struct Encrypted {
    ciphertext: String,
}

#[derive(Deserialize)]
struct Decrypted {
    plaintext: Zeroizing<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Fault {
    errors: Vec<String>,
}

/// What was asked for: some statuses mean another thing for each.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Encrypt,
    Decrypt,
}

impl Transit {
    /// # Errors
    /// When the machine has no usable certificate store.
    pub fn new(settings: Settings, chance: Arc<dyn Chance>) -> anyhow::Result<Self> {
        Ok(Self { caller: Caller::new(settings.patience, chance)?, settings })
    }

    async fn ask<T: serde::de::DeserializeOwned>(&self, verb: Verb, body: &Value) -> Result<T, KmsError> {
        let Settings { address, mount, key, namespace, token, .. } = &self.settings;
        let name = if verb == Verb::Encrypt { "encrypt" } else { "decrypt" };
        let url = format!("{}/v1/{}/{name}/{key}", address.trim_end_matches('/'), mount.trim_matches('/'));
        let mut request = self.caller.client().post(url).json(body);
        request = request.header("x-vault-token", token.read()?.expose_secret()).header("x-vault-request", "true");
        if let Some(namespace) = namespace {
            request = request.header("x-vault-namespace", namespace);
        }
        let answer = self.caller.send(request).await?;
        if answer.status == 200 {
            answer.json::<Data<T>>().map(|answer| answer.data)
        } else {
            Err(fault(verb, &answer))
        }
    }
}

/// What a no means (HTTP status codes of the Vault API). The engine has no codes of its own, so a missing key is told
/// by its words.
fn fault(verb: Verb, answer: &Answer) -> KmsError {
    let Fault { errors } = serde_json::from_slice(&answer.body).unwrap_or_default();
    let told = words(&errors.join("; "));
    let told = if told.is_empty() { format!("HTTP {}", answer.status) } else { told };
    match answer.status {
        429 => KmsError::Throttled(told),
        // 472 and 473 are stand-bys of Vault; 503 is a sealed one.
        472 | 473 | 500..=599 => KmsError::Unavailable(told),
        404 => KmsError::KeyGone(told),
        400 if told.contains("key not found") => KmsError::KeyGone(told),
        400 if verb == Verb::Decrypt => KmsError::NotOurs,
        _ => KmsError::Refused(told),
    }
}

#[async_trait]
impl KeyManager for Transit {
    async fn wrap(&self, context: &KeyContext, key: &KeyBytes) -> Result<Vec<u8>, KmsError> {
        let body = json!({
            "plaintext": BASE64_STANDARD.encode(&key[..]),
            "associated_data": BASE64_STANDARD.encode(context.binding()),
        });
        let answer: Encrypted = self.caller.patiently(|| Box::pin(self.ask(Verb::Encrypt, &body))).await?;
        // `vault:v1:…`: the version of the key stands in front, so that the engine can rotate it.
        if answer.ciphertext.is_empty() {
            return Err(KmsError::Unavailable("an answer without a ciphertext".to_owned()));
        }
        Ok(answer.ciphertext.into_bytes())
    }

    async fn unwrap(&self, context: &KeyContext, wrapped: &[u8]) -> Result<KeyBytes, KmsError> {
        let Ok(ciphertext) = std::str::from_utf8(wrapped) else { return Err(KmsError::NotOurs) };
        let body = json!({
            "ciphertext": ciphertext,
            "associated_data": BASE64_STANDARD.encode(context.binding()),
        });
        let answer: Decrypted = self.caller.patiently(|| Box::pin(self.ask(Verb::Decrypt, &body))).await?;
        key_of(&answer.plaintext)
    }

    fn describe(&self) -> String {
        let Settings { address, mount, key, .. } = &self.settings;
        format!("transit:{}/{mount}/{key}", address.trim_end_matches('/'))
    }

    async fn health(&self) -> Result<(), KmsError> {
        prove(self, self.caller.chance()).await
    }
}
