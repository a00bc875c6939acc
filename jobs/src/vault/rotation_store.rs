//! Statements on keys on their way in and out.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::Error;
use crate::people::BusinessId;

/// A key that is about to replace another.
pub(super) struct Pending {
    pub(super) key_id: i64,
    pub(super) business: BusinessId,
    pub(super) class: String,
    pub(super) purpose: String,
    pub(super) fenced: bool,
}

/// A key by what it is for.
pub(super) struct Use {
    pub(super) key_id: i64,
    pub(super) business: BusinessId,
    pub(super) class: String,
    pub(super) purpose: String,
    pub(super) version: i16,
}

/// Whether somebody is replacing the key of this purpose: another one is pending, or what the last one sealed is being
/// sealed anew.
pub(super) async fn is_rotating(
    db: &mut PgConnection,
    business: BusinessId,
    class: &str,
    purpose: &str,
) -> Result<bool, Error> {
    Ok(sqlx::query_scalar!(
        r#"select exists (
            select
            from muneem.vault_keys k
            where k.business_id = $1
                and k.class = $2
                and k.purpose = $3
                and (k.state = 'pending' or k.state = 'decrypt_only' and exists (
                    select
                    from muneem.vault_reseals r
                    where r.state in ('running', 'paused')
                        and k.key_id = any (r.keys)))
        ) as "so!""#,
        business.0,
        class,
        purpose,
    )
    .fetch_one(db)
    .await?)
}

/// The key that seals, wraps or indexes now.
pub(super) async fn find_active(
    db: &mut PgConnection,
    business: BusinessId,
    class: &str,
    purpose: &str,
) -> Result<Option<i64>, Error> {
    Ok(sqlx::query_scalar!(
        "select key_id
        from muneem.vault_keys
        where business_id = $1
            and class = $2
            and purpose = $3
            and state = 'active'",
        business.0,
        class,
        purpose,
    )
    .fetch_optional(db)
    .await?)
}

/// Keys that seal and have done so since before `since`, or for at least `uses`, and that nothing is to replace yet.
pub(super) async fn list_worn(
    db: &mut PgConnection,
    since: DateTime<Utc>,
    uses: i64,
) -> Result<Vec<(BusinessId, String)>, Error> {
    let rows = sqlx::query!(
        r#"select k.business_id as "business: BusinessId", k.class
        from muneem.vault_keys k
        where k.state = 'active'
            and k.class not in ('business', 'index')
            and (k.created_at <= $1 or k.uses >= $2)
            and not exists (
                select
                from muneem.vault_keys p
                where p.business_id = k.business_id
                    and p.class = k.class
                    and p.state = 'pending')
        order by k.created_at"#,
        since,
        uses,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.business, row.class)).collect())
}

/// Pending keys made before `before`, and whether all who may not have heard of them have ended.
pub(super) async fn list_pending(db: &mut PgConnection, before: DateTime<Utc>) -> Result<Vec<Pending>, Error> {
    Ok(sqlx::query_as!(
        Pending,
        r#"select key_id, business_id as "business: BusinessId", class, purpose,
            coalesce(muneem.vault_fence_passed(fence), false) as "fenced!"
        from muneem.vault_keys
        where state = 'pending'
            and created_at <= $1
        order by created_at, key_id"#,
        before,
    )
    .fetch_all(db)
    .await?)
}

/// Whether any key is pending.
pub(super) async fn has_pending(db: &mut PgConnection) -> Result<bool, Error> {
    Ok(sqlx::query_scalar!(r#"select exists (select from muneem.vault_keys where state = 'pending') as "any!""#)
        .fetch_one(db)
        .await?)
}

/// Notes for pending keys made before `before` which transactions may still be under way that do not know them.
pub(super) async fn fence_pending(db: &mut PgConnection, before: DateTime<Utc>) -> Result<(), Error> {
    sqlx::query!(
        "update muneem.vault_keys
        set fence = pg_snapshot_xmax(pg_current_snapshot())::text::bigint
        where state = 'pending'
            and fence is null
            and created_at <= $1",
        before,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Lets a pending key take the place of the active one; false when it is not pending any more.
pub(super) async fn activate(db: &mut PgConnection, key: &Pending, now: DateTime<Utc>) -> Result<bool, Error> {
    sqlx::query!(
        "update muneem.vault_keys
        set state = 'decrypt_only', changed_at = $4
        where business_id = $1
            and class = $2
            and purpose = $3
            and state = 'active'",
        key.business.0,
        key.class,
        key.purpose,
        now,
    )
    .execute(&mut *db)
    .await?;
    let outcome = sqlx::query!(
        "update muneem.vault_keys
        set state = 'active', changed_at = $2, fence = null
        where key_id = $1
            and state = 'pending'",
        key.key_id,
        now,
    )
    .execute(db)
    .await?;
    Ok(outcome.rows_affected() == 1)
}

/// Businesses some of whose keys are wrapped by a key that wraps no more.
pub(super) async fn list_to_rewrap(db: &mut PgConnection) -> Result<Vec<BusinessId>, Error> {
    Ok(sqlx::query_scalar!(
        r#"select distinct w.business_id as "business!: BusinessId"
        from muneem.vault_keys w
        where w.class = 'business'
            and w.state = 'decrypt_only'
            and w.cleared_at is null"#
    )
    .fetch_all(db)
    .await?)
}

/// A wrapped key, of a purpose or of a Data Principal.
pub(super) struct Wrapped {
    pub(super) key_id: i64,
    pub(super) class: String,
    pub(super) purpose: String,
    pub(super) subject: Option<Uuid>,
    pub(super) wrapped_by: i64,
    pub(super) wrapped: Vec<u8>,
}

/// Keys wrapped by one that wraps no more, at most `limit` above the number `after`.
pub(super) async fn list_wrapped_by_old(
    db: &mut PgConnection,
    business: BusinessId,
    after: i64,
    limit: i64,
) -> Result<Vec<Wrapped>, Error> {
    Ok(sqlx::query_as!(
        Wrapped,
        r#"select *
        from (
            select k.key_id as "key_id!", k.class as "class!", k.purpose as "purpose!", null::uuid as subject,
                k.wrapped_by as "wrapped_by!", k.wrapped as "wrapped!"
            from muneem.vault_keys k
            join muneem.vault_keys w on w.key_id = k.wrapped_by and w.state = 'decrypt_only'
            where k.business_id = $1
            union all
            select s.key_id, 'subject', '', s.subject_id, s.wrapped_by, s.wrapped
            from muneem.vault_subject_keys s
            join muneem.vault_keys w on w.key_id = s.wrapped_by and w.state = 'decrypt_only'
            where s.business_id = $1
        ) wrapped
        where "key_id!" > $2
        order by "key_id!"
        limit $3"#,
        business.0,
        after,
        limit,
    )
    .fetch_all(db)
    .await?)
}

/// Wraps a key anew; false when it is not any more what was read.
pub(super) async fn rewrap(
    db: &mut PgConnection,
    old: &Wrapped,
    wrapped_by: u32,
    wrapped: &[u8],
) -> Result<bool, Error> {
    let by = i64::from(wrapped_by);
    let outcome = if old.subject.is_some() {
        sqlx::query!(
            "update muneem.vault_subject_keys
            set wrapped_by = $2, wrapped = $3
            where key_id = $1
                and wrapped = $4",
            old.key_id,
            by,
            wrapped,
            old.wrapped,
        )
        .execute(db)
        .await?
    } else {
        sqlx::query!(
            "update muneem.vault_keys
            set wrapped_by = $2, wrapped = $3
            where key_id = $1
                and wrapped = $4",
            old.key_id,
            by,
            wrapped,
            old.wrapped,
        )
        .execute(db)
        .await?
    };
    Ok(outcome.rows_affected() == 1)
}

/// Notes that nothing is wrapped any more by keys of the business that wrap no more, where that is so.
pub(super) async fn clear_business_keys(
    db: &mut PgConnection,
    business: BusinessId,
    now: DateTime<Utc>,
) -> Result<u64, Error> {
    let outcome = sqlx::query!(
        "update muneem.vault_keys w
        set cleared_at = $2
        where w.business_id = $1
            and w.class = 'business'
            and w.state = 'decrypt_only'
            and w.cleared_at is null
            and not exists (select from muneem.vault_keys k where k.wrapped_by = w.key_id)
            and not exists (select from muneem.vault_subject_keys s where s.wrapped_by = w.key_id)",
        business.0,
        now,
    )
    .execute(db)
    .await?;
    Ok(outcome.rows_affected())
}

/// Keys that open only since before `before`, or since they were retired wrongly, and that something may refer to.
pub(super) async fn list_opening(db: &mut PgConnection, before: DateTime<Utc>) -> Result<Vec<i64>, Error> {
    Ok(sqlx::query_scalar!(
        "select key_id
        from muneem.vault_keys
        where state = 'decrypt_only'
            and class <> 'business'
            and cleared_at is null
            and changed_at <= $1
        order by key_id",
        before,
    )
    .fetch_all(db)
    .await?)
}

/// What these keys are for.
pub(super) async fn list_uses(db: &mut PgConnection, keys: &[i64]) -> Result<Vec<Use>, Error> {
    Ok(sqlx::query_as!(
        Use,
        r#"select key_id, business_id as "business: BusinessId", class, purpose, version
        from muneem.vault_keys
        where key_id = any ($1)
        order by key_id"#,
        keys,
    )
    .fetch_all(db)
    .await?)
}

/// Keys whose last reference was gone before `before`.
pub(super) async fn list_retirable(db: &mut PgConnection, before: DateTime<Utc>) -> Result<Vec<Use>, Error> {
    Ok(sqlx::query_as!(
        Use,
        r#"select key_id, business_id as "business: BusinessId", class, purpose, version
        from muneem.vault_keys
        where state = 'decrypt_only'
            and cleared_at <= $1
        order by key_id"#,
        before,
    )
    .fetch_all(db)
    .await?)
}

/// Notes since when nothing refers to a key; false when values may stand under it where nobody looks.
pub(super) async fn clear(db: &mut PgConnection, key: i64, now: DateTime<Utc>) -> Result<bool, Error> {
    let outcome = sqlx::query!(
        "update muneem.vault_keys k
        set cleared_at = coalesce(k.cleared_at, $2)
        where k.key_id = $1
            and k.state = 'decrypt_only'
            and not muneem.vault_key_strays(k.business_id, k.class, k.purpose)",
        key,
        now,
    )
    .execute(db)
    .await?;
    Ok(outcome.rows_affected() == 1)
}

/// Something does refer to the key.
pub(super) async fn unclear(db: &mut PgConnection, key: i64) -> Result<(), Error> {
    sqlx::query!("update muneem.vault_keys set cleared_at = null where key_id = $1 and state = 'decrypt_only'", key)
        .execute(db)
        .await?;
    Ok(())
}

/// Retires a key; false when it opens no more already, or may be needed again.
pub(super) async fn retire(db: &mut PgConnection, key: i64, now: DateTime<Utc>) -> Result<bool, Error> {
    let outcome = sqlx::query!(
        "update muneem.vault_keys k
        set state = 'retired', changed_at = $2
        where k.key_id = $1
            and k.state = 'decrypt_only'
            and k.cleared_at is not null
            and not muneem.vault_key_strays(k.business_id, k.class, k.purpose)
            and not exists (
                select
                from muneem.vault_quarantine q
                where q.key_id = k.key_id
                    and q.business_id = k.business_id)
            and not exists (select from muneem.vault_keys w where w.wrapped_by = k.key_id)
            and not exists (select from muneem.vault_subject_keys s where s.wrapped_by = k.key_id)",
        key,
        now,
    )
    .execute(db)
    .await?;
    Ok(outcome.rows_affected() == 1)
}
