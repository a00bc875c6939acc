use chrono::{DateTime, NaiveDate, Utc};
use sqlx::PgConnection;

use super::{Error, Stored};
use crate::people::BusinessId;

/// Inserts the row of a file, or lengthens the time it is kept.
pub(super) async fn upsert(
    conn: &mut PgConnection,
    stored: &Stored,
    keep_until: Option<NaiveDate>,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    // Equal bytes under equal names have equal keys: the key that is there stays.
    sqlx::query!(
        r#"
        insert into muneem.files_objects as kept
            (digest, business_id, size_bytes, media_type, key_sealed, keep_until, created_at)
        values ($1, $2, $3, $4, $5, $6, $7)
        on conflict (digest) do update
        set keep_until = greatest(kept.keep_until, excluded.keep_until)
        where excluded.keep_until > coalesce(kept.keep_until, '-infinity')
        "#,
        stored.digest,
        stored.business.0,
        stored.size_bytes,
        stored.media_type,
        stored.key_sealed,
        keep_until,
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What a row says of a file's key.
pub(super) struct Found {
    pub(super) business: Option<BusinessId>,
    pub(super) key_sealed: Option<Vec<u8>>,
}

/// Finds the row of a file.
pub(super) async fn find(conn: &mut PgConnection, digest: &str) -> Result<Option<Found>, Error> {
    Ok(sqlx::query_as!(
        Found,
        r#"
        select business_id as "business: BusinessId", key_sealed
        from muneem.files_objects
        where digest = $1
        "#,
        digest,
    )
    .fetch_optional(conn)
    .await?)
}
