use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{Error, LinkId, Provider, ProviderId, Purpose};
use crate::people::{BusinessId, StaffId};

/// Flows that ran out are deleted so many at a time.
const FORGET_MAX: i64 = 100;

struct Row {
    provider_id: ProviderId,
    business_id: Option<BusinessId>,
    handle: String,
    label: String,
    issuer: String,
    client_id: String,
    trusted_amr: Vec<String>,
    trusted_acr: Vec<String>,
    created_at: DateTime<Utc>,
}

impl From<Row> for Provider {
    fn from(row: Row) -> Self {
        let Row { provider_id, business_id, handle, label, issuer, client_id, trusted_amr, trusted_acr, created_at } =
            row;
        Self { provider_id, business_id, handle, label, issuer, client_id, trusted_amr, trusted_acr, created_at }
    }
}

pub(super) async fn insert_provider(
    db: &mut PgConnection,
    provider: &Provider,
    secret: Option<&[u8]>,
) -> Result<(), Error> {
    let outcome = sqlx::query!(
        "insert into muneem.people_oidc_providers
            (provider_id, business_id, handle, label, issuer, client_id, client_secret_sealed, trusted_amr, trusted_acr,
             created_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        provider.provider_id.0,
        provider.business_id.map(|business| business.0),
        provider.handle,
        provider.label,
        provider.issuer,
        provider.client_id,
        secret,
        &provider.trusted_amr,
        &provider.trusted_acr,
        provider.created_at,
    )
    .execute(db)
    .await;
    match outcome {
        Ok(_) => Ok(()),
        Err(error) if constraint(&error) == Some("people_oidc_providers_handle") => {
            Err(Error::HandleTaken(provider.handle.clone()))
        }
        Err(error) => Err(error.into()),
    }
}

fn constraint(error: &sqlx::Error) -> Option<&str> {
    error.as_database_error().and_then(|error| error.constraint())
}

/// False when it was removed before.
pub(super) async fn remove_provider(
    db: &mut PgConnection,
    provider: ProviderId,
    now: DateTime<Utc>,
) -> Result<bool, Error> {
    let outcome = sqlx::query!(
        "update muneem.people_oidc_providers
        set removed_at = $2
        where provider_id = $1
            and removed_at is null",
        provider.0,
        now,
    )
    .execute(db)
    .await?;
    Ok(outcome.rows_affected() == 1)
}

pub(super) async fn find_provider(db: &mut PgConnection, handle: &str) -> Result<Option<Provider>, Error> {
    let row = sqlx::query_as!(
        Row,
        r#"select provider_id as "provider_id: ProviderId", business_id as "business_id: BusinessId", handle, label,
            issuer, client_id, trusted_amr, trusted_acr, created_at
        from muneem.people_oidc_providers
        where handle = $1
            and removed_at is null"#,
        handle,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(Provider::from))
}

pub(super) async fn list_providers(db: &mut PgConnection) -> Result<Vec<Provider>, Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"select provider_id as "provider_id: ProviderId", business_id as "business_id: BusinessId", handle, label,
            issuer, client_id, trusted_amr, trusted_acr, created_at
        from muneem.people_oidc_providers
        where removed_at is null
        order by label, handle"#,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(Provider::from).collect())
}

pub(super) async fn find_secret(db: &mut PgConnection, provider: ProviderId) -> Result<Option<Vec<u8>>, Error> {
    Ok(sqlx::query_scalar!(
        "select client_secret_sealed from muneem.people_oidc_providers where provider_id = $1",
        provider.0,
    )
    .fetch_one(db)
    .await?)
}

/// A flow about to be written.
pub(super) struct NewFlow {
    pub(super) state: [u8; 32],
    pub(super) provider_id: ProviderId,
    pub(super) binding: [u8; 32],
    pub(super) purpose: Purpose,
    pub(super) now: DateTime<Utc>,
}

pub(super) async fn insert_flow(db: &mut PgConnection, flow: &NewFlow, expires_at: DateTime<Utc>) -> Result<(), Error> {
    let (staff_id, session_id) = match flow.purpose {
        Purpose::SignIn => (None, None),
        Purpose::Link { staff_id, session_id } => (Some(staff_id.0), Some(session_id)),
    };
    sqlx::query!(
        "insert into muneem.people_oidc_flows
            (state_sha256, provider_id, binding_sha256, staff_id, session_id, made_at, expires_at)
        values ($1, $2, $3, $4, $5, $6, $7)",
        &flow.state[..],
        flow.provider_id.0,
        &flow.binding[..],
        staff_id,
        session_id,
        flow.now,
        expires_at,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Deletes some of what ran out: as often as flows begin, more than begin.
pub(super) async fn forget_flows(db: &mut PgConnection, now: DateTime<Utc>) -> Result<(), Error> {
    sqlx::query!(
        "delete from muneem.people_oidc_flows
        where state_sha256 in (
            select f.state_sha256
            from muneem.people_oidc_flows f
            where f.expires_at < $1
            order by f.expires_at
            limit $2
            for update skip locked
        )",
        now,
        FORGET_MAX,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// A flow that was just used up.
pub(super) struct Flow {
    pub(super) provider_id: ProviderId,
    pub(super) binding: Vec<u8>,
    pub(super) purpose: Purpose,
}

/// Of many at once one gets it.
pub(super) async fn take_flow(
    db: &mut PgConnection,
    state: &[u8; 32],
    now: DateTime<Utc>,
) -> Result<Option<Flow>, Error> {
    let row = sqlx::query!(
        r#"update muneem.people_oidc_flows
        set used_at = $2
        where state_sha256 = $1
            and used_at is null
            and made_at <= $2
            and expires_at > $2
        returning provider_id as "provider_id: ProviderId", binding_sha256, staff_id as "staff_id: StaffId", session_id"#,
        &state[..],
        now,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| Flow {
        provider_id: row.provider_id,
        binding: row.binding_sha256,
        purpose: match (row.staff_id, row.session_id) {
            (Some(staff_id), Some(session_id)) => Purpose::Link { staff_id, session_id },
            _ => Purpose::SignIn,
        },
    }))
}

/// Whom the identity belongs to; notes that it was used.
pub(super) async fn use_link(
    db: &mut PgConnection,
    provider: ProviderId,
    index: &[u8],
    version: i32,
    now: DateTime<Utc>,
) -> Result<Option<StaffId>, Error> {
    Ok(sqlx::query_scalar!(
        r#"update muneem.people_oidc_links
        set last_used_at = $4
        where provider_id = $1
            and subject_index = $2
            and subject_index_version = $3
        returning staff_id as "staff_id: StaffId""#,
        provider.0,
        index,
        version,
        now,
    )
    .fetch_optional(db)
    .await?)
}

pub(super) async fn find_link(
    db: &mut PgConnection,
    provider: ProviderId,
    index: &[u8],
    version: i32,
) -> Result<Option<(LinkId, StaffId)>, Error> {
    let row = sqlx::query!(
        r#"select link_id as "link_id: LinkId", staff_id as "staff_id: StaffId"
        from muneem.people_oidc_links
        where provider_id = $1
            and subject_index = $2
            and subject_index_version = $3"#,
        provider.0,
        index,
        version,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| (row.link_id, row.staff_id)))
}

/// A link about to be written.
pub(super) struct NewLink<'a> {
    pub(super) link_id: LinkId,
    pub(super) provider_id: ProviderId,
    pub(super) staff_id: StaffId,
    pub(super) sealed: &'a [u8],
    pub(super) index: &'a [u8],
    pub(super) index_version: i32,
    pub(super) now: DateTime<Utc>,
}

pub(super) async fn insert_link(db: &mut PgConnection, link: &NewLink<'_>) -> Result<(), Error> {
    let outcome = sqlx::query!(
        "insert into muneem.people_oidc_links
            (link_id, provider_id, staff_id, subject_sealed, subject_index, subject_index_version, linked_at)
        values ($1, $2, $3, $4, $5, $6, $7)",
        link.link_id.0,
        link.provider_id.0,
        link.staff_id.0,
        link.sealed,
        link.index,
        link.index_version,
        link.now,
    )
    .execute(db)
    .await;
    match outcome {
        Ok(_) => Ok(()),
        Err(error) if constraint(&error).is_some_and(|name| name.starts_with("people_oidc_links_one_")) => {
            Err(Error::LinkTaken)
        }
        Err(error) => Err(error.into()),
    }
}

pub(super) async fn delete_link(db: &mut PgConnection, provider: ProviderId, staff: StaffId) -> Result<bool, Error> {
    let outcome = sqlx::query!(
        "delete from muneem.people_oidc_links where provider_id = $1 and staff_id = $2",
        provider.0,
        staff.0,
    )
    .execute(db)
    .await?;
    Ok(outcome.rows_affected() == 1)
}

pub(super) async fn delete_links(db: &mut PgConnection, staff: StaffId) -> Result<(), sqlx::Error> {
    sqlx::query!("delete from muneem.people_oidc_links where staff_id = $1", staff.0).execute(db).await?;
    Ok(())
}

pub(super) async fn list_linked(db: &mut PgConnection, staff: StaffId) -> Result<Vec<ProviderId>, Error> {
    Ok(sqlx::query_scalar!(
        r#"select provider_id as "provider_id: ProviderId" from muneem.people_oidc_links where staff_id = $1"#,
        staff.0,
    )
    .fetch_all(db)
    .await?)
}
