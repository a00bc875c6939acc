//! Numbers that businesses send from, and the apps behind them.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use crate::{
    messaging::{Account, Error},
    outbound::{Phone, carrier::NumberId},
    people::BusinessId,
};

/// Adds a number, or changes what is known of it. A number never changes hands.
pub(in crate::messaging) async fn upsert_account(
    conn: &mut PgConnection,
    account: &Account,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let changed = sqlx::query!(
        r#"
        insert into muneem.messaging_accounts as known (phone_number_id, business_id, waba_id, display_phone, created_at)
        values ($1, $2, $3, $4, $5)
        on conflict (phone_number_id) do update
        set waba_id = excluded.waba_id, display_phone = excluded.display_phone
        where known.business_id = excluded.business_id
        "#,
        account.number.as_str(),
        account.business.0,
        account.waba_id,
        account.display_phone.as_e164(),
        now,
    )
    .execute(conn)
    .await?
    .rows_affected();
    if changed == 1 { Ok(()) } else { Err(Error::NumberTaken) }
}

/// The numbers of a business, or all when `business` is absent; the first of each is the one it sends from.
pub(in crate::messaging) async fn list_accounts(
    conn: &mut PgConnection,
    business: Option<BusinessId>,
) -> Result<Vec<Account>, Error> {
    let accounts = sqlx::query_as!(
        Account,
        r#"
        select business_id as "business: BusinessId", phone_number_id as "number: NumberId", waba_id,
            display_phone as "display_phone: Phone"
        from muneem.messaging_accounts
        where $1::uuid is null or business_id = $1
        order by business_id, created_at, phone_number_id
        "#,
        business.map(|business| business.0),
    )
    .fetch_all(conn)
    .await?;
    Ok(accounts)
}

/// The number that a business sends from: its first.
pub(in crate::messaging) async fn find_number(
    conn: &mut PgConnection,
    business: BusinessId,
) -> Result<Option<NumberId>, Error> {
    let number = sqlx::query_scalar!(
        r#"
        select phone_number_id as "number: NumberId"
        from muneem.messaging_accounts
        where business_id = $1
        order by created_at, phone_number_id
        limit 1
        "#,
        business.0,
    )
    .fetch_optional(conn)
    .await?;
    Ok(number)
}

/// A number or an account that a webhook may tell of, and whose it is.
pub(in crate::messaging) struct Owned {
    pub(in crate::messaging) number: String,
    pub(in crate::messaging) waba_id: String,
    pub(in crate::messaging) business: BusinessId,
}

/// Which of these numbers belong to whom, and which numbers belong to these accounts.
pub(in crate::messaging) async fn owners_of(
    conn: &mut PgConnection,
    numbers: &[String],
    wabas: &[String],
) -> Result<Vec<Owned>, Error> {
    let owned = sqlx::query_as!(
        Owned,
        r#"
        select phone_number_id as number, waba_id, business_id as "business: BusinessId"
        from muneem.messaging_accounts
        where phone_number_id = any ($1) or waba_id = any ($2)
        "#,
        numbers,
        wabas,
    )
    .fetch_all(conn)
    .await?;
    Ok(owned)
}

/// The app of a number, as it is stored.
pub(in crate::messaging) struct App {
    pub(in crate::messaging) number: NumberId,
    pub(in crate::messaging) api_version: Option<String>,
    pub(in crate::messaging) token: Option<Vec<u8>>,
    pub(in crate::messaging) secrets: Option<Vec<u8>>,
    pub(in crate::messaging) verify_token: Option<Vec<u8>>,
}

/// The apps of a business's numbers.
pub(in crate::messaging) async fn list_apps(conn: &mut PgConnection, business: BusinessId) -> Result<Vec<App>, Error> {
    let apps = sqlx::query_as!(
        App,
        r#"
        select phone_number_id as "number: NumberId", api_version, access_token_sealed as token,
            app_secrets_sealed as secrets, verify_token_sealed as verify_token
        from muneem.messaging_accounts
        where business_id = $1
        order by created_at, phone_number_id
        "#,
        business.0,
    )
    .fetch_all(conn)
    .await?;
    Ok(apps)
}

/// Gives a number an app of its own, or takes it away. Says whether the business has the number.
pub(in crate::messaging) async fn set_app(
    conn: &mut PgConnection,
    business: BusinessId,
    app: &App,
) -> Result<bool, Error> {
    let set = sqlx::query!(
        r#"
        update muneem.messaging_accounts
        set api_version = $3, access_token_sealed = $4, app_secrets_sealed = $5, verify_token_sealed = $6
        where phone_number_id = $1 and business_id = $2
        "#,
        app.number.as_str(),
        business.0,
        app.api_version,
        app.token,
        app.secrets,
        app.verify_token,
    )
    .execute(conn)
    .await?
    .rows_affected();
    Ok(set == 1)
}

/// What the carrier says of a number; what it does not say stays as it is.
#[derive(Clone, Debug, Default)]
pub(in crate::messaging) struct Said<'a> {
    pub(in crate::messaging) quality: Option<&'a str>,
    pub(in crate::messaging) status: Option<&'a str>,
    pub(in crate::messaging) verified_name: Option<&'a str>,
    pub(in crate::messaging) messages_per_second: Option<i32>,
    /// `Some(None)`: no limit.
    pub(in crate::messaging) daily_recipients: Option<Option<i32>>,
}

/// Keeps what the carrier said of a number.
pub(in crate::messaging) async fn note_said(
    conn: &mut PgConnection,
    number: &str,
    said: &Said<'_>,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!(
        r#"
        update muneem.messaging_accounts
        set quality = coalesce($2, quality),
            number_status = coalesce($3, number_status),
            verified_name = coalesce($4, verified_name),
            messages_per_second = coalesce($5, messages_per_second),
            daily_recipients = case when $6 then $7 else daily_recipients end,
            told_at = $8
        where phone_number_id = $1
        "#,
        number,
        said.quality,
        said.status,
        said.verified_name,
        said.messages_per_second,
        said.daily_recipients.is_some(),
        said.daily_recipients.flatten(),
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}
