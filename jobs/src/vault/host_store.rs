//! Statements on the register of frontends' columns, and the look at how they are.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{
    Error,
    host::{ColumnId, HostColumn, HostIndex, Seen},
};
use crate::people::BusinessId;

struct Row {
    column_id: ColumnId,
    business_id: BusinessId,
    table_schema: String,
    table_name: String,
    column_name: String,
    class: String,
    key_column: String,
    key_type: String,
    index_column: Option<String>,
    version_column: Option<String>,
    index_form: Option<String>,
    finding: Option<String>,
    checked_at: DateTime<Utc>,
}

impl Row {
    fn into_column(self) -> HostColumn {
        let index = self.index_column.zip(self.version_column).zip(self.index_form.and_then(|form| form.parse().ok()));
        HostColumn {
            column_id: self.column_id,
            business_id: self.business_id,
            table_schema: self.table_schema,
            table_name: self.table_name,
            column_name: self.column_name,
            class: self.class,
            key_column: self.key_column,
            key_type: self.key_type,
            index: index.map(|((column, version_column), form)| HostIndex { column, version_column, form }),
            sound: self.finding.is_none(),
            finding: self.finding,
            checked_at: self.checked_at,
        }
    }
}

pub(super) async fn list(db: &mut PgConnection, business: Option<BusinessId>) -> Result<Vec<HostColumn>, Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"select column_id as "column_id: ColumnId", business_id as "business_id: BusinessId", table_schema, table_name,
            column_name, class, key_column, key_type, index_column, version_column, index_form, finding, checked_at
        from muneem.vault_columns
        where $1::uuid is null or business_id = $1
        order by table_schema, table_name, column_name, business_id"#,
        business.map(|business| business.0),
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(Row::into_column).collect())
}

/// What is off with a registered column.
pub(super) async fn find_finding(
    db: &mut PgConnection,
    business: BusinessId,
    table: &str,
    column: &str,
) -> Result<Option<String>, Error> {
    Ok(sqlx::query_scalar!(
        r#"select finding as "finding!"
        from muneem.vault_columns
        where business_id = $1
            and table_schema || '.' || table_name = $2
            and column_name = $3
            and state = 'drifted'"#,
        business.0,
        table,
        column,
    )
    .fetch_optional(db)
    .await?)
}

/// Writes a column into the register; false when it is there.
pub(super) async fn insert(db: &mut PgConnection, column: &HostColumn, now: DateTime<Utc>) -> Result<bool, Error> {
    let index = column.index.as_ref();
    let outcome = sqlx::query!(
        "insert into muneem.vault_columns
            (column_id, business_id, table_schema, table_name, column_name, class, key_column, key_type, index_column,
             version_column, index_form, state, added_at, checked_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 'sound', $12, $12)
        on conflict do nothing",
        column.column_id.0,
        column.business_id.0,
        column.table_schema,
        column.table_name,
        column.column_name,
        column.class,
        column.key_column,
        column.key_type,
        index.map(|index| index.column.as_str()),
        index.map(|index| index.version_column.as_str()),
        index.map(|index| index.form.as_str()),
        now,
    )
    .execute(db)
    .await?;
    Ok(outcome.rows_affected() == 1)
}

/// Takes a column out of the register, and says of which class it was.
pub(super) async fn delete(db: &mut PgConnection, business: BusinessId, name: &str) -> Result<Option<String>, Error> {
    Ok(sqlx::query_scalar!(
        "delete from muneem.vault_columns
        where business_id = $1
            and table_schema || '.' || table_name || '.' || column_name = $2
        returning class",
        business.0,
        name,
    )
    .fetch_optional(db)
    .await?)
}

/// Writes down how a column was found; whether that is another state than before.
pub(super) async fn set_state(db: &mut PgConnection, column: &HostColumn, now: DateTime<Utc>) -> Result<bool, Error> {
    Ok(sqlx::query_scalar!(
        r#"with before as (
            select column_id, state from muneem.vault_columns where column_id = $1 for no key update
        )
        update muneem.vault_columns c
        set state = case when $2::text is null then 'sound' else 'drifted' end, finding = $2, checked_at = $3
        from before b
        where c.column_id = b.column_id
        returning (b.state <> c.state) as "changed!""#,
        column.column_id.0,
        column.finding,
        now,
    )
    .fetch_optional(db)
    .await?
    .unwrap_or(false))
}

/// The columns of a table as they are, in whatever database `there` leads to; nothing when there is no such table.
pub(super) async fn look(there: &mut PgConnection, schema: &str, table: &str) -> Result<Option<Vec<Seen>>, Error> {
    let seen = sqlx::query_as!(
        Seen,
        r#"select a.attname::text as "name!", format_type(a.atttypid, null) as "kind!",
            a.attnotnull and exists (
                select
                from pg_index i
                where i.indrelid = c.oid
                    and i.indisunique
                    and i.indpred is null
                    and i.indnkeyatts = 1
                    and i.indkey[0] = a.attnum) as "unique!",
            has_column_privilege(c.oid, a.attnum, 'select') as "may_read!",
            has_column_privilege(c.oid, a.attnum, 'update') as "may_write!"
        from pg_class c
        join pg_namespace n on n.oid = c.relnamespace
        join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        where n.nspname = $1
            and c.relname = $2
            and c.relkind in ('r', 'p')"#,
        schema,
        table,
    )
    .fetch_all(there)
    .await?;
    Ok((!seen.is_empty()).then_some(seen))
}
