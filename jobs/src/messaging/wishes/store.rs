mod import;
mod standing;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    Channel, Consent, ConsentId, ConsentState, ContactId, Error, NewSuppression, Scope, Suppression, contact::Known,
    model::Cause,
};
use crate::people::BusinessId;

pub(super) use import::{ImportedRow, find_many, insert_many, list_refusals};
pub(super) use standing::{Asked, Found, What, list_standing};

pub(super) async fn find_contact(
    conn: &mut PgConnection,
    business: BusinessId,
    marks: &[Vec<u8>],
) -> Result<Option<Known>, Error> {
    Ok(sqlx::query_as!(
        Known,
        r#"select contact_id as "contact_id: ContactId", group_id as "group_id: ContactId"
           from muneem.messaging_contacts
           where business_id = $1 and mark = any($2)
           order by created_at
           limit 1"#,
        business.0,
        marks,
    )
    .fetch_optional(conn)
    .await?)
}

/// A contact about to be written.
pub(super) struct NewContact<'a> {
    pub(super) contact_id: ContactId,
    pub(super) kind: &'static str,
    pub(super) mark: &'a [u8],
    pub(super) sealed: &'a [u8],
}

pub(super) async fn insert_contact(
    conn: &mut PgConnection,
    business: BusinessId,
    new: &NewContact<'_>,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into muneem.messaging_contacts
             (contact_id, business_id, kind, mark, address_sealed, group_id, created_at)
         values ($1, $2, $3, $4, $5, $1, $6)
         on conflict on constraint messaging_contacts_once do nothing",
        new.contact_id.0,
        business.0,
        new.kind,
        new.mark,
        new.sealed,
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Until the transaction ends nobody else writes down what this contact wants.
pub(super) async fn lock_contact(conn: &mut PgConnection, contact: ContactId) -> Result<(), Error> {
    sqlx::query!("select contact_id from muneem.messaging_contacts where contact_id = $1 for update", contact.0)
        .fetch_optional(conn)
        .await?;
    Ok(())
}

/// Makes one person of two groups.
pub(super) async fn join_groups(
    conn: &mut PgConnection,
    business: BusinessId,
    into: ContactId,
    from: ContactId,
) -> Result<(), Error> {
    sqlx::query!(
        "update muneem.messaging_contacts set group_id = $2 where business_id = $1 and group_id = $3",
        business.0,
        into.0,
        from.0,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Takes a contact out of its group: it is nobody's known address any more.
pub(super) async fn leave_group(
    conn: &mut PgConnection,
    business: BusinessId,
    contact: ContactId,
) -> Result<(), Error> {
    // Whoever stays behind stays together, under the id of the oldest.
    sqlx::query!(
        "with rest as (
             select c.contact_id, min(c.contact_id::text) over ()::uuid as heir
             from muneem.messaging_contacts c
             join muneem.messaging_contacts own on own.group_id = c.group_id and own.business_id = c.business_id
             where own.contact_id = $2 and own.business_id = $1 and c.contact_id <> $2
         ), moved as (
             update muneem.messaging_contacts c
             set group_id = rest.heir
             from rest
             where c.contact_id = rest.contact_id
             returning c.contact_id
         )
         update muneem.messaging_contacts set group_id = contact_id where business_id = $1 and contact_id = $2",
        business.0,
        contact.0,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes a sign of life; what the carrier could not deliver before it counts no more.
pub(super) async fn note_heard(conn: &mut PgConnection, contact: ContactId, at: DateTime<Utc>) -> Result<(), Error> {
    sqlx::query!(
        "update muneem.messaging_contacts
         set heard_at = greatest(heard_at, $2),
             undeliverable_at = case when undeliverable_at > $2 then undeliverable_at end
         where contact_id = $1 and (heard_at is null or heard_at < $2 or undeliverable_at <= $2)",
        contact.0,
        at,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Keeps in which language somebody is written to: its first part, `hi` of `hi-IN`.
pub(super) async fn set_language(conn: &mut PgConnection, contact: ContactId, language: &str) -> Result<(), Error> {
    let language = language.split('-').next().filter(|part| (2..=3).contains(&part.len()));
    sqlx::query!(
        "update muneem.messaging_contacts
         set language = $2
         where contact_id = $1 and language is distinct from $2",
        contact.0,
        language,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// In which language a contact is written to.
pub(super) async fn find_language(
    conn: &mut PgConnection,
    business: BusinessId,
    marks: &[Vec<u8>],
) -> Result<Option<String>, Error> {
    let found = sqlx::query_scalar!(
        r#"
        select language as "language!"
        from muneem.messaging_contacts
        where business_id = $1 and mark = any ($2) and language is not null
        limit 1
        "#,
        business.0,
        marks,
    )
    .fetch_optional(conn)
    .await?;
    Ok(found)
}

/// When a contact last gave a sign of life, and since when it cannot be reached.
pub(super) async fn load_reach(
    conn: &mut PgConnection,
    contact: ContactId,
) -> Result<(Option<DateTime<Utc>>, Option<DateTime<Utc>>), Error> {
    let row = sqlx::query!(
        "select heard_at, undeliverable_at from muneem.messaging_contacts where contact_id = $1",
        contact.0,
    )
    .fetch_one(conn)
    .await?;
    Ok((row.heard_at, row.undeliverable_at))
}

pub(super) async fn set_undeliverable(
    conn: &mut PgConnection,
    contact: ContactId,
    at: Option<DateTime<Utc>>,
) -> Result<(), Error> {
    sqlx::query!("update muneem.messaging_contacts set undeliverable_at = $2 where contact_id = $1", contact.0, at)
        .execute(conn)
        .await?;
    Ok(())
}

/// A row about to be written, beside what it says.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) id: Uuid,
    pub(super) business: BusinessId,
    pub(super) contact: ContactId,
    pub(super) now: DateTime<Utc>,
    pub(super) recorder: &'a str,
}

/// Writes down that a reason begins or ends; the same event again is no event. Says whether it is new.
pub(super) async fn insert_suppression(
    conn: &mut PgConnection,
    row: &Row<'_>,
    new: &NewSuppression<'_>,
    set: bool,
) -> Result<bool, Error> {
    let inserted = sqlx::query!(
        "insert into muneem.messaging_suppressions
             (suppression_id, business_id, contact_id, scope, channel, cause, state, reason, at, until, recorded_at,
              recorded_by)
         select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12
         where not exists (
             select from muneem.messaging_suppressions s
             where s.contact_id = $3 and s.scope = $4 and s.channel is not distinct from $5 and s.cause = $6
                 and s.state = $7 and s.at = $9 and s.until is not distinct from $10)",
        row.id,
        row.business.0,
        row.contact.0,
        new.scope as Scope,
        new.channel as Option<Channel>,
        new.cause as Cause,
        if set { "set" } else { "lifted" },
        new.reason,
        new.at,
        new.until,
        row.now,
        row.recorder,
    )
    .execute(conn)
    .await?
    .rows_affected();
    Ok(inserted == 1)
}

/// The reasons that are in force for one contact at `now`.
pub(super) async fn list_in_force(
    conn: &mut PgConnection,
    contact: ContactId,
    now: DateTime<Utc>,
) -> Result<Vec<Suppression>, Error> {
    Ok(sqlx::query_as!(
        Suppression,
        r#"select s.scope as "scope!: Scope", s.channel as "channel: Channel", s.cause as "cause!: Cause",
               true as "set!", s.reason as "reason!", s.at as "at!", s.until, s.recorded_at as "recorded_at!",
               s.recorded_by as "recorded_by!"
           from (
               select distinct on (scope, channel, cause) *
               from muneem.messaging_suppressions
               where contact_id = $1
               order by scope, channel, cause, at desc, state desc, recorded_at desc
           ) s
           where s.state = 'set' and (s.until is null or s.until > $2)
           order by s.at"#,
        contact.0,
        now,
    )
    .fetch_all(conn)
    .await?)
}

/// Whether she ended what she had said after this instant: a no that arrives late is over already.
pub(super) async fn is_lifted_since(
    conn: &mut PgConnection,
    contact: ContactId,
    (scope, channel): (Scope, Option<Channel>),
    at: DateTime<Utc>,
) -> Result<bool, Error> {
    Ok(sqlx::query_scalar!(
        r#"select exists (
               select from muneem.messaging_suppressions
               where contact_id = $1 and scope = $2 and channel is not distinct from $3 and cause = 'person'
                   and state = 'lifted' and at > $4) as "so!""#,
        contact.0,
        scope as Scope,
        channel as Option<Channel>,
        at,
    )
    .fetch_one(conn)
    .await?)
}

/// A consent about to be written.
pub(super) struct NewRow<'a> {
    pub(super) purpose: &'a str,
    pub(super) state: ConsentState,
    pub(super) source: &'a str,
    pub(super) wording_version: Option<&'a str>,
    pub(super) language: Option<&'a str>,
    pub(super) proof_sealed: Option<&'a [u8]>,
    pub(super) proof_sha256: Option<&'a [u8]>,
    pub(super) at: DateTime<Utc>,
}

/// Writes down what was said of one purpose; the same event again is no event. Says whether it is new.
pub(super) async fn insert_consent(conn: &mut PgConnection, row: &Row<'_>, new: &NewRow<'_>) -> Result<bool, Error> {
    let inserted = sqlx::query!(
        "insert into muneem.messaging_consents
             (consent_id, business_id, contact_id, purpose, state, source, wording_version, language, proof_sealed,
              proof_sha256, at, recorded_at, recorded_by)
         select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13
         where not exists (
             select from muneem.messaging_consents c
             where c.contact_id = $3 and c.purpose = $4 and c.state = $5 and c.source = $6 and c.at = $11)",
        row.id,
        row.business.0,
        row.contact.0,
        new.purpose,
        new.state as ConsentState,
        new.source,
        new.wording_version,
        new.language,
        new.proof_sealed,
        new.proof_sha256,
        new.at,
        row.now,
        row.recorder,
    )
    .execute(conn)
    .await?
    .rows_affected();
    Ok(inserted == 1)
}

/// Where one purpose stands.
pub(super) struct Current {
    pub(super) purpose: String,
    pub(super) state: ConsentState,
    pub(super) source: String,
    pub(super) wording_version: Option<String>,
    pub(super) language: Option<String>,
}

/// Where each purpose of a contact stood at `at`, by what was said until then.
pub(super) async fn list_current(
    conn: &mut PgConnection,
    contact: ContactId,
    at: DateTime<Utc>,
) -> Result<Vec<Current>, Error> {
    Ok(sqlx::query_as!(
        Current,
        r#"select distinct on (purpose) purpose, state as "state: ConsentState", source, wording_version, language
           from muneem.messaging_consents
           where contact_id = $1 and at <= $2
           order by purpose, at desc, (state = 'given'), recorded_at desc"#,
        contact.0,
        at,
    )
    .fetch_all(conn)
    .await?)
}

/// The words under which a purpose was last agreed to before `at`.
pub(super) async fn find_wording(
    conn: &mut PgConnection,
    contact: ContactId,
    purpose: &str,
    at: DateTime<Utc>,
) -> Result<Option<(String, String)>, Error> {
    let row = sqlx::query!(
        r#"select wording_version as "wording_version!", language as "language!"
           from muneem.messaging_consents
           where contact_id = $1 and purpose = $2 and state = 'given' and at <= $3
           order by at desc
           limit 1"#,
        contact.0,
        purpose,
        at,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (row.wording_version, row.language)))
}

pub(super) async fn list_consents(
    conn: &mut PgConnection,
    contact: ContactId,
    limit: i64,
) -> Result<Vec<Consent>, Error> {
    Ok(sqlx::query_as!(
        Consent,
        r#"select consent_id as "consent_id: ConsentId", purpose, state as "state: ConsentState", source,
               wording_version, language, proof_sealed is not null as "proved!", at, recorded_at, recorded_by
           from muneem.messaging_consents
           where contact_id = $1
           order by at desc, recorded_at desc
           limit $2"#,
        contact.0,
        limit,
    )
    .fetch_all(conn)
    .await?)
}

pub(super) async fn list_suppressions(
    conn: &mut PgConnection,
    contact: ContactId,
    limit: i64,
) -> Result<Vec<Suppression>, Error> {
    Ok(sqlx::query_as!(
        Suppression,
        r#"select scope as "scope: Scope", channel as "channel: Channel", cause as "cause: Cause",
               state = 'set' as "set!", reason, at, until, recorded_at, recorded_by
           from muneem.messaging_suppressions
           where contact_id = $1
           order by at desc, recorded_at desc
           limit $2"#,
        contact.0,
        limit,
    )
    .fetch_all(conn)
    .await?)
}

/// When somebody with one of these marks was last erased and has not come back.
pub(super) async fn find_erasure(
    conn: &mut PgConnection,
    business: BusinessId,
    marks: &[Vec<u8>],
) -> Result<Option<DateTime<Utc>>, Error> {
    Ok(sqlx::query_scalar!(
        "select max(erased_at)
         from muneem.messaging_erasures
         where business_id = $1 and mark = any($2) and lifted_at is null",
        business.0,
        marks,
    )
    .fetch_one(conn)
    .await?)
}

pub(super) async fn insert_erasure(
    conn: &mut PgConnection,
    (id, business): (Uuid, BusinessId),
    mark: &[u8],
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into muneem.messaging_erasures (erasure_id, business_id, mark, erased_at) values ($1, $2, $3, $4)",
        id,
        business.0,
        mark,
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn lift_erasures(
    conn: &mut PgConnection,
    business: BusinessId,
    marks: &[Vec<u8>],
    (consent, now): (ConsentId, DateTime<Utc>),
) -> Result<u64, Error> {
    Ok(sqlx::query!(
        "update muneem.messaging_erasures
         set lifted_at = $4, lifted_by = $3
         where business_id = $1 and mark = any($2) and lifted_at is null",
        business.0,
        marks,
        consent.0,
        now,
    )
    .execute(conn)
    .await?
    .rows_affected())
}

/// Deletes a contact with everything that was said of it.
pub(super) async fn delete_contact(
    conn: &mut PgConnection,
    business: BusinessId,
    contact: ContactId,
) -> Result<(), Error> {
    sqlx::query!(
        "delete from muneem.messaging_heard where business_id = $1 and contact_id = $2",
        business.0,
        contact.0
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "delete from muneem.messaging_contacts where business_id = $1 and contact_id = $2",
        business.0,
        contact.0
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// One thing that was heard.
pub(super) struct NewHeard<'a> {
    pub(super) id: Uuid,
    pub(super) mark: &'a [u8],
    pub(super) marks: &'a [Vec<u8>],
    pub(super) contact: ContactId,
    pub(super) route: &'a str,
    pub(super) answer: Option<&'a str>,
    pub(super) at: DateTime<Utc>,
    pub(super) now: DateTime<Utc>,
}

/// Whether this was heard before.
pub(super) async fn is_heard(conn: &mut PgConnection, business: BusinessId, marks: &[Vec<u8>]) -> Result<bool, Error> {
    Ok(sqlx::query_scalar!(
        r#"select exists (
               select from muneem.messaging_heard where business_id = $1 and mark = any($2)) as "so!""#,
        business.0,
        marks,
    )
    .fetch_one(conn)
    .await?)
}

/// Keeps what was heard; says whether it is new. Somebody who writes the same in parallel is waited for.
pub(super) async fn insert_heard(
    conn: &mut PgConnection,
    business: BusinessId,
    new: &NewHeard<'_>,
) -> Result<bool, Error> {
    let inserted = sqlx::query!(
        "insert into muneem.messaging_heard
             (heard_id, business_id, mark, contact_id, route, answer, at, recorded_at)
         select $1, $2, $3, $5, $6, $7, $8, $9
         where not exists (
             select from muneem.messaging_heard h where h.business_id = $2 and h.mark = any($4))
         on conflict on constraint messaging_heard_once do nothing",
        new.id,
        business.0,
        new.mark,
        new.marks,
        new.contact.0,
        new.route,
        new.answer,
        new.at,
        new.now,
    )
    .execute(conn)
    .await?
    .rows_affected();
    Ok(inserted == 1)
}

/// Whether this contact was given this answer since then.
pub(super) async fn is_answered(
    conn: &mut PgConnection,
    contact: ContactId,
    answer: &str,
    since: DateTime<Utc>,
) -> Result<bool, Error> {
    Ok(sqlx::query_scalar!(
        r#"select exists (
               select from muneem.messaging_heard
               where contact_id = $1 and answer = $2 and recorded_at > $3) as "so!""#,
        contact.0,
        answer,
        since,
    )
    .fetch_one(conn)
    .await?)
}

/// Deletes what was heard so long ago that no carrier repeats it.
pub(super) async fn forget_heard(conn: &mut PgConnection, before: DateTime<Utc>) -> Result<(), Error> {
    sqlx::query!(
        "delete from muneem.messaging_heard
         where heard_id in (
             select heard_id from muneem.messaging_heard
             where recorded_at < $1
             order by recorded_at
             limit 16
             for update skip locked)",
        before,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The lists that a business takes at their word though nobody has read them.
pub(super) async fn list_words_on(conn: &mut PgConnection, business: BusinessId) -> Result<Vec<String>, Error> {
    Ok(sqlx::query_scalar!(
        "select language from muneem.messaging_opt_words where business_id = $1 and turned_on order by language",
        business.0,
    )
    .fetch_all(conn)
    .await?)
}

pub(super) async fn upsert_words(
    conn: &mut PgConnection,
    business: BusinessId,
    (language, on): (&str, bool),
    (now, recorder): (DateTime<Utc>, &str),
) -> Result<(), Error> {
    sqlx::query!(
        "insert into muneem.messaging_opt_words (business_id, language, turned_on, set_at, set_by)
         values ($1, $2, $3, $4, $5)
         on conflict (business_id, language) do update
         set turned_on = excluded.turned_on, set_at = excluded.set_at, set_by = excluded.set_by",
        business.0,
        language,
        on,
        now,
        recorder,
    )
    .execute(conn)
    .await?;
    Ok(())
}
