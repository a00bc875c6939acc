//! The clock's offset: a row that only sandbox mode ever moves.

use chrono::TimeDelta;
use sqlx::{PgConnection, PgPool, postgres::types::PgInterval};

/// How far `muneem.now()` is from the machine's time; zero outside sandbox mode.
///
/// # Errors
/// The database did not answer.
pub async fn clock_offset(db: &PgPool) -> sqlx::Result<TimeDelta> {
    let micros = sqlx::query_scalar!(
        r#"select (extract(epoch from moved_by) * 1000000)::bigint as "micros!" from muneem.law_clock"#
    )
    .fetch_one(db)
    .await?;
    Ok(TimeDelta::microseconds(micros))
}

/// Moves the clock of every process on this database. The caller makes sure that this is a sandbox.
///
/// # Errors
/// The database did not answer, or the login may not: it needs `muneem_app`.
pub async fn move_clock(conn: &mut PgConnection, moved_by: TimeDelta) -> sqlx::Result<()> {
    let offset = PgInterval { months: 0, days: 0, microseconds: moved_by.num_microseconds().unwrap_or(i64::MAX) };
    sqlx::query!("update muneem.law_clock set moved_by = $1", offset).execute(conn).await?;
    Ok(())
}

/// How far the clock is from the machine's time, nobody else moving it until the caller's transaction ends.
///
/// # Errors
/// The database did not answer, or the login may not: it needs `muneem_app`.
pub async fn hold_clock(tx: &mut PgConnection) -> sqlx::Result<TimeDelta> {
    let micros = sqlx::query_scalar!(
        r#"select (extract(epoch from moved_by) * 1000000)::bigint as "micros!" from muneem.law_clock for update"#
    )
    .fetch_one(tx)
    .await?;
    Ok(TimeDelta::microseconds(micros))
}
