use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{
    Error,
    invitation::{Invitation, InvitationId, Invitee, invitee},
};
use crate::people::Role;

pub(super) async fn insert_invitation(
    db: &mut PgConnection,
    invitation: &Invitation,
    token_sha256: &[u8],
    by: &str,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let (business, staff) = match invitation.invitee {
        Invitee::Owner(business) => (business, None),
        Invitee::Operator => (None, None),
        Invitee::Staff(staff) => (None, Some(staff)),
    };
    sqlx::query!(
        "insert into muneem.people_invitations
             (invitation_id, token_sha256, business_id, staff_id, role, made_by, made_at, expires_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
        invitation.invitation_id.0,
        token_sha256,
        business.map(|business| business.0),
        staff.map(|staff| staff.0),
        invitation.invitee.role().map(Role::as_str),
        by,
        now,
        invitation.expires_at,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Waits for whoever else is about to invite the first person; held until the transaction ends.
pub(super) async fn lock_first(tx: &mut PgConnection) -> Result<(), Error> {
    sqlx::query!("select pg_advisory_xact_lock(hashtextextended('muneem.people_invitations', 8787))")
        .execute(tx)
        .await?;
    Ok(())
}

pub(super) async fn anybody_here(db: &mut PgConnection) -> Result<bool, Error> {
    Ok(sqlx::query_scalar!(r#"select exists (select from muneem.people_staff where removed_at is null) as "here!""#)
        .fetch_one(db)
        .await?)
}

/// Whether a link that `by` made still works.
pub(super) async fn is_open_of(db: &mut PgConnection, by: &str, now: DateTime<Utc>) -> Result<bool, Error> {
    Ok(sqlx::query_scalar!(
        r#"select exists (
               select from muneem.people_invitations
               where made_by = $1 and used_at is null and expires_at > $2
           ) as "open!""#,
        by,
        now,
    )
    .fetch_one(db)
    .await?)
}

pub(super) async fn find_invitation(
    db: &mut PgConnection,
    token_sha256: &[u8],
    now: DateTime<Utc>,
) -> Result<Option<Invitation>, Error> {
    let row = sqlx::query!(
        "select invitation_id, business_id, staff_id, role, expires_at
         from muneem.people_invitations
         where token_sha256 = $1 and used_at is null and expires_at > $2",
        token_sha256,
        now,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.and_then(|row| {
        let invitee = invitee(row.business_id, row.staff_id, row.role.as_deref())?;
        Some(Invitation { invitation_id: InvitationId(row.invitation_id), invitee, expires_at: row.expires_at })
    }))
}

pub(super) async fn use_invitation(tx: &mut PgConnection, id: InvitationId, now: DateTime<Utc>) -> Result<u64, Error> {
    let done = sqlx::query!(
        "update muneem.people_invitations
         set used_at = $2
         where invitation_id = $1 and used_at is null and expires_at > $2",
        id.0,
        now,
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected())
}
