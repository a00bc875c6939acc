use sqlx::PgConnection;
use uuid::Uuid;

use super::{Error, Standing};
use crate::people::BusinessId;

pub(super) async fn find_standing(db: &mut PgConnection, staff: Uuid) -> Result<Option<Standing>, Error> {
    Ok(sqlx::query_as!(
        Standing,
        r#"select coalesce(c.password_hash is not null, false) as "password!",
                  coalesce(c.totp_sealed is not null, false) as "totp!",
                  (select count(*) from muneem.people_passkeys p
                   where p.staff_id = s.staff_id and p.suspect_at is null) as "passkeys!",
                  (select count(*) from muneem.people_recovery_codes r
                   where r.staff_id = s.staff_id and r.used_at is null) as "recovery_codes_left!",
                  coalesce(b.second_factor_wanted, true) as "second_factor_demanded!"
           from muneem.people_staff s
           left join muneem.people_credentials c on c.staff_id = s.staff_id
           left join muneem.people_businesses b on b.business_id = s.business_id
           where s.staff_id = $1 and s.removed_at is null"#,
        staff,
    )
    .fetch_optional(db)
    .await?)
}

pub(super) async fn demand_second_factor(
    db: &mut PgConnection,
    business: BusinessId,
    demanded: bool,
) -> Result<(), Error> {
    sqlx::query!(
        "update muneem.people_businesses set second_factor_wanted = $2 where business_id = $1",
        business.0,
        demanded,
    )
    .execute(db)
    .await?;
    Ok(())
}
