use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{Error, MailId, staff::NewMail};
use crate::people::{BusinessId, StaffId};

pub(super) async fn insert_mail(
    conn: &mut PgConnection,
    (id, mail): (MailId, &NewMail),
    params_sealed: &[u8],
    expires_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into muneem.messaging_mails
             (mail_id, business_id, staff_id, template, params_sealed, state, expires_at, created_at, updated_at)
         values ($1, $2, $3, $4, $5, 'queued', $6, $7, $7)",
        id.0,
        mail.business.0,
        mail.staff_id.0,
        mail.template,
        params_sealed,
        expires_at,
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Where a mail stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub(super) enum MailState {
    /// To be sent.
    Queued,
    /// Handed to the mail server; no answer is recorded.
    Sending,
    /// The mail server has it.
    Accepted,
    /// It will not take it.
    Refused,
    /// Nobody can tell.
    Unknown,
    /// Too late to be of use.
    Expired,
    /// Taken by the mail server, and then by nobody.
    Bounced,
}

/// A row of `muneem.messaging_mails`.
pub(super) struct MailRow {
    pub(super) staff_id: StaffId,
    pub(super) template: String,
    pub(super) params_sealed: Option<Vec<u8>>,
    pub(super) state: MailState,
    pub(super) expires_at: DateTime<Utc>,
}

/// The mail, held until the transaction ends.
pub(super) async fn lock_mail(conn: &mut PgConnection, business: BusinessId, id: MailId) -> Result<MailRow, Error> {
    sqlx::query_as!(
        MailRow,
        r#"select staff_id as "staff_id: StaffId", template, params_sealed, state as "state: MailState", expires_at
           from muneem.messaging_mails
           where mail_id = $1 and business_id = $2
           for update"#,
        id.0,
        business.0,
    )
    .fetch_optional(conn)
    .await?
    .ok_or(Error::NoMail(id))
}

/// Moves a mail on. What it was filled with goes with its end.
pub(super) async fn set_mail_state(
    conn: &mut PgConnection,
    id: MailId,
    state: MailState,
    failure: Option<&str>,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!(
        "update muneem.messaging_mails
         set state = $2, failure = $3, updated_at = $4,
             params_sealed = case when $2 in ('queued', 'sending') then params_sealed end
         where mail_id = $1",
        id.0,
        state as MailState,
        failure,
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// It was taken, and came back. One that ended otherwise stays as it is.
pub(super) async fn set_bounced(
    conn: &mut PgConnection,
    id: MailId,
    status: Option<&str>,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let failure = status.map_or_else(|| "came back".to_owned(), |status| format!("came back ({status})"));
    sqlx::query!(
        "update muneem.messaging_mails
         set state = 'bounced', failure = $2, updated_at = $3, params_sealed = null
         where mail_id = $1 and state in ('sending', 'accepted', 'unknown')",
        id.0,
        failure,
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// It lies in her mailbox, so it was taken: nobody could tell before.
pub(super) async fn set_arrived(conn: &mut PgConnection, id: MailId, now: DateTime<Utc>) -> Result<(), Error> {
    sqlx::query!(
        "update muneem.messaging_mails
         set state = 'accepted', failure = null, updated_at = $2
         where mail_id = $1 and state = 'unknown'",
        id.0,
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Deletes mails that were planned long ago.
pub(super) async fn forget_mails(conn: &mut PgConnection, before: DateTime<Utc>) -> Result<(), Error> {
    sqlx::query!(
        "delete from muneem.messaging_mails
         where mail_id in (
             select mail_id
             from muneem.messaging_mails
             where created_at < $1
             order by created_at
             limit 16
             for update skip locked
         )",
        before,
    )
    .execute(conn)
    .await?;
    Ok(())
}
