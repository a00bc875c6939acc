use sqlx::PgConnection;

use super::{BusinessId, Error, StaffId};

/// The sealed contact of a row of `muneem.people_staff`.
pub(super) struct ContactRow {
    pub(super) business_id: Option<BusinessId>,
    pub(super) business_name: Option<String>,
    pub(super) language: String,
    pub(super) name_sealed: Vec<u8>,
    pub(super) phone_sealed: Option<Vec<u8>>,
    pub(super) email_sealed: Option<Vec<u8>>,
}

pub(super) async fn find_contact(db: &mut PgConnection, staff_id: StaffId) -> Result<Option<ContactRow>, Error> {
    Ok(sqlx::query_as!(
        ContactRow,
        r#"select s.business_id as "business_id: BusinessId", b.legal_name as "business_name?", s.language,
                  s.name_sealed as "name_sealed!", s.phone_sealed, s.email_sealed
           from muneem.people_staff s
           left join muneem.people_businesses b on b.business_id = s.business_id
           where s.staff_id = $1 and s.removed_at is null"#,
        staff_id.0,
    )
    .fetch_optional(db)
    .await?)
}
