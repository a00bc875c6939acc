use chrono::{DateTime, NaiveDate, Utc};
use sqlx::PgConnection;

use super::{Error, Stored};

/// Inserts the row of a file, or lengthens the time it is kept.
pub(super) async fn upsert(
    conn: &mut PgConnection,
    stored: &Stored,
    keep_until: Option<NaiveDate>,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!(
        r#"
        insert into muneem.files_objects as kept (digest, size_bytes, media_type, keep_until, created_at)
        values ($1, $2, $3, $4, $5)
        on conflict (digest) do update
        set keep_until = greatest(kept.keep_until, excluded.keep_until)
        where excluded.keep_until > coalesce(kept.keep_until, '-infinity')
        "#,
        stored.digest,
        stored.size_bytes,
        stored.media_type,
        keep_until,
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}
