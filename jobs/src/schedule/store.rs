use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;

use super::{Declaration, Entry, Error, Missed, Scope, Source};
use crate::people::BusinessId;

/// A row as the database has it.
struct Row {
    name: String,
    source: String,
    kind: String,
    payload: Value,
    scope: String,
    business: Option<String>,
    lane: Option<String>,
    expression: String,
    missed: String,
    catch_up_max: i32,
    paused: bool,
    last_slot: Option<DateTime<Utc>>,
    next_slot: Option<DateTime<Utc>>,
    fault: Option<String>,
}

impl Row {
    fn entry(self) -> Result<Entry, Error> {
        let field = |field, why: String| Error::Field { name: self.name.clone(), field, why };
        let scope = match (self.scope.as_str(), &self.business) {
            ("named", Some(handle)) => Scope::Named(handle.clone()),
            ("each", _) => Scope::Each,
            ("house", _) => Scope::House,
            ("only", _) => Scope::Only,
            (other, _) => return Err(field("scope", format!("`{other}` is unknown"))),
        };
        let lane = self.lane.as_deref().map(str::parse).transpose().map_err(|why| field("lane", why))?;
        let missed: Missed = self.missed.parse().map_err(|why| field("missed", why))?;
        Ok(Entry {
            source: if self.source == "code" { Source::Code } else { Source::Table },
            scope,
            lane,
            missed,
            name: self.name,
            kind: self.kind,
            payload: self.payload,
            expression: self.expression,
            catch_up_max: self.catch_up_max,
            paused: self.paused,
            last_slot: self.last_slot,
            next_slot: self.next_slot,
            fault: self.fault,
        })
    }
}

/// All entries, or those for one business, by name after `after`.
pub(super) async fn list(
    conn: &mut PgConnection,
    business: Option<&str>,
    after: &str,
    limit: i64,
) -> Result<Vec<Entry>, Error> {
    sqlx::query_as!(
        Row,
        r#"
        select e.name, e.source, e.kind, e.payload, e.scope, b.handle as "business?", e.lane, e.expression, e.missed,
            e.catch_up_max, e.paused, e.last_slot, e.next_slot, e.fault
        from muneem.schedule_entries e
        left join muneem.people_businesses b on b.business_id = e.business_id
        where e.name > $1
            and ($2::text is null or b.handle = $2)
        order by e.name
        limit $3
        "#,
        after,
        business,
        limit,
    )
    .fetch_all(conn)
    .await
    .map_err(Error::database("list the schedules"))?
    .into_iter()
    .map(Row::entry)
    .collect()
}

pub(super) async fn find(conn: &mut PgConnection, name: &str) -> Result<Option<Entry>, Error> {
    sqlx::query_as!(
        Row,
        r#"
        select e.name, e.source, e.kind, e.payload, e.scope, b.handle as "business?", e.lane, e.expression, e.missed,
            e.catch_up_max, e.paused, e.last_slot, e.next_slot, e.fault
        from muneem.schedule_entries e
        left join muneem.people_businesses b on b.business_id = e.business_id
        where e.name = $1
        "#,
        name,
    )
    .fetch_optional(conn)
    .await
    .map_err(Error::database("read a schedule"))?
    .map(Row::entry)
    .transpose()
}

/// Names of entries that a tick must look at: due, or not yet counted from any now.
pub(super) async fn list_due(conn: &mut PgConnection, now: DateTime<Utc>) -> Result<Vec<String>, Error> {
    sqlx::query_scalar!(
        "
        select name
        from muneem.schedule_entries
        where not paused
            and (next_slot is null or next_slot <= $1)
        order by next_slot nulls first, name
        ",
        now,
    )
    .fetch_all(conn)
    .await
    .map_err(Error::database("list the schedules that are due"))
}

/// Holds the entry if it is still due and no other scheduler has it.
pub(super) async fn lock_due(conn: &mut PgConnection, name: &str, now: DateTime<Utc>) -> Result<Option<Entry>, Error> {
    // `skip locked`: whoever holds the row makes its jobs; waiting for that would only serialise the schedulers.
    sqlx::query_as!(
        Row,
        r#"
        select e.name, e.source, e.kind, e.payload, e.scope, b.handle as "business?", e.lane, e.expression, e.missed,
            e.catch_up_max, e.paused, e.last_slot, e.next_slot, e.fault
        from muneem.schedule_entries e
        left join muneem.people_businesses b on b.business_id = e.business_id
        where e.name = $1
            and not e.paused
            and (e.next_slot is null or e.next_slot <= $2)
        for update of e skip locked
        "#,
        name,
        now,
    )
    .fetch_optional(conn)
    .await
    .map_err(Error::database("hold a schedule"))?
    .map(Row::entry)
    .transpose()
}

pub(super) async fn settle(
    conn: &mut PgConnection,
    name: &str,
    settled: Option<DateTime<Utc>>,
    next: Option<DateTime<Utc>>,
) -> Result<(), Error> {
    sqlx::query!(
        "
        update muneem.schedule_entries
        set last_slot = greatest(last_slot, $2), next_slot = $3, fault = null
        where name = $1
        ",
        name,
        settled,
        next,
    )
    .execute(conn)
    .await
    .map_err(Error::database("settle the slots of a schedule"))?;
    Ok(())
}

pub(super) async fn record_fault(conn: &mut PgConnection, name: &str, fault: &str) -> Result<(), Error> {
    sqlx::query!("update muneem.schedule_entries set fault = $2 where name = $1", name, fault)
        .execute(conn)
        .await
        .map_err(Error::database("note why a schedule made no job"))?;
    Ok(())
}

/// First slot still to come, over all entries that run.
pub(super) async fn next_at(conn: &mut PgConnection, now: DateTime<Utc>) -> Result<Option<DateTime<Utc>>, Error> {
    sqlx::query_scalar!(
        "
        select min(next_slot)
        from muneem.schedule_entries
        where not paused
            and next_slot > $1
        ",
        now,
    )
    .fetch_one(conn)
    .await
    .map_err(Error::database("find the next slot"))
}

/// Writes an entry; `false` when one of the same name has another source.
pub(super) async fn put(conn: &mut PgConnection, wanted: &Declaration, source: Source) -> Result<bool, Error> {
    let source = match source {
        Source::Code => "code",
        Source::Table => "table",
    };
    let written = sqlx::query!(
        "
        insert into muneem.schedule_entries as e
            (name, source, kind, payload, scope, business_id, lane, expression, missed, catch_up_max)
        values (
            $1, $2, $3, $4, $5,
            (select b.business_id from muneem.people_businesses b where b.handle = $6),
            $7, $8, $9, $10
        )
        on conflict (name) do update
        set kind = excluded.kind, payload = excluded.payload, scope = excluded.scope,
            business_id = excluded.business_id, lane = excluded.lane, expression = excluded.expression,
            missed = excluded.missed, catch_up_max = excluded.catch_up_max
        where e.source = excluded.source
        ",
        wanted.name,
        source,
        wanted.kind,
        wanted.payload,
        wanted.scope.as_str(),
        wanted.scope.handle(),
        wanted.lane.map(|lane| lane.as_str()),
        wanted.expression.as_str(),
        wanted.missed.as_str(),
        i32::from(wanted.catch_up_max),
    )
    .execute(conn)
    .await;
    match written {
        Ok(done) => Ok(done.rows_affected() == 1),
        Err(source) => Err(by_constraint(wanted, source)),
    }
}

/// A broken constraint as the field it guards.
fn by_constraint(wanted: &Declaration, source: sqlx::Error) -> Error {
    let (field, why) = match source.as_database_error().and_then(|error| error.constraint()) {
        Some("schedule_entries_name_form") => {
            ("name", "is 1 to 63 of a-z 0-9 . _ - and starts with a letter or digit".to_owned())
        }
        Some("schedule_entries_payload_object") => ("payload", "is a JSON object".to_owned()),
        Some("schedule_entries_catch_up_max_range") => ("catch_up_max", "is 1 to 1000".to_owned()),
        Some("schedule_entries_business_fits_scope") => {
            ("business", format!("`{}` is not a business here", wanted.scope.handle().unwrap_or_default()))
        }
        _ => return Error::Database { attempted: "write a schedule", source },
    };
    Error::Field { name: wanted.name.clone(), field, why }
}

/// Lets go of entries that the code no longer declares.
pub(super) async fn delete_undeclared(conn: &mut PgConnection, declared: &[String]) -> Result<u64, Error> {
    let done =
        sqlx::query!("delete from muneem.schedule_entries where source = 'code' and name <> all ($1)", declared,)
            .execute(conn)
            .await
            .map_err(Error::database("remove schedules that are no longer declared"))?;
    Ok(done.rows_affected())
}

/// Removes an operator's entry; `false` when there is none.
pub(super) async fn delete(conn: &mut PgConnection, name: &str) -> Result<bool, Error> {
    let done = sqlx::query!("delete from muneem.schedule_entries where source = 'table' and name = $1", name)
        .execute(conn)
        .await
        .map_err(Error::database("remove a schedule"))?;
    Ok(done.rows_affected() == 1)
}

/// The business that an entry names, if it names one.
pub(super) async fn find_owner(conn: &mut PgConnection, name: &str) -> Result<Option<BusinessId>, Error> {
    let business = sqlx::query_scalar!(
        r#"select business_id as "business_id: BusinessId" from muneem.schedule_entries where name = $1"#,
        name
    )
    .fetch_optional(conn)
    .await
    .map_err(Error::database("read whose a schedule is"))?;
    Ok(business.flatten())
}

/// Pauses or resumes; `false` when there is no such entry.
pub(super) async fn set_paused(conn: &mut PgConnection, name: &str, paused: bool) -> Result<bool, Error> {
    let done = sqlx::query!("update muneem.schedule_entries set paused = $2 where name = $1", name, paused)
        .execute(conn)
        .await
        .map_err(Error::database("pause or resume a schedule"))?;
    Ok(done.rows_affected() == 1)
}
