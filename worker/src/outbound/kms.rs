//! The key services over a network, as the settings name them.

use std::sync::Arc;

use anyhow::Context;
use muneem_jobs::outbound::{Chance, KeyManager};

use super::{kms_aws::AwsKms, kms_azure::AzureKms, kms_call::Fused, kms_gcp::GcpKms, kms_transit::Transit};
use crate::config::{Kms, Vault};

/// The service that `kms` names, behind its fuse; `None`: the file of this machine, which is no service.
///
/// # Errors
/// The settings name none, or its credentials cannot be used.
pub fn open(kms: Kms, settings: &Vault, chance: &Arc<dyn Chance>) -> anyhow::Result<Option<Arc<dyn KeyManager>>> {
    let chance = Arc::clone(chance);
    let patience = settings.kms_timeout;
    let whole = |section: &str| format!("`[vault.{section}]` is not filled in: see `muneem config check`");
    let service: Arc<dyn KeyManager> = match kms {
        Kms::File => return Ok(None),
        Kms::Aws => Arc::new(AwsKms::new(&settings.aws.service(patience).with_context(|| whole("aws"))?, chance)?),
        Kms::Gcp => Arc::new(GcpKms::new(&settings.gcp.service(patience).with_context(|| whole("gcp"))?, chance)?),
        Kms::Azure => {
            Arc::new(AzureKms::new(settings.azure.service(patience).with_context(|| whole("azure"))?, chance)?)
        }
        Kms::Transit => {
            Arc::new(Transit::new(settings.transit.service(patience).with_context(|| whole("transit"))?, chance)?)
        }
    };
    Ok(Some(Arc::new(Fused::new(service))))
}
