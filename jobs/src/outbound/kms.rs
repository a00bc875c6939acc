//! Where the root key is: wraps and unwraps the keys of businesses, and does nothing else.

use std::fmt;

use aes_gcm::{
    Aes256Gcm, Nonce, Tag,
    aead::{AeadInOut, KeyInit},
};
use async_trait::async_trait;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::Chance;

/// A key in clear: 256 bits, wiped when dropped.
pub type KeyBytes = Zeroizing<[u8; 32]>;

/// What a wrapped key belongs to. A blob unwraps under the same context only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyContext {
    /// The business whose key it is.
    pub business_id: Uuid,
    /// The key's number.
    pub key_id: u32,
}

impl KeyContext {
    /// Of keys that belong to nobody and wrap nothing. No key of the vault has the number 0.
    pub const PROBE: Self = Self { business_id: Uuid::nil(), key_id: 0 };

    /// Pairs for services that take a map as encryption context.
    pub fn pairs(&self) -> [(&'static str, String); 2] {
        [("muneem_business", self.business_id.to_string()), ("muneem_key", self.key_id.to_string())]
    }

    /// The same as bytes, for services that authenticate bytes.
    pub fn binding(&self) -> Vec<u8> {
        [b"muneem.root.1".as_slice(), self.business_id.as_bytes(), &self.key_id.to_be_bytes()].concat()
    }
}

/// A key management service that holds the root key.
#[async_trait]
pub trait KeyManager: Send + Sync + 'static {
    /// Wraps `key` under the root key, bound to `context`.
    ///
    /// # Errors
    /// The service cannot be reached, or refuses.
    async fn wrap(&self, context: &KeyContext, key: &KeyBytes) -> Result<Vec<u8>, KmsError>;

    /// What [`Self::wrap`] wrapped under the same context.
    ///
    /// # Errors
    /// The service cannot be reached, refuses, or the blob is not what this root key wrapped under this context.
    async fn unwrap(&self, context: &KeyContext, wrapped: &[u8]) -> Result<KeyBytes, KmsError>;

    /// Driver and root key, for example `file:9f2c…`. Stored beside what it wrapped; free of secrets.
    fn describe(&self) -> String;

    /// Whether it answers and would wrap.
    ///
    /// # Errors
    /// It does not.
    async fn health(&self) -> Result<(), KmsError>;
}

/// The service did not do as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KmsError {
    /// No answer, or none that can be used: it may come back.
    #[error("the key service does not answer: {0}")]
    Unavailable(String),
    /// It answers others first; whoever waits a little is heard.
    #[error("the key service is asked too often: {0}")]
    Throttled(String),
    /// An answer, and it is no: credentials or policy.
    #[error("the key service refuses: {0}")]
    Refused(String),
    /// The root key is disabled, about to be deleted, or was never there.
    #[error("the key service has no such key in use: {0}")]
    KeyGone(String),
    /// The blob was wrapped by another root key, for another context, or has been changed.
    #[error("this root key did not wrap that key")]
    NotOurs,
}

impl KmsError {
    /// Whether the same question may be answered in a moment, with nothing changed.
    pub const fn is_passing(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Throttled(_))
    }
}

/// Wraps a key made for the purpose and unwraps it again: what [`KeyManager::health`] of a service over the network is.
///
/// # Errors
/// As the service's; [`KmsError::NotOurs`] when another key comes back.
pub async fn prove(service: &dyn KeyManager, chance: &dyn Chance) -> Result<(), KmsError> {
    let mut key: KeyBytes = Zeroizing::new([0; 32]);
    chance.fill(&mut key[..]);
    let wrapped = service.wrap(&KeyContext::PROBE, &key).await?;
    let back = service.unwrap(&KeyContext::PROBE, &wrapped).await?;
    if bool::from(back[..].ct_eq(&key[..])) { Ok(()) } else { Err(KmsError::NotOurs) }
}

/// A root key held by this process: what the file driver works with, and tests.
pub struct RootKey {
    cipher: Aes256Gcm,
    fingerprint: String,
    chance: std::sync::Arc<dyn Chance>,
}

impl RootKey {
    /// Works with these 256 bits; nonces come from `chance`.
    pub fn new(key: &KeyBytes, chance: std::sync::Arc<dyn Chance>) -> Self {
        let digest = Sha256::new().chain_update(b"muneem root key").chain_update(&key[..]).finalize();
        Self { cipher: Aes256Gcm::new((&**key).into()), fingerprint: hex::encode(&digest[..8]), chance }
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RootKey").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

/// Wraps `key`: nonce, 32 bytes, tag.
pub(crate) fn wrap_with(cipher: &Aes256Gcm, chance: &dyn Chance, aad: &[u8], key: &KeyBytes) -> Option<Vec<u8>> {
    let mut nonce = [0; 12];
    chance.fill(&mut nonce);
    let mut out = [nonce.as_slice(), &key[..]].concat();
    let tag = cipher.encrypt_inout_detached(&Nonce::from(nonce), aad, (&mut out[12..]).into()).ok()?;
    out.extend_from_slice(&tag);
    Some(out)
}

/// Undoes [`wrap_with`]; nothing when anything is off.
pub(crate) fn unwrap_with(cipher: &Aes256Gcm, aad: &[u8], wrapped: &[u8]) -> Option<KeyBytes> {
    let wrapped: &[u8; 60] = wrapped.try_into().ok()?;
    let (nonce, rest) = wrapped.split_first_chunk::<12>()?;
    let (body, tag) = rest.split_last_chunk::<16>()?;
    let mut key = Zeroizing::new(<[u8; 32]>::try_from(body).ok()?);
    cipher
        .decrypt_inout_detached(&Nonce::from(*nonce), aad, key.as_mut_slice().into(), &Tag::from(*tag))
        .ok()
        .map(|()| key)
}

#[async_trait]
impl KeyManager for RootKey {
    async fn wrap(&self, context: &KeyContext, key: &KeyBytes) -> Result<Vec<u8>, KmsError> {
        wrap_with(&self.cipher, &*self.chance, &context.binding(), key)
            .ok_or_else(|| KmsError::Refused("the key could not be wrapped".to_owned()))
    }

    async fn unwrap(&self, context: &KeyContext, wrapped: &[u8]) -> Result<KeyBytes, KmsError> {
        unwrap_with(&self.cipher, &context.binding(), wrapped).ok_or(KmsError::NotOurs)
    }

    fn describe(&self) -> String {
        format!("file:{}", self.fingerprint)
    }

    async fn health(&self) -> Result<(), KmsError> {
        prove(self, &*self.chance).await
    }
}
