//! Statements on tables that the compiler does not know: those of the registry, and the frontend's own. Names are
//! quoted by one function, values are bound.

use sqlx::{AssertSqlSafe, PgConnection, Row};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    IndexedColumn, Owner, SealedColumn, Source, Version,
    host::{Form, HostColumn},
};

/// Shortest sealed value.
const SHORTEST: usize = super::OVERHEAD;

/// Something to walk: one column of one table.
pub(super) struct Place {
    /// `schema.table.column`, and of a frontend's column whose it is.
    pub(super) name: String,
    /// Whether the table is the frontend's.
    pub(super) host: bool,
    /// Whose it is, if all of it is one business's.
    pub(super) business: Option<Uuid>,
    pub(super) work: Work,
    table: String,
    key: String,
    key_type: String,
}

/// What is done to a value there.
pub(super) enum Work {
    /// It is opened and sealed anew.
    Reseal { cell_table: String, cell_column: String, column: String, owner: String },
    /// Its blind index is made anew from a sealed column of the row.
    Reindex { purpose: String, mark: Mark, owner: String, from: From },
    /// It can only be counted.
    Count { purpose: String, mark: Mark, owner: Option<String> },
}

/// The sealed column that a blind index is made from.
pub(super) struct From {
    pub(super) cell_table: String,
    pub(super) cell_column: String,
    pub(super) value: Canonical,
    column: String,
    owner: String,
}

/// From what was sealed to what was indexed.
pub(super) enum Canonical {
    Function(fn(&[u8]) -> Option<Zeroizing<String>>),
    Form(Form),
}

/// A blind index with its version, as 18 bytes.
pub(super) struct Mark {
    column: String,
    version: Option<String>,
}

/// A row with something to do.
pub(super) struct Found {
    pub(super) key: String,
    /// Whose cell it is.
    pub(super) business: Uuid,
    /// What is sealed; none where an index stands beside nothing.
    pub(super) sealed: Option<Vec<u8>>,
    /// Whose index it is, and the index.
    pub(super) mark: Option<(Uuid, Vec<u8>)>,
}

/// What is looked for: keys by number, or index keys by business and version.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) keys: &'a [Vec<u8>],
    pub(super) businesses: &'a [Uuid],
    pub(super) versions: &'a [i32],
}

/// A value to be written in place of another.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) keys: Vec<String>,
    pub(super) old: Vec<Vec<u8>>,
    pub(super) new: Vec<Vec<u8>>,
}

/// As an identifier in SQL.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn quoted_table(table: &str) -> String {
    table.split('.').map(quoted).collect::<Vec<_>>().join(".")
}

fn owner_of(owner: Owner) -> String {
    match owner {
        Owner::Row => format!("coalesce(t.business_id, '{}'::uuid)", Uuid::nil()),
        Owner::Installation | Owner::Unsaid => format!("'{}'::uuid", Uuid::nil()),
    }
}

impl Mark {
    /// The 18 bytes.
    fn read(&self) -> String {
        match &self.version {
            None => format!("t.{}", self.column),
            Some(version) => format!("int2send(t.{version}::smallint) || t.{}", self.column),
        }
    }

    fn number(&self) -> String {
        match &self.version {
            None => version_in(&format!("t.{}", self.column)),
            Some(version) => format!("t.{version}"),
        }
    }

    fn set(&self) -> String {
        let Self { column, version } = self;
        match version {
            None => format!("{column} = ready.new"),
            Some(version) => {
                format!("{column} = substring(ready.new from 3), {version} = {}", version_in("ready.new"))
            }
        }
    }

    fn is(&self) -> String {
        let Self { column, version } = self;
        match version {
            None => format!("t.{column} = n.old"),
            Some(version) => {
                format!("t.{column} = substring(n.old from 3) and t.{version} = {}", version_in("n.old"))
            }
        }
    }
}

fn version_in(bytes: &str) -> String {
    format!("(get_byte({bytes}, 0) * 256 + get_byte({bytes}, 1))")
}

impl Place {
    pub(super) fn of_sealed(sealed: &SealedColumn) -> Self {
        let work = Work::Reseal {
            cell_table: sealed.cell_table.to_owned(),
            cell_column: sealed.cell_column.to_owned(),
            column: quoted(sealed.column),
            owner: owner_of(sealed.owner),
        };
        Self {
            name: format!("{}.{}", sealed.table, sealed.column),
            host: false,
            business: None,
            work,
            table: quoted_table(sealed.table),
            key: quoted(sealed.key.column),
            key_type: sealed.key.kind.to_owned(),
        }
    }

    /// `sealed`: the list in which the column's source is looked up.
    pub(super) fn of_indexed(indexed: &IndexedColumn, sealed: &[SealedColumn]) -> Self {
        let mark = Mark {
            column: quoted(indexed.column),
            version: match indexed.version {
                Version::Within => None,
                Version::Beside(column) => Some(quoted(column)),
            },
        };
        let purpose = indexed.purpose.to_owned();
        let source = match indexed.source {
            Source::Gone => None,
            Source::Sealed { column, value } => sealed
                .iter()
                .find(|sealed| (sealed.table, sealed.column) == (indexed.table, column))
                .map(|sealed| (sealed, value)),
        };
        let work = match source {
            None => {
                let owner = (indexed.owner != Owner::Unsaid).then(|| owner_of(indexed.owner));
                Work::Count { purpose, mark, owner }
            }
            Some((sealed, value)) => {
                let from = From {
                    cell_table: sealed.cell_table.to_owned(),
                    cell_column: sealed.cell_column.to_owned(),
                    value: Canonical::Function(value),
                    column: quoted(sealed.column),
                    owner: owner_of(sealed.owner),
                };
                Work::Reindex { purpose, mark, owner: owner_of(indexed.owner), from }
            }
        };
        Self {
            name: format!("{}.{}", indexed.table, indexed.column),
            host: false,
            business: None,
            work,
            table: quoted_table(indexed.table),
            key: quoted(indexed.key.column),
            key_type: indexed.key.kind.to_owned(),
        }
    }

    /// The sealed column of a frontend, and its index.
    pub(super) fn of_host(host: &HostColumn) -> Vec<Self> {
        let business = host.business_id.0;
        let (schema, table) = (&host.table_schema, &host.table_name);
        let cell_table = format!("{schema}.{table}");
        let owner = format!("'{business}'::uuid");
        let place = |column: &str, work| Self {
            name: format!("{cell_table}.{column} of {business}"),
            host: true,
            business: Some(business),
            work,
            table: format!("{}.{}", quoted(schema), quoted(table)),
            key: quoted(&host.key_column),
            key_type: host.key_type.clone(),
        };
        let column = quoted(&host.column_name);
        let work = Work::Reseal {
            cell_table: cell_table.clone(),
            cell_column: host.column_name.clone(),
            column: column.clone(),
            owner: owner.clone(),
        };
        let mut places = vec![place(&host.column_name, work)];
        if let Some(index) = &host.index {
            let from = From {
                cell_table: cell_table.clone(),
                cell_column: host.column_name.clone(),
                value: Canonical::Form(index.form),
                column,
                owner: owner.clone(),
            };
            let mark = Mark { column: quoted(&index.column), version: Some(quoted(&index.version_column)) };
            // Its key goes by the column that is sealed, as `/v1/vault` names it.
            let purpose = host.name();
            places.push(place(&index.column, Work::Reindex { purpose, mark, owner, from }));
        }
        places
    }

    /// Of an index: `schema.table.column` of its key.
    pub(super) fn purpose(&self) -> Option<&str> {
        match &self.work {
            Work::Reseal { .. } => None,
            Work::Reindex { purpose, .. } | Work::Count { purpose, .. } => Some(purpose),
        }
    }

    fn after(&self) -> String {
        let Self { key, key_type, .. } = self;
        format!("($1::text is null or t.{key} > $1::text::{key_type})")
    }

    fn bound_sql(&self) -> String {
        let Self { table, key, .. } = self;
        let after = self.after();
        format!(
            "select (array_agg(w.k::text order by w.k desc))[1], count(*)
            from (select t.{key} as k from {table} t where {after} order by t.{key} limit $2) w"
        )
    }

    fn page_sql(&self) -> String {
        let Self { table, key, key_type, .. } = self;
        let after = self.after();
        let (columns, filter) = match &self.work {
            Work::Reseal { column, owner, .. } => (
                format!("{owner}, t.{column}, null::uuid, null::bytea"),
                format!(
                    "t.{column} is not null
                and (length(t.{column}) < {SHORTEST}
                    or substring(t.{column} from 1 for 2) not in ('\\x0101', '\\x0201')
                    or substring(t.{column} from 1 for 2) = '\\x0101'
                        and substring(t.{column} from 3 for 4) = any ($3::bytea[]))"
                ),
            ),
            Work::Reindex { mark, owner, from, .. } => (
                format!("{}, t.{}, {owner}, {}", from.owner, from.column, mark.read()),
                format!(
                    "t.{} is not null
                and ({owner}, {}) in (select w.b, w.v from unnest($3::uuid[], $4::integer[]) w (b, v))",
                    mark.column,
                    mark.number()
                ),
            ),
            Work::Count { mark, .. } => {
                (format!("null::uuid, null::bytea, null::uuid, t.{}", mark.column), "false".to_owned())
            }
        };
        format!(
            "select t.{key}::text, {columns}
            from {table} t
            where {after}
                and t.{key} <= $2::text::{key_type}
                and {filter}
            order by t.{key}"
        )
    }

    fn change_sql(&self) -> Option<String> {
        let Self { table, key, key_type, .. } = self;
        let (is, set) = match &self.work {
            Work::Reseal { column, .. } => (format!("t.{column} = n.old"), format!("{column} = ready.new")),
            Work::Reindex { mark, .. } => (mark.is(), mark.set()),
            Work::Count { .. } => return None,
        };
        // A row that somebody else is changing is left to him and found again: nobody waits here, so nobody can wait
        // for us in a circle.
        Some(format!(
            "with ready as materialized (
                select t.{key} as k, n.new
                from {table} t
                join unnest($1::text[], $2::bytea[], $3::bytea[]) n (k, old, new) on t.{key} = n.k::{key_type}
                where {is}
                for no key update of t skip locked
            )
            update {table} t
            set {set}
            from ready
            where t.{key} = ready.k"
        ))
    }

    fn count_sql(&self) -> String {
        let table = &self.table;
        let filter = match &self.work {
            Work::Reseal { column, owner, .. } => format!(
                "{owner} = $2::uuid
                and substring(t.{column} from 1 for 2) = '\\x0101'
                and substring(t.{column} from 3 for 4) = $1::bytea"
            ),
            Work::Reindex { mark, owner, .. } | Work::Count { mark, owner: Some(owner), .. } => {
                format!(
                    "{owner} = $2::uuid and {} = get_byte($1::bytea, 0) * 256 + get_byte($1::bytea, 1)",
                    mark.number()
                )
            }
            Work::Count { mark, owner: None, .. } => format!(
                "$2::uuid is not null and {} = get_byte($1::bytea, 0) * 256 + get_byte($1::bytea, 1)",
                mark.number()
            ),
        };
        format!("select count(*) from {table} t where {filter}")
    }

    /// The key `limit` rows after `after`, or the last one, and how many rows that is; none behind the last.
    pub(super) async fn bound(
        &self,
        db: &mut PgConnection,
        after: Option<&str>,
        limit: i64,
    ) -> sqlx::Result<Option<(String, i64)>> {
        let (last, rows): (Option<String>, i64) =
            sqlx::query_as(AssertSqlSafe(self.bound_sql())).bind(after).bind(limit).fetch_one(db).await?;
        Ok(last.map(|last| (last, rows)))
    }

    /// Rows behind `after` and up to `last` with something to do.
    pub(super) async fn page(
        &self,
        db: &mut PgConnection,
        (after, last): (Option<&str>, &str),
        wanted: Wanted<'_>,
    ) -> sqlx::Result<Vec<Found>> {
        let sql = AssertSqlSafe(self.page_sql());
        let query = sqlx::query(sql).bind(after).bind(last);
        let query = match self.work {
            Work::Reseal { .. } => query.bind(wanted.keys),
            Work::Reindex { .. } => query.bind(wanted.businesses).bind(wanted.versions),
            Work::Count { .. } => query,
        };
        let rows = query.fetch_all(db).await?;
        rows.into_iter()
            .map(|row| {
                let mark = row.try_get::<Option<Uuid>, _>(3)?.zip(row.try_get::<Option<Vec<u8>>, _>(4)?);
                Ok(Found { key: row.try_get(0)?, business: row.try_get(1)?, sealed: row.try_get(2)?, mark })
            })
            .collect()
    }

    /// Writes what still stands as it was read; answers how many that were.
    pub(super) async fn change(&self, db: &mut PgConnection, changes: &Changes) -> sqlx::Result<u64> {
        let Some(sql) = self.change_sql() else { return Ok(0) };
        let query = sqlx::query(AssertSqlSafe(sql)).bind(&changes.keys).bind(&changes.old).bind(&changes.new);
        Ok(query.execute(db).await?.rows_affected())
    }

    /// Rows of a frontend's table that hold something else than the vault gave out, at most 1000.
    pub(super) async fn count_odd(&self, db: &mut PgConnection) -> sqlx::Result<i64> {
        sqlx::query_scalar(AssertSqlSafe(self.odd_sql())).fetch_one(db).await
    }

    fn odd_sql(&self) -> String {
        let table = &self.table;
        let odd = match &self.work {
            Work::Reseal { column, .. } => format!(
                "t.{column} is not null
                    and (length(t.{column}) < {SHORTEST}
                        or substring(t.{column} from 1 for 2) not in ('\\x0101', '\\x0201'))"
            ),
            Work::Reindex { mark, from, .. } => {
                let (sealed, index) = (&from.column, &mark.column);
                let version = mark.version.as_deref().map_or_else(
                    || format!("length(t.{index}) = 18"),
                    |version| format!("length(t.{index}) = 16 and t.{version} > 0"),
                );
                format!("(t.{sealed} is not null) is distinct from coalesce({version}, false)")
            }
            Work::Count { .. } => "false".to_owned(),
        };
        format!("select count(*) from (select from {table} t where {odd} limit 1000) odd")
    }

    /// Rows that refer to a key: to the one of this number, or of an index to this version of the business's.
    pub(super) async fn count(&self, db: &mut PgConnection, business: Uuid, number: &[u8]) -> sqlx::Result<i64> {
        sqlx::query_scalar(AssertSqlSafe(self.count_sql())).bind(number).bind(business).fetch_one(db).await
    }

    /// How many rows the planner takes the table to have.
    pub(super) async fn estimate(&self, db: &mut PgConnection) -> sqlx::Result<i64> {
        sqlx::query_scalar(
            "select greatest(c.reltuples, 0)::bigint from pg_class c where c.oid = to_regclass($1::text)",
        )
        .bind(&self.table)
        .fetch_optional(db)
        .await
        .map(Option::unwrap_or_default)
    }
}

/// All statements on a place, for review.
#[cfg(test)]
pub(super) fn statements(place: &Place) -> String {
    let change = place.change_sql().unwrap_or_default();
    let all = [place.name.clone(), place.bound_sql(), place.page_sql(), change, place.count_sql(), place.odd_sql()];
    all.join("\n\n")
}
