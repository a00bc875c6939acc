use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{
    BusinessId, Error, Role, Scope,
    staff::{ContactKind, NewStaff, Staff, StaffId},
};

pub(super) async fn insert_staff(db: &mut PgConnection, new: &NewStaff, now: DateTime<Utc>) -> Result<(), Error> {
    let (phone, email) = (new.phone.as_ref(), new.email.as_ref());
    sqlx::query!(
        "insert into muneem.people_staff
             (staff_id, business_id, name_sealed, language, phone_sealed, phone_index, phone_index_version,
              email_sealed, email_index, email_index_version, created_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        new.staff_id.0,
        new.business_id as Option<BusinessId>,
        new.name,
        new.language,
        phone.map(|contact| contact.sealed.as_slice()),
        phone.map(|contact| contact.index.as_slice()),
        phone.map(|contact| contact.index_version),
        email.map(|contact| contact.sealed.as_slice()),
        email.map(|contact| contact.index.as_slice()),
        email.map(|contact| contact.index_version),
        now,
    )
    .execute(db)
    .await
    .map_err(|error| match error.as_database_error().and_then(|error| error.constraint()) {
        Some("people_staff_phone_key" | "people_staff_email_key") => Error::ContactTaken,
        _ => Error::Database(error),
    })?;
    Ok(())
}

/// A row of `muneem.people_staff` with its roles. A role that this version does not know allows nothing.
struct StaffRow {
    staff_id: StaffId,
    business_id: Option<BusinessId>,
    language: String,
    roles: Vec<String>,
    phone_verified_at: Option<DateTime<Utc>>,
    email_verified_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    removed_at: Option<DateTime<Utc>>,
}

impl From<StaffRow> for Staff {
    fn from(row: StaffRow) -> Self {
        let mut roles: Vec<Role> = row.roles.iter().filter_map(|role| role.parse().ok()).collect();
        roles.sort_unstable();
        Self {
            staff_id: row.staff_id,
            business_id: row.business_id,
            language: row.language,
            roles,
            phone_verified_at: row.phone_verified_at,
            email_verified_at: row.email_verified_at,
            created_at: row.created_at,
            removed_at: row.removed_at,
        }
    }
}

pub(super) async fn find_staff(db: &mut PgConnection, staff_id: StaffId) -> Result<Option<Staff>, Error> {
    let row = sqlx::query_as!(
        StaffRow,
        r#"select s.staff_id as "staff_id: StaffId", s.business_id as "business_id: BusinessId", s.language,
                  array(select r.role from muneem.people_staff_roles r where r.staff_id = s.staff_id) as "roles!",
                  s.phone_verified_at, s.email_verified_at, s.created_at, s.removed_at
           from muneem.people_staff s
           where s.staff_id = $1"#,
        staff_id.0,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(Staff::from))
}

/// What is sealed of somebody; all none once she was removed.
#[derive(Default)]
pub(super) struct SealedStaff {
    pub(super) name: Option<Vec<u8>>,
    pub(super) phone: Option<Vec<u8>>,
    pub(super) email: Option<Vec<u8>>,
}

pub(super) async fn find_sealed(db: &mut PgConnection, staff_id: StaffId) -> Result<SealedStaff, Error> {
    let row = sqlx::query_as!(
        SealedStaff,
        "select name_sealed as name, phone_sealed as phone, email_sealed as email
         from muneem.people_staff
         where staff_id = $1",
        staff_id.0,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.unwrap_or_default())
}

pub(super) async fn find_by_contact(
    db: &mut PgConnection,
    kind: ContactKind,
    index: &[u8],
) -> Result<Vec<Staff>, Error> {
    let (phone, email) = match kind {
        ContactKind::Phone => (Some(index), None),
        ContactKind::Email => (None, Some(index)),
    };
    let rows = sqlx::query_as!(
        StaffRow,
        r#"select s.staff_id as "staff_id: StaffId", s.business_id as "business_id: BusinessId", s.language,
                  array(select r.role from muneem.people_staff_roles r where r.staff_id = s.staff_id) as "roles!",
                  s.phone_verified_at, s.email_verified_at, s.created_at, s.removed_at
           from muneem.people_staff s
           where s.phone_index = $1
               or s.email_index = $2
           order by s.created_at, s.staff_id"#,
        phone,
        email,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(Staff::from).collect())
}

pub(super) async fn list_staff(db: &mut PgConnection, business: Option<BusinessId>) -> Result<Vec<Staff>, Error> {
    let rows = sqlx::query_as!(
        StaffRow,
        r#"select s.staff_id as "staff_id: StaffId", s.business_id as "business_id: BusinessId", s.language,
                  array(select r.role from muneem.people_staff_roles r where r.staff_id = s.staff_id) as "roles!",
                  s.phone_verified_at, s.email_verified_at, s.created_at, s.removed_at
           from muneem.people_staff s
           where s.business_id is not distinct from $1
           order by s.created_at, s.staff_id"#,
        business as Option<BusinessId>,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(Staff::from).collect())
}

/// Waits for whoever acts with a token of hers, and lets nobody past until the transaction ends. Before any row.
pub(super) async fn hold_tokens_of(tx: &mut PgConnection, staff_id: StaffId) -> Result<(), Error> {
    sqlx::query!(r#"select muneem.people_hold_tokens_of($1) as "held!: ()""#, staff_id.0).execute(tx).await?;
    Ok(())
}

/// Whether she is here, held until the transaction ends.
pub(super) async fn lock_staff(tx: &mut PgConnection, staff_id: StaffId) -> Result<bool, Error> {
    let row = sqlx::query_scalar!(
        "select staff_id from muneem.people_staff where staff_id = $1 and removed_at is null for update",
        staff_id.0,
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.is_some())
}

/// Whether she is here; she stays until the transaction ends.
pub(super) async fn share_staff(tx: &mut PgConnection, staff_id: StaffId) -> Result<bool, Error> {
    let row = sqlx::query_scalar!(
        "select staff_id from muneem.people_staff where staff_id = $1 and removed_at is null for share",
        staff_id.0,
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.is_some())
}

/// Owners of a business besides this one. The lock on the business comes first: whoever waited for it counts after the
/// other has decided. Statements see what was committed before they began, so the count is one of its own.
pub(super) async fn count_other_owners(
    tx: &mut PgConnection,
    business: BusinessId,
    besides: StaffId,
) -> Result<i64, Error> {
    sqlx::query!("select business_id from muneem.people_businesses where business_id = $1 for update", business.0)
        .fetch_optional(&mut *tx)
        .await?;
    Ok(sqlx::query_scalar!(
        r#"select count(*) as "owners!"
           from muneem.people_staff s
           join muneem.people_staff_roles r using (staff_id)
           where s.business_id = $1
               and s.removed_at is null
               and r.role = 'owner'
               and s.staff_id <> $2"#,
        business.0,
        besides.0,
    )
    .fetch_one(tx)
    .await?)
}

/// The first grant stays, with whoever made it.
pub(super) async fn insert_role(
    tx: &mut PgConnection,
    staff_id: StaffId,
    role: Role,
    granted_by: &str,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into muneem.people_staff_roles (staff_id, role, granted_at, granted_by)
         values ($1, $2, $3, $4)
         on conflict (staff_id, role) do nothing",
        staff_id.0,
        role.as_str(),
        now,
        granted_by,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn delete_role(tx: &mut PgConnection, staff_id: StaffId, role: Role) -> Result<(), Error> {
    sqlx::query!("delete from muneem.people_staff_roles where staff_id = $1 and role = $2", staff_id.0, role.as_str(),)
        .execute(tx)
        .await?;
    Ok(())
}

pub(super) async fn delete_roles(tx: &mut PgConnection, staff_id: StaffId) -> Result<(), Error> {
    sqlx::query!("delete from muneem.people_staff_roles where staff_id = $1", staff_id.0).execute(tx).await?;
    Ok(())
}

/// Ends her tokens that may do what she may not.
pub(super) async fn revoke_tokens_beyond(
    tx: &mut PgConnection,
    staff_id: StaffId,
    allowed: &[Scope],
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let allowed: Vec<String> = allowed.iter().map(ToString::to_string).collect();
    sqlx::query!(
        "update muneem.people_tokens
         set revoked_at = $3
         where staff_id = $1
             and revoked_at is null
             and not scopes <@ $2",
        staff_id.0,
        &allowed,
        now,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Leaves the id and the instants, and nothing that says who it was.
pub(super) async fn empty_staff(tx: &mut PgConnection, staff_id: StaffId, now: DateTime<Utc>) -> Result<(), Error> {
    sqlx::query!(
        "update muneem.people_staff
         set removed_at = $2, name_sealed = null,
             phone_sealed = null, phone_index = null, phone_index_version = null, phone_verified_at = null,
             phone_proved_at = null, phone_proved_on = null,
             email_sealed = null, email_index = null, email_index_version = null, email_verified_at = null
         where staff_id = $1",
        staff_id.0,
        now,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Number of people so noted: none or one.
pub(super) async fn mark_verified(
    db: &mut PgConnection,
    staff_id: StaffId,
    kind: ContactKind,
    now: DateTime<Utc>,
) -> Result<u64, Error> {
    let phone = kind == ContactKind::Phone;
    let outcome = sqlx::query!(
        "update muneem.people_staff
         set phone_verified_at = case when $2 then $3 else phone_verified_at end,
             email_verified_at = case when $2 then email_verified_at else $3 end
         where staff_id = $1
             and removed_at is null
             and case when $2 then phone_sealed is not null else email_sealed is not null end",
        staff_id.0,
        phone,
        now,
    )
    .execute(db)
    .await?;
    Ok(outcome.rows_affected())
}
