//! `[vault]`: who holds the root key, and how she is reached.

use std::{path::PathBuf, time::Duration};

use secrecy::SecretString;
use serde::Deserialize;

use super::{is_loopback, path_unless_empty, secs, unless_empty};
use crate::outbound::{kms_aws, kms_azure, kms_gcp, kms_transit};

/// Keys of sealed values.
#[derive(Clone, Debug, Deserialize)]
pub struct Vault {
    /// Who holds the root key.
    pub kms: Kms,
    /// Who held it before: what that one wrapped still opens.
    #[serde(deserialize_with = "kms_unless_empty")]
    pub previous_kms: Option<Kms>,
    /// The root key of [`Kms::File`]; `None`: in the data directory.
    #[serde(deserialize_with = "path_unless_empty")]
    pub key_file: Option<PathBuf>,
    /// How long keys stay in memory.
    #[serde(rename = "cache_secs", deserialize_with = "secs")]
    pub cache: Duration,
    /// How long they stay when the key service does not answer.
    #[serde(rename = "outage_max_secs", deserialize_with = "secs")]
    pub outage_max: Duration,
    /// How long backups are kept.
    pub backup_horizon_days: u16,
    /// To the tables of registered columns; `None`: they are in the same database.
    #[serde(skip)]
    pub host_url: Option<SecretString>,
    /// Longest wait for a key service, repeats included.
    #[serde(rename = "kms_timeout_secs", deserialize_with = "secs")]
    pub kms_timeout: Duration,
    /// AWS KMS.
    pub aws: Aws,
    /// Google Cloud KMS.
    pub gcp: Gcp,
    /// Azure Key Vault.
    pub azure: Azure,
    /// HashiCorp Vault or OpenBao.
    pub transit: Transit,
}

/// Who holds the root key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kms {
    /// A file of this machine.
    File,
    /// AWS KMS.
    Aws,
    /// Google Cloud KMS.
    Gcp,
    /// Azure Key Vault or Managed HSM.
    Azure,
    /// The transit engine of HashiCorp Vault or OpenBao.
    Transit,
}

impl Kms {
    /// Whether its driver was never run against the service itself.
    pub const fn is_experimental(self) -> bool {
        matches!(self, Self::Gcp | Self::Azure)
    }
}

/// AWS KMS.
#[derive(Clone, Debug, Deserialize)]
pub struct Aws {
    /// ARN of the key or its alias.
    #[serde(deserialize_with = "unless_empty")]
    pub key_id: Option<String>,
    /// Where the key lives; `None`: as its ARN says.
    #[serde(deserialize_with = "unless_empty")]
    pub region: Option<String>,
    /// Where the service answers; `None`: at its public address.
    #[serde(deserialize_with = "unless_empty")]
    pub endpoint: Option<String>,
    /// Of a key pair of its own.
    #[serde(deserialize_with = "unless_empty")]
    pub access_key_id: Option<String>,
    /// Of a key pair of its own.
    #[serde(skip)]
    pub secret_access_key: Option<SecretString>,
}

/// Google Cloud KMS.
#[derive(Clone, Debug, Deserialize)]
pub struct Gcp {
    /// The key's resource name.
    #[serde(deserialize_with = "unless_empty")]
    pub key: Option<String>,
    /// Where the service answers.
    pub endpoint: String,
    /// Key file of a service account.
    #[serde(deserialize_with = "path_unless_empty")]
    pub credentials_file: Option<PathBuf>,
}

/// Azure Key Vault.
#[derive(Clone, Debug, Deserialize)]
pub struct Azure {
    /// The key's address, without a version.
    #[serde(deserialize_with = "unless_empty")]
    pub key_url: Option<String>,
    /// How keys are wrapped.
    pub algorithm: kms_azure::Algorithm,
    /// Directory of the app registration.
    #[serde(deserialize_with = "unless_empty")]
    pub tenant_id: Option<String>,
    /// The app registration.
    #[serde(deserialize_with = "unless_empty")]
    pub client_id: Option<String>,
    /// Its secret.
    #[serde(skip)]
    pub client_secret: Option<SecretString>,
    /// Where apps get tokens.
    pub login_endpoint: String,
    /// Where machines get tokens.
    pub metadata_endpoint: String,
    /// For whom tokens are.
    pub resource: String,
}

/// HashiCorp Vault or OpenBao.
#[derive(Clone, Debug, Deserialize)]
pub struct Transit {
    /// Where it answers.
    #[serde(deserialize_with = "unless_empty")]
    pub address: Option<String>,
    /// Where the engine is mounted.
    pub mount: String,
    /// Name of the key.
    #[serde(deserialize_with = "unless_empty")]
    pub key: Option<String>,
    /// Namespace, where the server has them.
    #[serde(deserialize_with = "unless_empty")]
    pub namespace: Option<String>,
    /// File with the token.
    #[serde(deserialize_with = "path_unless_empty")]
    pub token_file: Option<PathBuf>,
    /// The token itself, from the environment.
    #[serde(skip)]
    pub token: Option<SecretString>,
}

impl Aws {
    /// The fourth part of an ARN is its region.
    fn region(&self) -> Option<String> {
        let of_arn = || self.key_id.as_deref()?.strip_prefix("arn:")?.split(':').nth(2).map(str::to_owned);
        self.region.clone().or_else(of_arn).filter(|region| !region.is_empty())
    }

    pub(crate) fn service(&self, patience: Duration) -> Option<kms_aws::Settings> {
        Some(kms_aws::Settings {
            key_id: self.key_id.clone()?,
            region: self.region()?,
            endpoint: self.endpoint.clone(),
            access_key: self.access_key_id.clone().zip(self.secret_access_key.clone()),
            patience,
        })
    }
}

impl Gcp {
    pub(crate) fn service(&self, patience: Duration) -> Option<kms_gcp::Settings> {
        Some(kms_gcp::Settings {
            key: self.key.clone()?,
            endpoint: self.endpoint.clone(),
            credentials_file: self.credentials_file.clone(),
            patience,
        })
    }
}

impl Azure {
    pub(crate) fn service(&self, patience: Duration) -> Option<kms_azure::Settings> {
        let app = self.tenant_id.clone().zip(self.client_id.clone()).zip(self.client_secret.clone());
        let identity = match app {
            Some(((tenant_id, client_id), client_secret)) => {
                kms_azure::Identity::App { tenant_id, client_id, client_secret }
            }
            None => kms_azure::Identity::Managed,
        };
        Some(kms_azure::Settings {
            key_url: self.key_url.clone()?,
            algorithm: self.algorithm,
            identity,
            login_endpoint: self.login_endpoint.clone(),
            metadata_endpoint: self.metadata_endpoint.clone(),
            resource: self.resource.clone(),
            patience,
        })
    }
}

impl Transit {
    pub(crate) fn service(&self, patience: Duration) -> Option<kms_transit::Settings> {
        let token = match (&self.token_file, &self.token) {
            (Some(file), _) => kms_transit::Token::File(file.clone()),
            (None, Some(token)) => kms_transit::Token::Fixed(token.clone()),
            (None, None) => return None,
        };
        Some(kms_transit::Settings {
            address: self.address.clone()?,
            mount: self.mount.clone(),
            key: self.key.clone()?,
            namespace: self.namespace.clone(),
            token,
            patience,
        })
    }
}

impl Vault {
    /// What keeps the services that are named from being asked.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.previous_kms == Some(self.kms) && self.kms != Kms::File {
            problems.push(
                "`vault.previous_kms` names the same service as `vault.kms`: within a service keys are rotated by the \
                 service itself"
                    .to_owned(),
            );
        }
        if self.previous_kms == Some(Kms::File) && self.kms == Kms::File {
            problems.push("`vault.previous_kms` is `file`, and so is `vault.kms`: leave it empty".to_owned());
        }
        for kms in [Some(self.kms), self.previous_kms].into_iter().flatten() {
            self.check(kms, &mut problems);
        }
        problems
    }

    fn check(&self, kms: Kms, problems: &mut Vec<String>) {
        let mut missing = |is_there: bool, key: &str, what: &str| {
            if !is_there {
                problems.push(format!("`vault.{key}` is not set: {what}"));
            }
        };
        let mut addresses = Vec::new();
        match kms {
            Kms::File => {}
            Kms::Aws => {
                let aws = &self.aws;
                missing(aws.key_id.is_some(), "aws.key_id", "name the key by its ARN");
                if aws.key_id.is_some() {
                    missing(aws.region().is_some(), "aws.region", "name the region, or the key by its whole ARN");
                }
                let both = aws.access_key_id.is_some() == aws.secret_access_key.is_some();
                missing(both, "aws.secret_access_key_file", "it goes together with `vault.aws.access_key_id`");
                addresses.extend(aws.endpoint.as_ref().map(|at| ("aws.endpoint", at)));
            }
            Kms::Gcp => {
                missing(
                    self.gcp.key.is_some(),
                    "gcp.key",
                    "name the key by its resource name, projects/…/cryptoKeys/…",
                );
                addresses.push(("gcp.endpoint", &self.gcp.endpoint));
            }
            Kms::Azure => {
                let azure = &self.azure;
                missing(
                    azure.key_url.is_some(),
                    "azure.key_url",
                    "name the key, https://NAME.vault.azure.net/keys/KEY",
                );
                let parts = [azure.tenant_id.is_some(), azure.client_id.is_some(), azure.client_secret.is_some()];
                let whole = parts.iter().all(|part| *part) || !parts.iter().any(|part| *part);
                missing(whole, "azure.client_secret_file", "tenant_id, client_id and the secret go together");
                addresses.extend(azure.key_url.as_ref().map(|at| ("azure.key_url", at)));
                addresses.push(("azure.login_endpoint", &azure.login_endpoint));
            }
            Kms::Transit => {
                let transit = &self.transit;
                missing(transit.address.is_some(), "transit.address", "say where Vault or OpenBao answers");
                missing(transit.key.is_some(), "transit.key", "name the key of the engine");
                let token = transit.token_file.is_some() || transit.token.is_some();
                missing(token, "transit.token_file", "name the file that the agent keeps the token in");
                addresses.extend(transit.address.as_ref().map(|at| ("transit.address", at)));
            }
        }
        for (key, at) in addresses {
            if !(at.starts_with("https://") || is_loopback(at)) {
                problems.push(format!("`vault.{key}` must begin with https:// (plain http is for loopback alone)"));
            }
        }
    }
}

fn kms_unless_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Kms>, D::Error> {
    let text: Option<String> = unless_empty(deserializer)?;
    let Some(text) = text else { return Ok(None) };
    Kms::deserialize(serde::de::value::StrDeserializer::<D::Error>::new(&text)).map(Some)
}
