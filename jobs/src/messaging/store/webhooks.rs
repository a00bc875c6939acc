//! Bodies of the carrier's webhooks.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    messaging::{Error, WebhookId},
    people::BusinessId,
};

/// One webhook body to keep.
pub(in crate::messaging) struct NewWebhook {
    pub(in crate::messaging) id: WebhookId,
    pub(in crate::messaging) sha256: Vec<u8>,
    /// Sealed.
    pub(in crate::messaging) body: Vec<u8>,
    pub(in crate::messaging) state: &'static str,
    /// Whose app signed it; none: the installation's.
    pub(in crate::messaging) signed_for: Option<BusinessId>,
    /// Whom it tells something.
    pub(in crate::messaging) concerns: Vec<BusinessId>,
}

/// Keeps webhook bodies of one batch; the same bytes again are the same webhook. Answers the ids of those that are new.
pub(in crate::messaging) async fn insert_webhooks(
    conn: &mut PgConnection,
    (batch, received_at): (Uuid, DateTime<Utc>),
    webhooks: &[NewWebhook],
) -> Result<Vec<WebhookId>, Error> {
    let ids: Vec<_> = webhooks.iter().map(|webhook| webhook.id.0).collect();
    let digests: Vec<_> = webhooks.iter().map(|webhook| webhook.sha256.clone()).collect();
    let bodies: Vec<_> = webhooks.iter().map(|webhook| webhook.body.clone()).collect();
    let states: Vec<_> = webhooks.iter().map(|webhook| webhook.state.to_owned()).collect();
    // An array of arrays must have equal rows, so each list travels as text.
    let concerns: Vec<_> = webhooks
        .iter()
        .map(|webhook| webhook.concerns.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
        .collect();
    let signers: Vec<_> = webhooks.iter().map(|webhook| webhook.signed_for.map(|business| business.0)).collect();
    let inserted = sqlx::query_scalar!(
        r#"
        insert into muneem.messaging_webhooks (
            webhook_id, sha256, body_sealed, state, signed_for, concerns, received_at, batch_id)
        select new.webhook_id, new.sha256, new.body, new.state, new.signed_for,
            string_to_array(new.concerns, ',')::uuid[], $7, $8
        from unnest($1::uuid[], $2::bytea[], $3::bytea[], $4::text[], $5::uuid[], $6::text[])
            as new (webhook_id, sha256, body, state, signed_for, concerns)
        -- Two transactions with the same bodies must meet in the same order.
        order by new.sha256
        on conflict (sha256) do nothing
        returning webhook_id as "webhook_id: WebhookId"
        "#,
        &ids,
        &digests,
        &bodies,
        &states,
        &signers as &[Option<Uuid>],
        &concerns,
        received_at,
        batch,
    )
    .fetch_all(conn)
    .await?;
    Ok(inserted)
}

/// A stored body.
pub(in crate::messaging) struct StoredWebhook {
    pub(in crate::messaging) webhook_id: WebhookId,
    pub(in crate::messaging) sha256: Vec<u8>,
    pub(in crate::messaging) body_sealed: Vec<u8>,
    pub(in crate::messaging) signed_for: Option<BusinessId>,
    pub(in crate::messaging) received_at: DateTime<Utc>,
}

/// The bodies of a batch that concern a business, or the one of this id, by arrival.
pub(in crate::messaging) async fn list_webhooks(
    conn: &mut PgConnection,
    business: BusinessId,
    webhook: Option<WebhookId>,
    batch: Option<Uuid>,
) -> Result<Vec<StoredWebhook>, Error> {
    let webhooks = sqlx::query_as!(
        StoredWebhook,
        r#"
        select webhook_id as "webhook_id: WebhookId", sha256, body_sealed, signed_for as "signed_for: BusinessId",
            received_at
        from muneem.messaging_webhooks
        -- What an older program kept names nobody, and its job reads it by its id.
        where webhook_id = $1 or (batch_id = $2 and $3 = any (concerns))
        order by webhook_id
        "#,
        webhook.map(|webhook| webhook.0),
        batch,
        business.0,
    )
    .fetch_all(conn)
    .await?;
    Ok(webhooks)
}
