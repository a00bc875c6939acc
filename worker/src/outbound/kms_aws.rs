//! The root key in AWS KMS: `Encrypt` and `Decrypt` of API version 2014-11-01 over JSON, signed with SigV4. The context
//! of a key goes along as encryption context: CloudTrail shows it, and a key policy can ask for it.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use base64::{Engine, prelude::BASE64_STANDARD};
use muneem_jobs::outbound::{
    Chance, KeyManager, KmsError,
    kms::{KeyBytes, KeyContext, prove},
};
use object_store::{
    RetryConfig,
    aws::{AmazonS3Builder, AwsAuthorizer, AwsCredentialProvider},
    client::{HttpRequest, HttpRequestBody},
};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::kms_call::{Answer, Caller, words};

/// Which key, and how it is reached.
#[derive(Clone, Debug)]
pub struct Settings {
    /// ARN of the key or of an alias, or their short forms.
    pub key_id: String,
    /// `ap-south-1`
    pub region: String,
    /// Where the service answers; `None`: at its public address in the region.
    pub endpoint: Option<String>,
    /// A key pair of its own; `None`: what the environment or the machine's role gives.
    pub access_key: Option<(String, SecretString)>,
    /// Longest wait for an answer, repeats included.
    pub patience: Duration,
}

/// AWS KMS.
pub struct AwsKms {
    caller: Caller,
    endpoint: String,
    region: String,
    key_id: String,
    credentials: AwsCredentialProvider,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Encrypted {
    ciphertext_blob: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Decrypted {
    plaintext: Zeroizing<String>,
}

/// `{"__type": "com.amazonaws.kms#NotFoundException", "message": …}`; some write `Message`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Fault {
    #[serde(rename = "__type")]
    kind: String,
    #[serde(alias = "Message")]
    message: String,
}

impl AwsKms {
    /// Without a key pair in `settings`, credentials come from `AWS_…` in the environment, a web identity, or the
    /// role of the container or machine, as `object_store` finds them for its buckets.
    ///
    /// # Errors
    /// The certificate store or the credentials of the environment cannot be used.
    pub fn new(settings: &Settings, chance: Arc<dyn Chance>) -> anyhow::Result<Self> {
        // First of all: it also chooses the process's cryptography, which the library's own client asks for.
        let caller = Caller::new(settings.patience, chance)?;
        let mut credentials = AmazonS3Builder::from_env();
        if let Some((id, secret)) = &settings.access_key {
            credentials = AmazonS3Builder::new().with_access_key_id(id).with_secret_access_key(secret.expose_secret());
        }
        // Only its credentials are used, so no bucket of this name needs to be anywhere.
        let found = credentials
            .with_bucket_name("credentials-only")
            .with_region(&settings.region)
            .with_retry(RetryConfig { max_retries: 2, retry_timeout: settings.patience, ..RetryConfig::default() })
            .build()?;
        let endpoint = settings.endpoint.clone();
        Ok(Self {
            caller,
            endpoint: endpoint.unwrap_or_else(|| format!("https://kms.{}.amazonaws.com", settings.region)),
            region: settings.region.clone(),
            key_id: settings.key_id.clone(),
            credentials: Arc::clone(found.credentials()),
        })
    }

    async fn call(&self, operation: &str, body: &Value) -> Result<Answer, KmsError> {
        let credential = self
            .credentials
            .get_credential()
            .await
            .map_err(|error| KmsError::Unavailable(format!("no AWS credentials: {}", words(&error.to_string()))))?;
        let url = format!("{}/", self.endpoint.trim_end_matches('/'));
        let bytes = body.to_string().into_bytes();
        let mut signed: HttpRequest = http::Request::post(&url)
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", format!("TrentService.{operation}"))
            .body(HttpRequestBody::from(bytes.clone()))
            .map_err(|_| KmsError::Refused("`vault.aws.endpoint` is no address".to_owned()))?;
        AwsAuthorizer::new(&credential, "kms", &self.region).try_authorize(&mut signed, None).map_err(|error| {
            KmsError::Refused(format!("the request cannot be signed: {}", words(&error.to_string())))
        })?;
        let request = self.caller.client().post(url).headers(signed.headers().clone()).body(bytes);
        self.caller.send(request).await
    }

    async fn ask<T: serde::de::DeserializeOwned>(&self, operation: &str, body: &Value) -> Result<T, KmsError> {
        let answer = self.call(operation, body).await?;
        if answer.status == 200 { answer.json() } else { Err(fault(&answer)) }
    }
}

/// What a no means (AWS KMS API reference, errors of `Encrypt` and `Decrypt`, and the common errors).
fn fault(answer: &Answer) -> KmsError {
    let fault: Fault = serde_json::from_slice(&answer.body).unwrap_or_default();
    let kind = fault.kind.rsplit(['#', '.']).next().unwrap_or_default();
    let told = words(format!("{kind} {}", fault.message).trim());
    let told = if told.is_empty() { format!("HTTP {}", answer.status) } else { told };
    match kind {
        "IncorrectKeyException" | "InvalidCiphertextException" => KmsError::NotOurs,
        "NotFoundException" | "DisabledException" | "KMSInvalidStateException" => KmsError::KeyGone(told),
        "ThrottlingException"
        | "Throttling"
        | "LimitExceededException"
        | "TooManyRequestsException"
        | "RequestLimitExceeded" => KmsError::Throttled(told),
        "DependencyTimeoutException"
        | "KMSInternalException"
        | "KeyUnavailableException"
        | "InternalFailure"
        | "ServiceUnavailable" => KmsError::Unavailable(told),
        _ if answer.status == 429 => KmsError::Throttled(told),
        _ if answer.status >= 500 => KmsError::Unavailable(told),
        _ => KmsError::Refused(told),
    }
}

fn encryption_context(context: &KeyContext) -> Map<String, Value> {
    context.pairs().into_iter().map(|(name, value)| (name.to_owned(), Value::String(value))).collect()
}

#[async_trait]
impl KeyManager for AwsKms {
    async fn wrap(&self, context: &KeyContext, key: &KeyBytes) -> Result<Vec<u8>, KmsError> {
        let body = json!({
            "KeyId": self.key_id,
            "Plaintext": BASE64_STANDARD.encode(&key[..]),
            "EncryptionContext": encryption_context(context),
        });
        let answer: Encrypted = self.caller.patiently(|| Box::pin(self.ask("Encrypt", &body))).await?;
        let wrapped = BASE64_STANDARD.decode(answer.ciphertext_blob).ok().filter(|wrapped| !wrapped.is_empty());
        wrapped.ok_or_else(|| KmsError::Unavailable("Encrypt answered without a ciphertext".to_owned()))
    }

    async fn unwrap(&self, context: &KeyContext, wrapped: &[u8]) -> Result<KeyBytes, KmsError> {
        let body = json!({
            // Named, so that a key of another account that we may use opens nothing here.
            "KeyId": self.key_id,
            "CiphertextBlob": BASE64_STANDARD.encode(wrapped),
            "EncryptionContext": encryption_context(context),
        });
        let answer: Decrypted = self.caller.patiently(|| Box::pin(self.ask("Decrypt", &body))).await?;
        key_of(&answer.plaintext)
    }

    fn describe(&self) -> String {
        format!("aws:{}", self.key_id)
    }

    async fn health(&self) -> Result<(), KmsError> {
        prove(self, self.caller.chance()).await
    }
}

/// The 256 bits that a service gives back in base64.
pub(super) fn key_of(base64: &str) -> Result<KeyBytes, KmsError> {
    let bytes = Zeroizing::new(BASE64_STANDARD.decode(base64.as_bytes()).unwrap_or_default());
    // Opened by the service, and no key: wrapped by somebody else with rights on the same root key.
    let key: [u8; 32] = bytes.as_slice().try_into().map_err(|_| KmsError::NotOurs)?;
    Ok(Zeroizing::new(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_of_the_api_reference_means_one_thing() {
        let told = |status: u16, kind: &str| {
            let body = json!({ "__type": kind, "message": "why" }).to_string().into_bytes();
            fault(&Answer { status, body: Zeroizing::new(body) })
        };
        for kind in ["IncorrectKeyException", "InvalidCiphertextException"] {
            assert_eq!(told(400, kind), KmsError::NotOurs, "{kind}");
        }
        for kind in ["NotFoundException", "DisabledException", "com.amazonaws.kms#KMSInvalidStateException"] {
            assert!(matches!(told(400, kind), KmsError::KeyGone(_)), "{kind}");
        }
        for kind in ["ThrottlingException", "LimitExceededException", "RequestLimitExceeded"] {
            assert!(matches!(told(400, kind), KmsError::Throttled(_)), "{kind}");
        }
        for kind in ["DependencyTimeoutException", "KMSInternalException", "KeyUnavailableException"] {
            assert!(matches!(told(500, kind), KmsError::Unavailable(_)), "{kind}");
        }
        for kind in [
            "AccessDeniedException",
            "UnrecognizedClientException",
            "InvalidSignatureException",
            "ExpiredTokenException",
            "InvalidKeyUsageException",
            "InvalidGrantTokenException",
            "DryRunOperationException",
        ] {
            assert_eq!(told(400, kind), KmsError::Refused(format!("{kind} why")));
        }
        let page = Answer { status: 403, body: Zeroizing::new(b"<html>".to_vec()) };
        assert_eq!(fault(&page), KmsError::Refused("HTTP 403".to_owned()));
        let page = Answer { status: 502, body: Zeroizing::new(b"<html>".to_vec()) };
        assert!(fault(&page).is_passing());
    }
}
