//! The schema that the migrations make, as review should see it.

use std::fmt::Write;

use muneem_jobs::MIGRATOR;
use muneem_postgres::testing::TestDb;

const COLUMNS: &str = "
    select c.relname || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
        || case when a.attnotnull then ' not null' else '' end
        || coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), '')
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace and n.nspname = 'muneem'
    join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
    where c.relkind in ('r', 'p') and c.relname !~ '_[0-9]{8}$' and c.relname <> '_sqlx_migrations'
    order by c.relname::text collate \"C\", a.attnum";

const CONSTRAINTS: &str = "
    select c.conrelid::regclass || ' ' || c.conname || ' ' || pg_get_constraintdef(c.oid)
    from pg_constraint c
    join pg_namespace n on n.oid = c.connamespace and n.nspname = 'muneem'
    where c.conrelid <> 0 and c.conrelid::regclass::text !~ '(_[0-9]{8}|_sqlx_migrations)$'
    order by 1";

const INDEXES: &str = "
    select regexp_replace(indexdef, ' USING btree', '')
    from pg_indexes
    where schemaname = 'muneem' and tablename !~ '(_[0-9]{8}|_sqlx_migrations|_other)$'
    order by tablename::text collate \"C\", indexname::text collate \"C\"";

const GRANTS: &str = "
    select g.grantee || ' ' || g.table_name || ' ' || string_agg(g.privilege_type, ', ' order by g.privilege_type)
    from information_schema.role_table_grants g
    where g.table_schema = 'muneem' and g.grantee like 'muneem\\_%' and g.table_name !~ '_[0-9]{8}$'
    group by g.grantee, g.table_name
    order by 1";

const FUNCTIONS: &str = "
    select p.oid::regprocedure || case when p.prosecdef then ' security definer' else '' end
        || coalesce(' for ' || string_agg(r.rolname, ', ' order by r.rolname), '')
    from pg_proc p
    join pg_namespace n on n.oid = p.pronamespace and n.nspname = 'muneem'
    left join lateral aclexplode(p.proacl) acl on acl.privilege_type = 'EXECUTE'
    left join pg_roles r on r.oid = acl.grantee and r.rolname like 'muneem\\_%'
    group by p.oid, p.prosecdef
    order by 1";

const OPEN_TO_ALL: &str = "
    select p.oid::regprocedure::text
    from pg_proc p
    join pg_namespace n on n.oid = p.pronamespace and n.nspname = 'muneem'
    where p.proacl is null or exists (
        select from aclexplode(p.proacl) acl where acl.grantee = 0 and acl.privilege_type = 'EXECUTE')
    order by 1";

#[tokio::test]
async fn the_schema_is_the_one_under_review() {
    let db = TestDb::new(&MIGRATOR).await;
    let mut seen = String::new();
    for (title, sql) in [
        ("columns", COLUMNS),
        ("constraints", CONSTRAINTS),
        ("indexes", INDEXES),
        ("grants", GRANTS),
        ("functions", FUNCTIONS),
    ] {
        let lines: Vec<String> = sqlx::query_scalar(sql).fetch_all(&db.pool()).await.unwrap();
        writeln!(seen, "-- {title}\n{}\n", lines.join("\n")).unwrap();
    }
    insta::assert_snapshot!(seen);
}

#[tokio::test]
async fn no_function_is_open_to_everybody() {
    let db = TestDb::new(&MIGRATOR).await;
    let open: Vec<String> = sqlx::query_scalar(OPEN_TO_ALL).fetch_all(&db.pool()).await.unwrap();
    assert_eq!(open, Vec::<String>::new());
}

#[tokio::test]
async fn migrating_twice_changes_nothing() {
    let db = TestDb::new(&MIGRATOR).await;
    let mut conn = db.pool().acquire().await.unwrap();
    for _ in 0..2 {
        muneem_jobs::schema::migrate(&mut conn).await.unwrap();
        muneem_jobs::schema::record_versions(&mut conn, &muneem_tests::operator()).await.unwrap();
    }
    let told: i64 =
        sqlx::query_scalar("select count(*) from muneem.evidence_events").fetch_one(&mut *conn).await.unwrap();
    assert_eq!(told, 2, "schema and law, once each");
    let kinds: i64 = sqlx::query_scalar("select count(*) from muneem.queue_kinds").fetch_one(&mut *conn).await.unwrap();
    assert_eq!(kinds, i64::try_from(muneem_jobs::kinds().len()).unwrap());
}
