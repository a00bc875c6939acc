use std::sync::Arc;

use sqlx::PgPool;

use crate::{
    messaging,
    outbound::{Carrier, Chance, Clock, Mailer, ObjectStore},
    vault::Vault,
    webhooks,
};

/// What a job may use: the database and the outside, as `app.rs` of the binary wired them.
pub struct Deps {
    /// Connections of the app role.
    pub db: PgPool,
    /// The one source of "now".
    pub clock: Arc<dyn Clock>,
    /// The one source of chance.
    pub chance: Arc<dyn Chance>,
    /// Where files lie, by digest.
    pub objects: Arc<dyn ObjectStore>,
    /// Who carries WhatsApp messages.
    pub carrier: Arc<dyn Carrier>,
    /// Who carries mail.
    pub mailer: Arc<dyn Mailer>,
    /// Seals and opens values.
    pub vault: Arc<Vault>,
    /// How long an attempt of unknown outcome waits for a webhook.
    pub messaging: messaging::Settings,
    /// Who sends webhooks, and how.
    pub webhooks: webhooks::Sending,
}
