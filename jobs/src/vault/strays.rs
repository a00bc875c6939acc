//! Columns of frontends that values were sealed for and that nobody registered: no walk meets those values, so the keys
//! that sealed them are kept until somebody registers the column, or says that it is gone.

use chrono::{DateTime, SubsecRound, Utc};
use sqlx::PgConnection;

use super::{Class, Error, IndexColumn, Vault};
use crate::people::BusinessId;

/// A column that nobody registered.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Stray {
    /// Handle of the business; none: the installation's own.
    pub business: Option<String>,
    /// `schema.table.column`
    pub column: String,
    /// What kind of values.
    pub class: String,
    /// When the first of them was sealed.
    pub first_at: DateTime<Utc>,
}

impl Vault {
    /// Notes where values are about to stand, unless the column is registered: their keys are then kept. Call it, and
    /// commit, before a value is handed to somebody who stores it where no walk of ours comes by.
    ///
    /// # Errors
    /// The database fails.
    pub async fn note_stray(&self, db: &mut PgConnection, column: &IndexColumn<'_>, class: Class) -> Result<(), Error> {
        sqlx::query!(
            "insert into muneem.vault_strays (business_id, table_name, column_name, class, first_at)
            select $1, $2, $3, $4, $5
            where not exists (
                select
                from muneem.vault_columns c
                where c.business_id = $1
                    and c.table_schema || '.' || c.table_name = $2
                    and c.column_name = $3)
            on conflict do nothing",
            column.business_id.0,
            column.table,
            column.column,
            class.as_str(),
            self.clock.now().trunc_subsecs(6),
        )
        .execute(db)
        .await?;
        Ok(())
    }
}

/// Forgets a column, registered meanwhile or gone; says of which class it was.
pub(super) async fn forget(db: &mut PgConnection, business: BusinessId, name: &str) -> Result<Option<String>, Error> {
    Ok(sqlx::query_scalar!(
        "delete from muneem.vault_strays
        where business_id = $1
            and table_name || '.' || column_name = $2
        returning class",
        business.0,
        name,
    )
    .fetch_all(db)
    .await?
    .pop())
}

/// Columns that nobody registered, of one business or of all.
pub(super) async fn list(db: &mut PgConnection, business: Option<BusinessId>) -> Result<Vec<Stray>, Error> {
    Ok(sqlx::query_as!(
        Stray,
        r#"select b.handle as "business?", s.table_name || '.' || s.column_name as "column!", s.class, s.first_at
        from muneem.vault_strays s
        left join muneem.people_businesses b on b.business_id = s.business_id
        where ($1::uuid is null or s.business_id = $1)
            and not exists (
                select
                from muneem.vault_columns c
                where c.business_id = s.business_id
                    and c.table_schema || '.' || c.table_name = s.table_name
                    and c.column_name = s.column_name)
        order by s.first_at, s.table_name, s.column_name, s.class"#,
        business.map(|business| business.0),
    )
    .fetch_all(db)
    .await?)
}
