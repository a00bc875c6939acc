//! Identity providers: what they publish about themselves, where a browser is sent, and what a code is worth.
//!
//! An ID token counts when its signature fits a key that the provider publishes, by an asymmetric algorithm, and issuer,
//! audience, nonce and times are right (OpenID Connect Core 1.0 section 3.1.3.7). Nothing else it says is read but
//! subject, `amr`, `acr` and `auth_time`.

use std::{
    collections::HashMap,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine, prelude::*};
use chrono::TimeDelta;
use muneem_jobs::{
    outbound::Clock,
    people::oidc::{CLOCK_SKEW, FLOW_LIFE, Proof, Secrets},
};
use openidconnect::{
    ClaimsVerificationError, ClientId, IssuerUrl, Nonce, SignatureVerificationError,
    core::{CoreIdToken, CoreIdTokenClaims, CoreIdTokenVerifier, CoreJsonWebKeySet, CoreJwsSigningAlgorithm},
};
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use super::http::{Timeouts, client};

/// Waits for a provider: somebody looks at an empty page meanwhile.
const TIMEOUTS: Timeouts = Timeouts { connect: Duration::from_secs(4), total: Duration::from_secs(10) };
/// How long what a provider publishes about itself is used.
const KNOWN_FOR: Duration = Duration::from_secs(3600);
/// Its keys are read anew for a token that none fits, but not more often.
const KEYS_PAUSE: Duration = Duration::from_secs(30);
/// Longest answer that is read.
const MOST_BYTES: usize = 256 * 1024;
/// What a person proves is to be as fresh as a factor of ours.
const MAX_AGE_SECS: i64 = 300;

/// Why nobody is identified.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It does not answer, or not as a provider does.
    #[error("the identity provider {issuer} does not answer as one: {why}")]
    Down {
        /// Which one.
        issuer: String,
        /// What was seen. It holds nothing that the provider was sent.
        why: String,
    },
    /// It does not take the code, or does not know us.
    #[error("the identity provider {issuer} does not take the code: {code}")]
    CodeRefused {
        /// Which one.
        issuer: String,
        /// Its error code (RFC 6749 section 5.2).
        code: String,
    },
    /// Its token is not what it must be: another's, forged, old, or for another sign-in.
    #[error("the token of the identity provider {issuer} is refused: {why}")]
    Forged {
        /// Which one.
        issuer: String,
        /// What is wrong with it, as one word.
        why: &'static str,
    },
}

/// What a provider knows us by.
#[derive(Clone, Debug)]
pub struct Registration {
    /// Exactly as it stands in its tokens.
    pub issuer: String,
    /// What it knows us by.
    pub client_id: String,
    /// `None`: a public client.
    pub client_secret: Option<SecretString>,
    /// Where it sends the browser back to.
    pub redirect_uri: String,
}

/// Who somebody is at a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The `sub` of its tokens.
    pub subject: String,
    /// How she proved it.
    pub proof: Proof,
}

/// What a provider publishes about itself (OpenID Connect Discovery 1.0 section 3).
#[derive(Clone, Deserialize)]
struct Metadata {
    issuer: String,
    authorization_endpoint: Url,
    token_endpoint: Url,
    jwks_uri: Url,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    /// RFC 9207 section 3.
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

struct Known {
    metadata: Metadata,
    keys: CoreJsonWebKeySet,
    read_at: Instant,
    keys_read_at: Instant,
}

/// Speaks to identity providers.
pub struct Providers {
    client: reqwest::Client,
    clock: Arc<dyn Clock>,
    known: Mutex<HashMap<String, Arc<Known>>>,
    keys_pause: Duration,
}

#[derive(Deserialize)]
struct TokenAnswer {
    id_token: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct TokenFault {
    error: String,
}

impl Providers {
    /// `clock` is the world's: tokens carry the provider's time.
    ///
    /// # Errors
    /// When the machine has no usable certificate store.
    pub fn new(clock: Arc<dyn Clock>) -> reqwest::Result<Self> {
        Ok(Self { client: client(TIMEOUTS)?, clock, known: Mutex::default(), keys_pause: KEYS_PAUSE })
    }

    /// Reads a provider's keys anew after another pause than half a minute: for tests, which rotate keys at once.
    #[must_use]
    pub fn with_keys_pause(self, keys_pause: Duration) -> Self {
        Self { keys_pause, ..self }
    }

    /// Whether a provider of this name answers as one.
    ///
    /// # Errors
    /// [`Error::Down`] says what is off.
    pub async fn probe(&self, issuer: &str) -> Result<(), Error> {
        let known = self.known(issuer).await?;
        if known.keys.keys().is_empty() {
            return Err(down(issuer, "it publishes no key that can be used".to_owned()));
        }
        Ok(())
    }

    /// Where the browser goes.
    ///
    /// # Errors
    /// [`Error::Down`]
    pub async fn authorize_url(&self, registration: &Registration, secrets: &Secrets) -> Result<String, Error> {
        let known = self.known(&registration.issuer).await?;
        let challenge = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(secrets.verifier.expose_secret().as_bytes()));
        let mut url = known.metadata.authorization_endpoint.clone();
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &registration.client_id)
            .append_pair("redirect_uri", &registration.redirect_uri)
            .append_pair("scope", "openid")
            .append_pair("state", secrets.state.expose_secret())
            .append_pair("nonce", secrets.nonce.expose_secret())
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256")
            .append_pair("max_age", &MAX_AGE_SECS.to_string());
        Ok(url.into())
    }

    /// Refuses an answer that another provider sent the browser back with (RFC 9207). `iss` is the parameter of the
    /// answer.
    ///
    /// # Errors
    /// [`Error::Forged`], [`Error::Down`]
    pub async fn check_sender(&self, issuer: &str, iss: Option<&str>) -> Result<(), Error> {
        let known = self.known(issuer).await?;
        match iss {
            Some(iss) if iss != issuer => Err(Error::Forged { issuer: issuer.to_owned(), why: "sender" }),
            None if known.metadata.authorization_response_iss_parameter_supported => {
                Err(Error::Forged { issuer: issuer.to_owned(), why: "no sender" })
            }
            _ => Ok(()),
        }
    }

    /// Who is behind `code`.
    ///
    /// # Errors
    /// As [`Error`].
    pub async fn identify(
        &self,
        registration: &Registration,
        code: &str,
        secrets: &Secrets,
    ) -> Result<Identity, Error> {
        let issuer = &registration.issuer;
        let known = self.known(issuer).await?;
        let token = self.redeem(registration, &known.metadata, code, secrets).await?;
        let forged = |why| Error::Forged { issuer: issuer.clone(), why };
        let token = CoreIdToken::from_str(&token.id_token).map_err(|_| forged("no token"))?;
        let outcome = match self.verify(registration, &known.keys, &token, secrets) {
            // The provider may have another key since its keys were read.
            Err(ClaimsVerificationError::SignatureVerification(_))
                if known.keys_read_at.elapsed() >= self.keys_pause =>
            {
                let fresh = self.read_keys(issuer, &known).await?;
                self.verify(registration, &fresh.keys, &token, secrets)
            }
            outcome => outcome,
        };
        let claims = outcome.map_err(|error| forged(reason(&error)))?;
        if claims.authorized_party().is_some_and(|party| **party != registration.client_id) {
            return Err(forged("party"));
        }
        let methods = claims.auth_method_refs().into_iter().flatten().map(|method| method.to_string()).collect();
        let proof = Proof {
            methods,
            class: claims.auth_context_ref().map(|class| class.to_string()),
            proved_at: claims.auth_time(),
        };
        Ok(Identity { subject: claims.subject().to_string(), proof })
    }

    fn verify<'t>(
        &self,
        registration: &Registration,
        keys: &CoreJsonWebKeySet,
        token: &'t CoreIdToken,
        secrets: &Secrets,
    ) -> Result<&'t CoreIdTokenClaims, ClaimsVerificationError> {
        let issuer = IssuerUrl::new(registration.issuer.clone())
            .map_err(|_| ClaimsVerificationError::InvalidIssuer("no address".to_owned()))?;
        let now = self.clock.now();
        // A public client's verifier whatever the client is: a signature by a shared secret is never taken, and least
        // of all one by the text of a public key.
        let verifier =
            CoreIdTokenVerifier::new_public_client(ClientId::new(registration.client_id.clone()), issuer, keys.clone())
                .set_allowed_algs([
                    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
                    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
                    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
                    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
                    CoreJwsSigningAlgorithm::RsaSsaPssSha384,
                    CoreJwsSigningAlgorithm::RsaSsaPssSha512,
                    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
                    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
                    CoreJwsSigningAlgorithm::EdDsa,
                ])
                .set_time_fn(move || now)
                .set_issue_time_verifier_fn(move |issued| {
                    let age = now - issued;
                    if age >= -CLOCK_SKEW && age <= FLOW_LIFE + TimeDelta::minutes(1) {
                        Ok(())
                    } else {
                        Err("age".to_owned())
                    }
                });
        token.claims(&verifier, &Nonce::new(secrets.nonce.expose_secret().to_owned()))
    }

    async fn redeem(
        &self,
        registration: &Registration,
        metadata: &Metadata,
        code: &str,
        secrets: &Secrets,
    ) -> Result<TokenAnswer, Error> {
        let Registration { issuer, client_id, client_secret, redirect_uri } = registration;
        let mut fields = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect_uri.as_str()),
            ("code_verifier", secrets.verifier.expose_secret()),
        ];
        let methods = metadata.token_endpoint_auth_methods_supported.as_deref();
        // `client_secret_basic` is what a provider takes that says nothing (Discovery 1.0 section 3).
        let basic = methods.is_none_or(|methods| methods.iter().any(|method| method == "client_secret_basic"));
        let mut request = self.client.post(metadata.token_endpoint.clone());
        match client_secret {
            Some(secret) if basic => {
                // Both parts are form-encoded first (RFC 6749 section 2.3.1).
                request = request.basic_auth(encoded(client_id), Some(encoded(secret.expose_secret())));
            }
            Some(secret) => {
                fields.extend([("client_id", client_id.as_str()), ("client_secret", secret.expose_secret())]);
            }
            None => fields.push(("client_id", client_id)),
        }
        let request = request
            .header("content-type", "application/x-www-form-urlencoded")
            .header("accept", "application/json")
            .body(form(&fields));
        let (status, body) = self.send(issuer, request).await?;
        match status {
            200 => parse(issuer, &body, "its token answer"),
            400 | 401 | 403 => {
                let TokenFault { error } = serde_json::from_slice(&body).unwrap_or_default();
                let is_code =
                    (1..=60).contains(&error.len()) && error.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
                let code = if is_code { error } else { format!("HTTP {status}") };
                Err(Error::CodeRefused { issuer: issuer.clone(), code })
            }
            status => Err(down(issuer, format!("its token endpoint answers HTTP {status}"))),
        }
    }

    async fn known(&self, issuer: &str) -> Result<Arc<Known>, Error> {
        let held = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(issuer).cloned();
        if let Some(known) = held.filter(|known| known.read_at.elapsed() < KNOWN_FOR) {
            return Ok(known);
        }
        let address = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let metadata: Metadata = self.fetch(issuer, &address, "what it publishes about itself").await?;
        if metadata.issuer != issuer {
            return Err(down(issuer, "it calls itself by another name".to_owned()));
        }
        let local = issuer.starts_with("http://");
        let endpoints = [&metadata.authorization_endpoint, &metadata.token_endpoint, &metadata.jwks_uri];
        if endpoints.iter().any(|url| url.scheme() != "https" && !(local && is_loopback(url))) {
            return Err(down(issuer, "one of its addresses is not https".to_owned()));
        }
        let keys = self.fetch(issuer, metadata.jwks_uri.as_str(), "its keys").await?;
        let read_at = Instant::now();
        Ok(self.keep(issuer, Known { metadata, keys, read_at, keys_read_at: read_at }))
    }

    async fn read_keys(&self, issuer: &str, known: &Known) -> Result<Arc<Known>, Error> {
        let metadata = known.metadata.clone();
        let keys = self.fetch(issuer, metadata.jwks_uri.as_str(), "its keys").await?;
        Ok(self.keep(issuer, Known { metadata, keys, read_at: known.read_at, keys_read_at: Instant::now() }))
    }

    fn keep(&self, issuer: &str, known: Known) -> Arc<Known> {
        let known = Arc::new(known);
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(issuer.to_owned(), Arc::clone(&known));
        known
    }

    async fn fetch<T: DeserializeOwned>(&self, issuer: &str, address: &str, what: &str) -> Result<T, Error> {
        let request = self.client.get(address).header("accept", "application/json");
        let (status, body) = self.send(issuer, request).await?;
        if status != 200 {
            return Err(down(issuer, format!("for {what} it answers HTTP {status}")));
        }
        parse(issuer, &body, what)
    }

    async fn send(&self, issuer: &str, request: reqwest::RequestBuilder) -> Result<(u16, Vec<u8>), Error> {
        // Without the address, whose query may hold a code.
        let broken = |error: reqwest::Error| {
            let why = match (error.is_timeout(), error.is_connect()) {
                (true, _) => "it took too long",
                (false, true) => "no connection",
                (false, false) => "the connection broke",
            };
            down(issuer, why.to_owned())
        };
        let mut response = request.send().await.map_err(broken)?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(broken)? {
            if body.len() + chunk.len() > MOST_BYTES {
                return Err(down(issuer, "an answer without an end".to_owned()));
            }
            body.extend_from_slice(&chunk);
        }
        Ok((status, body))
    }
}

fn down(issuer: &str, why: String) -> Error {
    Error::Down { issuer: issuer.to_owned(), why }
}

fn parse<T: DeserializeOwned>(issuer: &str, body: &[u8], what: &str) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|_| down(issuer, format!("{what} cannot be read")))
}

fn is_loopback(url: &Url) -> bool {
    url.scheme() == "http" && matches!(url.host_str(), Some("127.0.0.1" | "localhost" | "[::1]"))
}

/// What is wrong with a token, for log and metric: nothing that the token says itself.
fn reason(error: &ClaimsVerificationError) -> &'static str {
    match error {
        ClaimsVerificationError::Expired(_) => "expired",
        ClaimsVerificationError::InvalidAudience(_) => "audience",
        ClaimsVerificationError::InvalidIssuer(_) => "issuer",
        ClaimsVerificationError::InvalidNonce(_) => "nonce",
        ClaimsVerificationError::SignatureVerification(
            SignatureVerificationError::DisallowedAlg(_) | SignatureVerificationError::UnsupportedAlg(_),
        ) => "algorithm",
        ClaimsVerificationError::SignatureVerification(SignatureVerificationError::NoSignature) => "unsigned",
        ClaimsVerificationError::SignatureVerification(SignatureVerificationError::NoMatchingKey) => "unknown key",
        ClaimsVerificationError::SignatureVerification(_) => "signature",
        _ => "form",
    }
}

/// `application/x-www-form-urlencoded`.
fn form(pairs: &[(&str, &str)]) -> String {
    let url = Url::parse_with_params("form:fields", pairs);
    url.ok().and_then(|url| url.query().map(str::to_owned)).unwrap_or_default()
}

fn encoded(text: &str) -> String {
    form(&[("", text)]).trim_start_matches('=').to_owned()
}
