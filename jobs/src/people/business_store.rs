use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{BusinessId, Error};

/// A row of `muneem.people_businesses`.
pub(super) struct ProfileRow {
    pub(super) handle: String,
    pub(super) legal_name: String,
    pub(super) gstin_sealed: Option<Vec<u8>>,
    pub(super) gstin_index: Option<Vec<u8>>,
    pub(super) gstin_index_version: Option<i32>,
    pub(super) language: String,
    pub(super) contact_name_sealed: Option<Vec<u8>>,
    pub(super) contact_phone_sealed: Option<Vec<u8>>,
    pub(super) contact_phone_index: Option<Vec<u8>>,
    pub(super) contact_phone_index_version: Option<i32>,
    pub(super) contact_email_sealed: Option<Vec<u8>>,
    pub(super) contact_email_index: Option<Vec<u8>>,
    pub(super) contact_email_index_version: Option<i32>,
    pub(super) whatsapp_account_id: Option<String>,
    pub(super) mail_from_sealed: Option<Vec<u8>>,
    pub(super) plan: String,
    pub(super) second_factor_wanted: bool,
    pub(super) created_at: DateTime<Utc>,
}

pub(super) async fn find_profile(db: &mut PgConnection, business: BusinessId) -> Result<Option<ProfileRow>, Error> {
    Ok(sqlx::query_as!(
        ProfileRow,
        "select handle, legal_name, gstin_sealed, gstin_index, gstin_index_version, language, contact_name_sealed,
                contact_phone_sealed, contact_phone_index, contact_phone_index_version, contact_email_sealed,
                contact_email_index, contact_email_index_version, whatsapp_account_id, mail_from_sealed, plan,
                second_factor_wanted, created_at
         from muneem.people_businesses
         where business_id = $1",
        business.0,
    )
    .fetch_optional(db)
    .await?)
}

/// Held until the transaction ends.
pub(super) async fn lock_profile(tx: &mut PgConnection, business: BusinessId) -> Result<Option<ProfileRow>, Error> {
    Ok(sqlx::query_as!(
        ProfileRow,
        "select handle, legal_name, gstin_sealed, gstin_index, gstin_index_version, language, contact_name_sealed,
                contact_phone_sealed, contact_phone_index, contact_phone_index_version, contact_email_sealed,
                contact_email_index, contact_email_index_version, whatsapp_account_id, mail_from_sealed, plan,
                second_factor_wanted, created_at
         from muneem.people_businesses
         where business_id = $1
         for no key update",
        business.0,
    )
    .fetch_optional(tx)
    .await?)
}

pub(super) async fn update_profile(tx: &mut PgConnection, business: BusinessId, row: &ProfileRow) -> Result<(), Error> {
    sqlx::query!(
        "update muneem.people_businesses
         set legal_name = $2, gstin_sealed = $3, gstin_index = $4, gstin_index_version = $5, language = $6,
             contact_name_sealed = $7, contact_phone_sealed = $8, contact_phone_index = $9,
             contact_phone_index_version = $10, contact_email_sealed = $11, contact_email_index = $12,
             contact_email_index_version = $13, whatsapp_account_id = $14, mail_from_sealed = $15, plan = $16,
             second_factor_wanted = $17
         where business_id = $1",
        business.0,
        row.legal_name,
        row.gstin_sealed,
        row.gstin_index,
        row.gstin_index_version,
        row.language,
        row.contact_name_sealed,
        row.contact_phone_sealed,
        row.contact_phone_index,
        row.contact_phone_index_version,
        row.contact_email_sealed,
        row.contact_email_index,
        row.contact_email_index_version,
        row.whatsapp_account_id,
        row.mail_from_sealed,
        row.plan,
        row.second_factor_wanted,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn find_by_gstin(db: &mut PgConnection, indexes: &[Vec<u8>]) -> Result<Vec<BusinessId>, Error> {
    Ok(sqlx::query_scalar!(
        r#"select business_id as "business_id: BusinessId"
           from muneem.people_businesses
           where gstin_index = any($1)
           order by created_at, business_id"#,
        indexes,
    )
    .fetch_all(db)
    .await?)
}
