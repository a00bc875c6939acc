//! The schema itself: brought up to date by its owner, used by a login that may only serve.

use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::{Connection, PgConnection, PgPool};

use crate::{
    evidence::{self, Act, By, Object, Word, words},
    law, people, queue, schedule,
};

/// Oldest Postgres that will do, as `server_version_num` counts.
const OLDEST: i32 = 150_000;

/// Why the schema is not as it must be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server is too old.
    #[error("Postgres {0} is too old: muneem needs 15 or newer")]
    TooOld(i32),
    /// Nobody has migrated this database.
    #[error("the schema is not there yet: run `muneem migrate` once, as the database's owner")]
    NotThere,
    /// This program is newer than the schema.
    #[error("the schema lacks {0} steps of this version: run `muneem migrate` as the database's owner")]
    Behind(usize),
    /// The login owns the schema or is superuser.
    #[error("login `{login}` may do more than serving needs (it owns the schema or is superuser): {}", mend())]
    TooPowerful {
        /// Who connected.
        login: String,
    },
    /// The login is no member of the app role.
    #[error(
        "login `{login}` may not serve yet: let it, as the database's owner: grant muneem_app to {}",
        quoted(login)
    )]
    NotMember {
        /// Who connected.
        login: String,
    },
    /// The login could do to the evidence what nobody who serves may.
    #[error(
        "login `{login}` may do more to the evidence than append ({right}); take it away, as the database's owner: {mend}"
    )]
    EvidenceOpen {
        /// Who connected.
        login: String,
        /// The first right too many.
        right: String,
        /// The SQL that takes it away.
        mend: String,
    },
    /// Sandbox mode on a real database, or the other way round.
    #[error(
        "this database is {}: run `muneem migrate` with `sandbox.enabled = {}` as its owner, or take another database",
        if *.sandbox { "a sandbox's, whose clock may be moved" } else { "a real one, whose clock is not moved" },
        !sandbox
    )]
    WrongClock {
        /// What the database is.
        sandbox: bool,
    },
    /// A step failed.
    #[error("the schema could not be migrated; run `muneem migrate` as the database's owner")]
    Step(#[source] sqlx::migrate::MigrateError),
    /// Kinds could not be published.
    #[error("the job kinds could not be published")]
    Kinds(#[source] queue::Error),
    /// Schedules could not be published.
    #[error("the schedules could not be published")]
    Schedules(#[source] schedule::Error),
    /// The wall between businesses could not be built.
    #[error("the wall between businesses could not be built")]
    Wall(#[source] people::Error),
    /// What was reached could not be put on record.
    #[error("the version that was reached could not be recorded: run `muneem migrate` again")]
    Evidence(#[source] evidence::Error),
    /// The database could not be asked.
    #[error("the database did not answer")]
    Database(#[source] sqlx::Error),
}

/// As an identifier in SQL.
fn quoted(login: &str) -> String {
    format!("\"{}\"", login.replace('"', "\"\""))
}

/// The SQL that makes a login which may serve and no more.
fn mend() -> String {
    "make one that may only serve, and put it into DATABASE_URL: \
     create role muneem_serve login password '…' in role muneem_app"
        .to_owned()
}

/// The server as it presents itself.
#[derive(Clone, Debug)]
pub struct Server {
    /// `15.14`
    pub version: String,
    /// What its clock says.
    pub now: DateTime<Utc>,
}

/// Asks the server for its version and time.
///
/// # Errors
/// It does not answer, or is older than 15.
pub async fn ask_server(conn: &mut PgConnection) -> Result<Server, Error> {
    let (number, version, now): (i32, String, DateTime<Utc>) = sqlx::query_as(
        "select current_setting('server_version_num')::integer, current_setting('server_version'), clock_timestamp()",
    )
    .fetch_one(conn)
    .await
    .map_err(Error::Database)?;
    if number < OLDEST { Err(Error::TooOld(number / 10_000)) } else { Ok(Server { version, now }) }
}

/// Brings the schema up to date and publishes kinds and schedules. Needs its owner.
///
/// # Errors
/// The server is older than 15 or refuses a step.
pub async fn migrate(conn: &mut PgConnection) -> Result<(), Error> {
    ask_server(conn).await?;
    crate::MIGRATOR.run(&mut *conn).await.map_err(Error::Step)?;
    people::build_wall(conn).await.map_err(Error::Wall)?;
    queue::sync_kinds(conn, &crate::kinds()).await.map_err(Error::Kinds)?;
    schedule::sync(conn, crate::schedules().map_err(Error::Schedules)?).await.map_err(Error::Schedules)
}

/// Puts on record which version of the schema and which data of the law are in force, where they are others than last
/// time. Call it after [`migrate`], as the same owner.
///
/// # Errors
/// The evidence cannot be written: nothing is recorded, and the next call does it.
pub async fn record_versions(conn: &mut PgConnection, by: &By<'_>) -> Result<(), Error> {
    let reached = crate::MIGRATOR.iter().map(|step| step.version).max().unwrap_or(0).to_string();
    record(conn, ("schema", words::SCHEMA_MIGRATED, &reached), by).await?;
    record(conn, ("law", words::LAW_CHANGED, &law::data_sha256()), by).await
}

/// Puts a version on record, if it is another one than last time.
async fn record(conn: &mut PgConnection, (thing, word, version): (&str, Word, &str), by: &By<'_>) -> Result<(), Error> {
    let mut tx = conn.begin().await.map_err(Error::Database)?;
    let changed = sqlx::query(
        "insert into muneem.schema_recorded as r (thing, version, recorded_at)
        values ($1, $2, $3)
        on conflict (thing) do update set version = excluded.version, recorded_at = excluded.recorded_at
        where r.version <> excluded.version",
    )
    .bind(thing)
    .bind(version)
    .bind(by.now)
    .execute(&mut *tx)
    .await
    .map_err(Error::Database)?;
    if changed.rows_affected() == 1 {
        let details = json!({ "version": version, "program": env!("CARGO_PKG_VERSION") });
        let object = Object { kind: thing, id: "muneem" };
        by.record(&mut tx, Act { word, business: None, object, details }).await.map_err(Error::Evidence)?;
    }
    tx.commit().await.map_err(Error::Database)
}

/// Makes the database of a private server, and nothing if it is there.
///
/// # Errors
/// The server refuses it.
pub async fn create_private_database(server: &mut PgConnection) -> Result<(), Error> {
    let exists: bool = sqlx::query_scalar("select exists (select from pg_database where datname = 'muneem')")
        .fetch_one(&mut *server)
        .await
        .map_err(Error::Database)?;
    if !exists {
        sqlx::query("create database muneem").execute(server).await.map_err(Error::Database)?;
    }
    Ok(())
}

/// Makes the login of a private server that may only serve, and nothing if it is there.
///
/// # Errors
/// The server refuses it.
pub async fn create_private_login(conn: &mut PgConnection) -> Result<(), Error> {
    sqlx::query(
        "do $$ begin
            if not exists (select from pg_roles where rolname = 'muneem') then
                create role muneem login in role muneem_app;
            end if;
        end $$",
    )
    .execute(conn)
    .await
    .map_err(Error::Database)?;
    Ok(())
}

/// Refuses to serve with more rights than serving needs, on a schema that is not this version's, or in sandbox mode on a
/// real database and the other way round.
///
/// # Errors
/// Each says what puts it right.
pub async fn check(db: &PgPool, sandbox: bool) -> Result<(), Error> {
    let standing: (String, bool, bool, bool) = sqlx::query_as(
        "select
            current_user::text,
            -- Not to_regclass: it refuses to look into a schema that the login may not use.
            exists (
                select
                from pg_class c
                join pg_namespace n on n.oid = c.relnamespace
                where n.nspname = 'muneem' and c.relname = '_sqlx_migrations'),
            coalesce((select r.rolsuper from pg_roles r where r.rolname = current_user), true)
                or coalesce((
                    select pg_has_role(n.nspowner, 'usage') from pg_namespace n where n.nspname = 'muneem'), false),
            coalesce(pg_has_role(current_user, to_regrole('muneem_app'), 'member'), false)",
    )
    .fetch_one(db)
    .await
    .map_err(Error::Database)?;
    let (login, migrated, powerful, member) = standing;
    if !migrated {
        return Err(Error::NotThere);
    }
    if powerful {
        return Err(Error::TooPowerful { login });
    }
    if !member {
        return Err(Error::NotMember { login });
    }
    let applied: Vec<i64> = sqlx::query_scalar("select version from muneem._sqlx_migrations where success")
        .fetch_all(db)
        .await
        .map_err(Error::Database)?;
    let missing = crate::MIGRATOR.iter().filter(|step| !applied.contains(&step.version)).count();
    if missing > 0 {
        return Err(Error::Behind(missing));
    }
    let (found, _) = law::load_clock(db).await.map_err(Error::Database)?;
    if found != sandbox {
        return Err(Error::WrongClock { sandbox: found });
    }
    check_evidence(db, login).await
}

/// Refuses a login that may do more to the evidence than append and read heads, whoever granted it.
async fn check_evidence(db: &PgPool, login: String) -> Result<(), Error> {
    let open: Option<(String, String)> = sqlx::query_as(
        "select *
        from (
            select 'member of ' || r.rolname as power,
                format('revoke %I from %I', r.rolname, current_user) as mend
            from pg_roles r
            where r.rolname in ('muneem_evidence_owner', 'muneem_sealer')
                and pg_has_role(current_user, r.oid, 'member')
            union all
            select p.power || ' on muneem.' || c.relname,
                format('revoke %s on muneem.%I from %I, muneem_app, public', p.power, c.relname, current_user)
            from pg_class c
            join pg_namespace n on n.oid = c.relnamespace and n.nspname = 'muneem'
            cross join unnest(array['update', 'delete', 'truncate', 'trigger', 'insert', 'select']) as p (power)
            where c.relname like 'evidence\\_%'
                and c.relkind in ('r', 'p')
                and (p.power <> 'select' or c.relname like 'evidence\\_events%')
                and has_table_privilege(current_user, c.oid, p.power)
            union all
            -- Whoever moves the clock backdates events.
            select 'update of muneem.law_clock',
                format('revoke update on muneem.law_clock from %I, muneem_app, public', current_user)
            where has_any_column_privilege(current_user, 'muneem.law_clock', 'update')
            union all
            select 'insert of column ' || a.attname || ' on muneem.' || c.relname,
                format('revoke insert (%I) on muneem.%I from %I, muneem_app, public', a.attname, c.relname, current_user)
            from pg_class c
            join pg_namespace n on n.oid = c.relnamespace and n.nspname = 'muneem'
            join pg_attribute a on a.attrelid = c.oid and a.attname in ('at', 'xid')
            where c.relname like 'evidence\\_%'
                and c.relkind in ('r', 'p')
                and has_column_privilege(current_user, c.oid, a.attnum, 'insert')
                -- A right to the whole table is told of above, and goes there.
                and not has_table_privilege(current_user, c.oid, 'insert')
        ) too_much
        order by 1
        limit 1",
    )
    .fetch_optional(db)
    .await
    .map_err(Error::Database)?;
    open.map_or(Ok(()), |(right, mend)| Err(Error::EvidenceOpen { login, right, mend }))
}
