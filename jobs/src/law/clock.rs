//! The clock's offset: a row that only a sandbox ever moves.

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

/// Whether the clock of this database may be moved, and how far it is.
///
/// # Errors
/// The database did not answer.
pub async fn load_clock(db: &PgPool) -> sqlx::Result<(bool, TimeDelta)> {
    let row = sqlx::query!(
        r#"select sandbox, (extract(epoch from moved_by) * 1000000)::bigint as "micros!" from muneem.law_clock"#
    )
    .fetch_one(db)
    .await?;
    Ok((row.sandbox, TimeDelta::microseconds(row.micros)))
}

/// Makes this database a sandbox's, whose clock may be moved, or a real one, whose clock is the machine's; whether it is
/// so now. A real one in which a business works stays real: its evidence would be backdated. Needs the owner of the
/// schema.
///
/// # Errors
/// The database did not answer, or the login may not.
pub async fn set_sandbox(conn: &mut PgConnection, sandbox: bool) -> sqlx::Result<bool> {
    sqlx::query!(
        "update muneem.law_clock c
        set sandbox = $1, moved_by = case when $1 then c.moved_by else interval '0' end
        where c.sandbox <> $1 and (not $1 or not exists (select from muneem.people_businesses))
            or not $1 and c.moved_by <> interval '0'",
        sandbox
    )
    .execute(&mut *conn)
    .await?;
    Ok(sqlx::query_scalar!("select sandbox from muneem.law_clock").fetch_one(conn).await? == sandbox)
}

/// Moves the clock of every process on this database.
///
/// # Errors
/// The database did not answer, or is no sandbox's (`MN040`).
pub async fn move_clock(conn: &mut PgConnection, moved_by: TimeDelta) -> sqlx::Result<()> {
    let offset = PgInterval { months: 0, days: 0, microseconds: moved_by.num_microseconds().unwrap_or(i64::MAX) };
    sqlx::query!(r#"select muneem.law_move_clock($1) as "moved!: ()""#, offset).execute(conn).await?;
    Ok(())
}

/// How far the clock is from the machine's time, nobody else moving it until the caller's transaction ends.
///
/// # Errors
/// The database did not answer, or is no sandbox's ([`sqlx::Error::RowNotFound`]).
pub async fn hold_clock(tx: &mut PgConnection) -> sqlx::Result<TimeDelta> {
    let micros = sqlx::query_scalar!(
        r#"select (extract(epoch from moved_by) * 1000000)::bigint as "micros!" from muneem.law_hold_clock() as moved_by"#
    )
    .fetch_one(tx)
    .await?;
    Ok(TimeDelta::microseconds(micros))
}
