use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Error, KeyInfo};
use crate::people::BusinessId;

/// A key as it lies in the table.
pub(super) struct KeyRow {
    pub(super) key_id: i64,
    pub(super) class: String,
    pub(super) purpose: String,
    pub(super) version: i16,
    pub(super) state: String,
    pub(super) wrapped_by: Option<i64>,
    pub(super) wrapped: Vec<u8>,
    pub(super) created_at: DateTime<Utc>,
}

/// All keys of a business that may seal or open.
pub(super) async fn list_usable(db: &mut PgConnection, business: BusinessId) -> Result<Vec<KeyRow>, Error> {
    Ok(sqlx::query_as!(
        KeyRow,
        "select key_id, class, purpose, version, state, wrapped_by, wrapped, created_at
        from muneem.vault_keys
        where business_id = $1
            and state <> 'retired'",
        business.0,
    )
    .fetch_all(db)
    .await?)
}

/// Whether the business has a key of this number that may seal or open.
pub(super) async fn knows_key(db: &mut PgConnection, business: BusinessId, key_id: u32) -> Result<bool, Error> {
    Ok(sqlx::query_scalar!(
        r#"select exists (
            select
            from muneem.vault_keys
            where key_id = $1
                and business_id = $2
                and state <> 'retired'
        ) as "so!""#,
        i64::from(key_id),
        business.0,
    )
    .fetch_one(db)
    .await?)
}

/// A key about to be written.
pub(super) struct NewKey<'a> {
    pub(super) key_id: u32,
    pub(super) business: BusinessId,
    pub(super) class: &'a str,
    pub(super) purpose: &'a str,
    pub(super) version: i16,
    pub(super) state: &'a str,
    pub(super) wrapped_by: Option<u32>,
    pub(super) root: Option<&'a str>,
    pub(super) wrapped: &'a [u8],
    pub(super) now: DateTime<Utc>,
}

/// Writes the key unless there is one of its purpose already; false when there is, or when its number is taken.
pub(super) async fn insert_key(db: &mut PgConnection, key: &NewKey<'_>) -> Result<bool, Error> {
    let outcome = sqlx::query!(
        "insert into muneem.vault_keys
            (key_id, business_id, class, purpose, version, state, wrapped_by, root, wrapped, created_at, changed_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10)
        on conflict do nothing",
        i64::from(key.key_id),
        key.business.0,
        key.class,
        key.purpose,
        key.version,
        key.state,
        key.wrapped_by.map(i64::from),
        key.root,
        key.wrapped,
        key.now,
    )
    .execute(db)
    .await?;
    Ok(outcome.rows_affected() == 1)
}

/// Makes an active key open only; false when it was not active any more.
pub(super) async fn stop_sealing(db: &mut PgConnection, key_id: u32, now: DateTime<Utc>) -> Result<bool, Error> {
    let outcome = sqlx::query!(
        "update muneem.vault_keys
        set state = 'decrypt_only', changed_at = $2
        where key_id = $1
            and state = 'active'",
        i64::from(key_id),
        now,
    )
    .execute(db)
    .await?;
    Ok(outcome.rows_affected() == 1)
}

/// Takes `block` uses of an active key beforehand; false when it may seal no more.
pub(super) async fn take_uses(db: &mut PgConnection, key_id: u32, block: i64, limit: i64) -> Result<bool, Error> {
    let outcome = sqlx::query!(
        "update muneem.vault_keys
        set uses = uses + $2
        where key_id = $1
            and state = 'active'
            and uses + $2 <= $3",
        i64::from(key_id),
        block,
        limit,
    )
    .execute(db)
    .await?;
    Ok(outcome.rows_affected() == 1)
}

/// Whether the keys still live where they were last used. False too when they were never used.
pub(super) async fn stands_as_before(db: &mut PgConnection) -> Result<bool, Error> {
    Ok(sqlx::query_scalar!(
        r#"select exists (
            select
            from muneem.vault_standing s
            where s.system_identifier = (pg_control_system()).system_identifier
                and s.timeline = (pg_control_checkpoint()).timeline_id
                and s.database_oid = (select d.oid::bigint from pg_database d where d.datname = current_database())
        ) as "same!""#
    )
    .fetch_one(db)
    .await?)
}

/// Writes down where the keys live now; where they lived elsewhere before, every key that seals opens only from now on.
/// Answers how many did. One at a time: whoever comes second finds it done.
pub(super) async fn settle(db: &mut PgConnection, now: DateTime<Utc>) -> Result<u64, Error> {
    // The row lock of the upsert makes two that notice at once take turns; the second changes nothing.
    let moved = sqlx::query_scalar!(
        r#"insert into muneem.vault_standing as s (system_identifier, timeline, database_oid, noticed_at)
        select
            (pg_control_system()).system_identifier,
            (pg_control_checkpoint()).timeline_id,
            (select d.oid::bigint from pg_database d where d.datname = current_database()),
            $1
        on conflict (one) do update
        set system_identifier = excluded.system_identifier, timeline = excluded.timeline,
            database_oid = excluded.database_oid, noticed_at = excluded.noticed_at
        where (s.system_identifier, s.timeline, s.database_oid)
            is distinct from (excluded.system_identifier, excluded.timeline, excluded.database_oid)
        returning (xmax <> 0) as "moved!""#,
        now,
    )
    .fetch_optional(&mut *db)
    .await?;
    if moved != Some(true) {
        return Ok(0);
    }
    // Numbers of transactions begin anew in another cluster: what waits for old ones to end would wait for new ones.
    sqlx::query!("update muneem.vault_keys set fence = null where state = 'pending'").execute(&mut *db).await?;
    sqlx::query!(
        "update muneem.vault_reseals
        set fence = pg_snapshot_xmax(pg_current_snapshot())::text::bigint, conclusive = false
        where state in ('running', 'paused')"
    )
    .execute(&mut *db)
    .await?;
    let outcome = sqlx::query!(
        "update muneem.vault_keys
        set state = 'decrypt_only', changed_at = $1
        where state in ('active', 'pending')
            and class not in ('business', 'index')",
        now,
    )
    .execute(db)
    .await?;
    Ok(outcome.rows_affected())
}

/// The highest version of an index key.
pub(super) async fn last_index_version(
    db: &mut PgConnection,
    business: BusinessId,
    column: &str,
) -> Result<i16, Error> {
    Ok(sqlx::query_scalar!(
        r#"select coalesce(max(version), 0::smallint) as "version!"
        from muneem.vault_keys
        where business_id = $1
            and purpose = $2
            and class = 'index'"#,
        business.0,
        column,
    )
    .fetch_one(db)
    .await?)
}

/// All keys, without what they are.
pub(super) async fn list_keys(db: &mut PgConnection, business: Option<BusinessId>) -> Result<Vec<KeyInfo>, Error> {
    Ok(sqlx::query_as!(
        KeyInfo,
        r#"select k.key_id, b.handle as "business?", k.class, k.purpose, k.version, k.state, k.root, k.uses, k.created_at,
            k.changed_at, k.cleared_at
        from muneem.vault_keys k
        left join muneem.people_businesses b on b.business_id = k.business_id
        where $1::uuid is null or k.business_id = $1
        order by b.handle nulls first, k.class, k.purpose, k.created_at"#,
        business.map(|business| business.0),
    )
    .fetch_all(db)
    .await?)
}

/// Whether any key was ever made here.
pub(super) async fn holds_keys(db: &mut PgConnection) -> Result<bool, Error> {
    Ok(sqlx::query_scalar!(r#"select exists (select from muneem.vault_keys) as "any!""#).fetch_one(db).await?)
}

/// A business's own key as it lies in the table.
pub(super) struct RootRow {
    pub(super) key_id: i64,
    pub(super) business_id: Uuid,
    pub(super) root: String,
    pub(super) wrapped: Vec<u8>,
}

/// Keys that another root key than `root` wraps, by their number from after `after` on. Retired ones too: they may
/// come back.
pub(super) async fn list_under_other_root(
    db: &mut PgConnection,
    root: &str,
    after: i64,
    limit: i64,
) -> Result<Vec<RootRow>, Error> {
    Ok(sqlx::query_as!(
        RootRow,
        r#"select key_id, business_id, root as "root!", wrapped
        from muneem.vault_keys
        where class = 'business'
            and root <> $1
            and key_id > $2
        order by key_id
        limit $3"#,
        root,
        after,
        limit,
    )
    .fetch_all(db)
    .await?)
}

/// Puts another wrapping in the place of the one that was read; false when that one is gone.
pub(super) async fn replace_wrapping(
    db: &mut PgConnection,
    row: &RootRow,
    root: &str,
    wrapped: &[u8],
) -> Result<bool, Error> {
    let outcome = sqlx::query!(
        "update muneem.vault_keys
        set root = $3, wrapped = $4
        where key_id = $1
            and wrapped = $2",
        row.key_id,
        row.wrapped,
        root,
        wrapped,
    )
    .execute(db)
    .await?;
    Ok(outcome.rows_affected() == 1)
}

/// Takes a lock that ends with the transaction.
pub(super) async fn lock_until_end(db: &mut PgConnection, lock: i64) -> Result<(), Error> {
    sqlx::query!("select pg_advisory_xact_lock($1)", lock).execute(db).await?;
    Ok(())
}
