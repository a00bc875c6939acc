use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    bounce::Kind,
    receive::{Format, Source},
    token::MailRef,
};
use crate::{
    messaging::Error,
    people::BusinessId,
    vault::{Cell, Class, Key, SealedColumn, Vault},
};

const REPORTS: &str = "muneem.messaging_mail_reports";
/// A raw report is of no use when what it says has long been folded.
const BODY_KEPT: TimeDelta = TimeDelta::days(30);

/// What reports hold sealed.
pub(in crate::messaging) const SEALED_REPORTS: SealedColumn =
    SealedColumn::of_row(REPORTS, "body_sealed", Key::uuid("report_id"));

fn cell(business_id: BusinessId, row: &str) -> Cell<'_> {
    Cell { business_id, table: REPORTS, column: "body_sealed", row }
}

pub(super) async fn seal_body(
    conn: &mut PgConnection,
    vault: &Vault,
    (business, id): (BusinessId, Uuid),
    raw: &[u8],
) -> Result<Vec<u8>, Error> {
    Ok(vault.seal(conn, Class::MessageBody, &cell(business, &id.to_string()), raw).await?)
}

pub(super) async fn open_body(
    conn: &mut PgConnection,
    vault: &Vault,
    (business, id): (BusinessId, Uuid),
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Error> {
    Ok(vault.open(conn, &cell(business, &id.to_string()), sealed).await?)
}

/// A report about to be kept.
pub(super) struct NewReport<'a> {
    pub(super) id: Uuid,
    pub(super) sha256: &'a [u8],
    pub(super) source: Source,
    pub(super) format: Format,
    pub(super) business: Option<BusinessId>,
    pub(super) body: Option<&'a [u8]>,
    pub(super) state: &'a str,
    pub(super) now: DateTime<Utc>,
}

/// Whether it was not here yet.
pub(super) async fn insert_report(conn: &mut PgConnection, new: &NewReport<'_>) -> Result<bool, Error> {
    let done = sqlx::query!(
        "insert into muneem.messaging_mail_reports
             (report_id, sha256, source, format, business_id, body_sealed, state, received_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8)
         on conflict (sha256) do nothing",
        new.id,
        new.sha256,
        new.source.as_str(),
        new.format.as_str(),
        new.business.map(|business| business.0),
        new.body,
        new.state,
        new.now,
    )
    .execute(&mut *conn)
    .await?;
    // In passing: what has long been looked at, and tokens' worth of what nobody needs.
    sqlx::query!(
        "delete from muneem.messaging_mail_reports
         where report_id in (
             select report_id
             from muneem.messaging_mail_reports
             where received_at < $1 and state <> 'received'
             order by received_at
             limit 4
             for update skip locked
         )",
        super::token::oldest(new.now),
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// A report as a job finds it.
pub(super) struct ReportRow {
    pub(super) format: Format,
    pub(super) body_sealed: Option<Vec<u8>>,
    pub(super) is_received: bool,
}

/// The report, held until the transaction ends; `None`: none of this business.
pub(super) async fn lock_report(
    conn: &mut PgConnection,
    business: BusinessId,
    id: Uuid,
) -> Result<Option<ReportRow>, Error> {
    Ok(sqlx::query_as!(
        ReportRow,
        r#"select format as "format: Format", body_sealed, state = 'received' as "is_received!"
           from muneem.messaging_mail_reports
           where report_id = $1 and business_id = $2
           for update"#,
        id,
        business.0,
    )
    .fetch_optional(conn)
    .await?)
}

/// What a report turned out to be.
pub(super) struct Settled<'a> {
    pub(super) state: &'a str,
    pub(super) kind: Option<Kind>,
    pub(super) status: Option<&'a str>,
    pub(super) permanent: Option<bool>,
    pub(super) of: Option<MailRef>,
}

pub(super) async fn settle_report(
    conn: &mut PgConnection,
    id: Uuid,
    settled: &Settled<'_>,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let (of_kind, of_id, attempt) = match settled.of {
        None => (None, None, None),
        Some(of) => {
            let (kind, id, attempt) = of.columns();
            (Some(kind), Some(id), attempt)
        }
    };
    sqlx::query!(
        "update muneem.messaging_mail_reports
         set state = $2, kind = $3, status = $4, permanent = $5, of_kind = $6, of_id = $7, attempt = $8, applied_at = $9
         where report_id = $1",
        id,
        settled.state,
        settled.kind.map(Kind::as_str),
        settled.status,
        settled.permanent,
        of_kind,
        of_id,
        attempt,
        now,
    )
    .execute(&mut *conn)
    .await?;
    // Words of reports that were settled long ago.
    sqlx::query!(
        "update muneem.messaging_mail_reports
         set body_sealed = null
         where report_id in (
             select report_id
             from muneem.messaging_mail_reports
             where received_at < $1 and state <> 'received' and body_sealed is not null
             order by received_at
             limit 16
             for update skip locked
         )",
        now - BODY_KEPT,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// How far a mailbox was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// While it stays the same, UIDs only grow (RFC 9051 section 2.3.1.1).
    pub uid_validity: u32,
    /// The last one that was kept.
    pub last_uid: u32,
}

/// How far the mailbox with this name (a digest in 64 hexadecimal digits) was read; `None`: never.
///
/// # Errors
/// The database fails.
pub async fn find_place(conn: &mut PgConnection, mailbox: &str) -> Result<Option<Place>, Error> {
    let row =
        sqlx::query!("select uid_validity, last_uid from muneem.messaging_mailboxes where mailbox = $1", mailbox,)
            .fetch_optional(conn)
            .await?;
    Ok(row.map(|row| Place {
        uid_validity: u32::try_from(row.uid_validity).unwrap_or_default(),
        last_uid: u32::try_from(row.last_uid).unwrap_or_default(),
    }))
}

/// Keeps how far a mailbox was read, in the transaction that kept what was read. Within one validity it never goes back.
///
/// # Errors
/// The database fails.
pub async fn keep_place(conn: &mut PgConnection, mailbox: &str, place: Place, now: DateTime<Utc>) -> Result<(), Error> {
    sqlx::query!(
        "insert into muneem.messaging_mailboxes as m (mailbox, uid_validity, last_uid, updated_at)
         values ($1, $2, $3, $4)
         on conflict (mailbox) do update
         set last_uid = case when m.uid_validity = excluded.uid_validity
                 then greatest(m.last_uid, excluded.last_uid) else excluded.last_uid end,
             uid_validity = excluded.uid_validity,
             updated_at = excluded.updated_at",
        mailbox,
        i64::from(place.uid_validity),
        i64::from(place.last_uid),
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}
