//! Templates as the carrier has them.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use crate::{
    messaging::{Error, template::Known},
    people::BusinessId,
};

/// What is known of a business's templates, by account, name and language.
pub(in crate::messaging) async fn list_templates(
    conn: &mut PgConnection,
    business: BusinessId,
) -> Result<Vec<Known>, Error> {
    let known = sqlx::query_as!(
        Known,
        r#"
        select waba_id, name, language, status, category, correct_category, quality, rejected_reason, pulled_at
        from muneem.messaging_templates
        where business_id = $1
        order by waba_id, name, language
        "#,
        business.0,
    )
    .fetch_all(conn)
    .await?;
    Ok(known)
}

/// A template as it was listed; words that are none are left out.
pub(in crate::messaging) struct PulledTemplate<'a> {
    pub(in crate::messaging) name: &'a str,
    pub(in crate::messaging) language: String,
    pub(in crate::messaging) id: Option<String>,
    pub(in crate::messaging) status: Option<String>,
    pub(in crate::messaging) category: Option<String>,
    pub(in crate::messaging) correct_category: Option<String>,
    pub(in crate::messaging) quality: Option<String>,
    pub(in crate::messaging) rejected_reason: Option<String>,
}

/// Keeps what an account has.
pub(in crate::messaging) async fn upsert_templates(
    conn: &mut PgConnection,
    (business, waba_id): (BusinessId, &str),
    rows: &[PulledTemplate<'_>],
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let text = |pick: fn(&PulledTemplate<'_>) -> Option<String>| rows.iter().map(pick).collect::<Vec<_>>();
    let names: Vec<_> = rows.iter().map(|row| row.name.to_owned()).collect();
    let languages: Vec<_> = rows.iter().map(|row| row.language.clone()).collect();
    sqlx::query!(
        r#"
        insert into muneem.messaging_templates as known (
            business_id, waba_id, name, language, carrier_id, status, status_at, category, correct_category, category_at,
            quality, quality_at, rejected_reason, pulled_at)
        select $1, $2, t.name, t.language, t.id, t.status, $3, t.category, t.correct, $3, t.quality, $3, t.reason, $3
        from unnest($4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[], $11::text[])
            as t (name, language, id, status, category, correct, quality, reason)
        -- In one order for all, so that two who pull at once do not wait for each other.
        order by t.name, t.language
        on conflict (business_id, waba_id, name, language) do update
        set carrier_id = excluded.carrier_id, status = excluded.status, status_at = excluded.status_at,
            category = excluded.category, correct_category = excluded.correct_category,
            category_at = excluded.category_at, quality = excluded.quality, quality_at = excluded.quality_at,
            rejected_reason = excluded.rejected_reason, pulled_at = excluded.pulled_at
        "#,
        business.0,
        waba_id,
        now,
        &names,
        &languages,
        &text(|row| row.id.clone()) as &[Option<String>],
        &text(|row| row.status.clone()) as &[Option<String>],
        &text(|row| row.category.clone()) as &[Option<String>],
        &text(|row| row.correct_category.clone()) as &[Option<String>],
        &text(|row| row.quality.clone()) as &[Option<String>],
        &text(|row| row.rejected_reason.clone()) as &[Option<String>],
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Forgets what an account no longer has: what was not listed now, and was not told of since.
pub(in crate::messaging) async fn forget_templates(
    conn: &mut PgConnection,
    (business, waba_id): (BusinessId, &str),
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!(
        r#"
        delete from muneem.messaging_templates
        where business_id = $1 and waba_id = $2 and (pulled_at is null or pulled_at < $3)
            and status_at <= $3 and category_at <= $3 and quality_at <= $3
        "#,
        business.0,
        waba_id,
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The carrier has deleted one that is known here.
pub(in crate::messaging) async fn note_template_gone(
    conn: &mut PgConnection,
    (business, waba_id): (BusinessId, &str),
    (name, language): (&str, &str),
    at: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!(
        r#"
            update muneem.messaging_templates
            set status = 'DELETED', status_at = $5, carrier_id = null
            where business_id = $1 and waba_id = $2 and name = $3 and language = $4 and status_at <= $5
            "#,
        business.0,
        waba_id,
        name,
        language,
        at,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What was told of a template; parts that were not are absent.
pub(in crate::messaging) struct ToldTemplate {
    pub(in crate::messaging) status: Option<String>,
    pub(in crate::messaging) category: Option<String>,
    pub(in crate::messaging) correct_category: Option<String>,
    pub(in crate::messaging) quality: Option<String>,
}

/// Notes what was told at `at`, each part unless something newer is known of it. The carrier tells whole seconds: of two
/// words within one, the later told counts.
pub(in crate::messaging) async fn note_template(
    conn: &mut PgConnection,
    (business, waba_id): (BusinessId, &str),
    (name, language): (&str, &str),
    told: &ToldTemplate,
    at: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!(
        r#"
        insert into muneem.messaging_templates as known (
            business_id, waba_id, name, language, status, status_at, category, correct_category, category_at, quality,
            quality_at)
        values ($1, $2, $3, $4, $6, case when $6::text is null then '-infinity'::timestamptz else $5 end, $7, $8,
            case when $7::text is null and $8::text is null then '-infinity'::timestamptz else $5 end, $9,
            case when $9::text is null then '-infinity'::timestamptz else $5 end)
        on conflict (business_id, waba_id, name, language) do update
        set status = case when excluded.status_at >= known.status_at then excluded.status else known.status end,
            status_at = greatest(known.status_at, excluded.status_at),
            category = case when excluded.category_at >= known.category_at
                then coalesce(excluded.category, known.category) else known.category end,
            correct_category = case when excluded.category_at >= known.category_at
                then excluded.correct_category else known.correct_category end,
            category_at = greatest(known.category_at, excluded.category_at),
            quality = case when excluded.quality_at >= known.quality_at then excluded.quality else known.quality end,
            quality_at = greatest(known.quality_at, excluded.quality_at)
        "#,
        business.0,
        waba_id,
        name,
        language,
        at,
        told.status,
        told.category,
        told.correct_category,
        told.quality,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Status and category of one, where it is known.
pub(in crate::messaging) async fn find_template(
    conn: &mut PgConnection,
    (business, waba_id): (BusinessId, &str),
    (name, language): (&str, &str),
) -> Result<Option<(Option<String>, Option<String>)>, Error> {
    let row = sqlx::query!(
        r#"
        select status, category
        from muneem.messaging_templates
        where business_id = $1 and waba_id = $2 and name = $3 and language = $4
        "#,
        business.0,
        waba_id,
        name,
        language,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (row.status, row.category)))
}
