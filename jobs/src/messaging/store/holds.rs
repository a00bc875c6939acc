//! Where nothing is to be sent, and until when.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{messaging::Error, people::BusinessId};

/// One hold in force.
#[derive(Clone, Debug, serde::Serialize)]
pub(in crate::messaging) struct HoldRow {
    pub(in crate::messaging) hold_id: Uuid,
    pub(in crate::messaging) scope: String,
    pub(in crate::messaging) key: String,
    pub(in crate::messaging) covers: String,
    pub(in crate::messaging) code: Option<i64>,
    pub(in crate::messaging) told: Option<String>,
    pub(in crate::messaging) strikes: i32,
    pub(in crate::messaging) since: DateTime<Utc>,
    pub(in crate::messaging) struck_at: DateTime<Utc>,
    pub(in crate::messaging) until: DateTime<Utc>,
    pub(in crate::messaging) probed_at: Option<DateTime<Utc>>,
}

/// The holds of a business, or of all, that nothing has released yet.
pub(in crate::messaging) async fn list_holds(
    conn: &mut PgConnection,
    business: Option<BusinessId>,
) -> Result<Vec<(BusinessId, HoldRow)>, Error> {
    let rows = sqlx::query!(
        r#"
        select business_id as "business: BusinessId", hold_id, scope, key, covers, code, told, strikes, since, struck_at,
            until, probed_at
        from muneem.messaging_holds
        where released_at is null and ($1::uuid is null or business_id = $1)
        order by business_id, since, hold_id
        "#,
        business.map(|business| business.0),
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let hold = HoldRow {
                hold_id: row.hold_id,
                scope: row.scope,
                key: row.key,
                covers: row.covers,
                code: row.code,
                told: row.told,
                strikes: row.strikes,
                since: row.since,
                struck_at: row.struck_at,
                until: row.until,
                probed_at: row.probed_at,
            };
            (row.business, hold)
        })
        .collect())
}

/// The unreleased holds on any of these things.
pub(in crate::messaging) async fn find_holds(
    conn: &mut PgConnection,
    business: BusinessId,
    (scopes, keys): (&[String], &[String]),
) -> Result<Vec<HoldRow>, Error> {
    let holds = sqlx::query_as!(
        HoldRow,
        r#"
        select h.hold_id, h.scope, h.key, h.covers, h.code, h.told, h.strikes, h.since, h.struck_at, h.until, h.probed_at
        from muneem.messaging_holds h
        join unnest($2::text[], $3::text[]) as asked (scope, key) on asked.scope = h.scope and asked.key = h.key
        where h.business_id = $1 and h.released_at is null
        "#,
        business.0,
        scopes,
        keys,
    )
    .fetch_all(conn)
    .await?;
    Ok(holds)
}

/// Lets one message through a hold that is over; until `again_at` nobody else. False: somebody else was faster.
pub(in crate::messaging) async fn probe_hold(
    conn: &mut PgConnection,
    hold: Uuid,
    now: DateTime<Utc>,
    again_at: DateTime<Utc>,
) -> Result<bool, Error> {
    let probing = sqlx::query!(
        r#"
        update muneem.messaging_holds
        set probed_at = $2, until = $3
        where hold_id = $1 and released_at is null and until <= $2
        "#,
        hold,
        now,
        again_at,
    )
    .execute(conn)
    .await?
    .rows_affected();
    Ok(probing == 1)
}

/// The unreleased hold on one thing, locked.
pub(in crate::messaging) async fn lock_hold(
    conn: &mut PgConnection,
    business: BusinessId,
    (scope, key, covers): (&str, &str, &str),
) -> Result<Option<HoldRow>, Error> {
    let hold = sqlx::query_as!(
        HoldRow,
        r#"
        select hold_id, scope, key, covers, code, told, strikes, since, struck_at, until, probed_at
        from muneem.messaging_holds
        where business_id = $1 and scope = $2 and key = $3 and covers = $4 and released_at is null
        for update
        "#,
        business.0,
        scope,
        key,
        covers,
    )
    .fetch_optional(conn)
    .await?;
    Ok(hold)
}

/// Puts a hold on something. False: somebody else did so at the same time.
pub(in crate::messaging) async fn insert_hold(
    conn: &mut PgConnection,
    business: BusinessId,
    hold: &HoldRow,
) -> Result<bool, Error> {
    let inserted = sqlx::query!(
        r#"
        insert into muneem.messaging_holds (
            hold_id, business_id, scope, key, covers, code, told, strikes, since, struck_at, until)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
        on conflict (business_id, scope, key, covers) where released_at is null do nothing
        "#,
        hold.hold_id,
        business.0,
        hold.scope,
        hold.key,
        hold.covers,
        hold.code,
        hold.told,
        hold.strikes,
        hold.since,
        hold.struck_at,
        hold.until,
    )
    .execute(conn)
    .await?
    .rows_affected();
    Ok(inserted == 1)
}

/// Makes a locked hold hold on.
pub(in crate::messaging) async fn strike_hold(conn: &mut PgConnection, hold: &HoldRow) -> Result<(), Error> {
    sqlx::query!(
        r#"
        update muneem.messaging_holds
        set strikes = $2, struck_at = $3, until = $4, code = $5, told = $6
        where hold_id = $1
        "#,
        hold.hold_id,
        hold.strikes,
        hold.struck_at,
        hold.until,
        hold.code,
        hold.told,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Releases holds; the scopes and keys of those that were still in force.
pub(in crate::messaging) async fn release_holds(
    conn: &mut PgConnection,
    holds: &[Uuid],
    by: &str,
    now: DateTime<Utc>,
) -> Result<Vec<(String, String)>, Error> {
    let released = sqlx::query!(
        r#"
        update muneem.messaging_holds
        set released_at = $2, released_by = $3
        where hold_id = any ($1) and released_at is null
        returning scope, key
        "#,
        holds,
        now,
        by,
    )
    .fetch_all(conn)
    .await?;
    Ok(released.into_iter().map(|row| (row.scope, row.key)).collect())
}
