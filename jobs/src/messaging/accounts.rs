//! Numbers that businesses send from, the apps behind them, and how they stand with the carrier.

use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use sqlx::{Connection, PgConnection};
use zeroize::Zeroizing;

use super::{Account, Credentials, Error, sealed, store};
use crate::{
    evidence::{Act, By, Object, words},
    outbound::{
        Sender,
        carrier::{AppAccess, NumberId},
    },
    people::BusinessId,
    vault::Vault,
};

/// Adds the WhatsApp number that a business sends from, or changes what is known of it.
///
/// # Errors
/// [`Error::NumberTaken`] when another business has the number; [`Error::BadWabaId`].
pub async fn set_account(conn: &mut PgConnection, account: &Account, by: &By<'_>) -> Result<(), Error> {
    let waba_id = &account.waba_id;
    if !(1..=32).contains(&waba_id.len()) || !waba_id.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Error::BadWabaId);
    }
    let mut tx = conn.begin().await?;
    store::upsert_account(&mut tx, account, by.now).await?;
    record(&mut tx, words::ACCOUNT_SET, (account.business, &account.number), json!({}), by).await?;
    tx.commit().await?;
    Ok(())
}

/// The app behind a number of a business's own.
#[derive(Clone)]
pub struct NewApp {
    /// Token, secrets and verify token.
    pub credentials: Credentials,
    /// `v25.0`; none: the installation's.
    pub api_version: Option<String>,
}

/// Gives a number an app of its own, or takes it away: then the installation's sends from it. Its secrets are sealed.
///
/// # Errors
/// [`Error::NoSuchNumber`] when the business has no such number; [`Error::BadApp`] names what is wrong with the app.
pub async fn set_app(
    conn: &mut PgConnection,
    vault: &Vault,
    (business, number): (BusinessId, &NumberId),
    app: Option<&NewApp>,
    by: &By<'_>,
) -> Result<(), Error> {
    let mut tx = conn.begin().await?;
    let mut row =
        store::App { number: number.clone(), api_version: None, token: None, secrets: None, verify_token: None };
    if let Some(app) = app {
        check(app)?;
        let credentials = &app.credentials;
        let secrets: Vec<_> = credentials.app_secrets.iter().map(ExposeSecret::expose_secret).collect();
        let secrets = Zeroizing::new(serde_json::to_vec(&secrets).map_err(|_| Error::BadApp("the app secrets"))?);
        let token = credentials.access_token.expose_secret().as_bytes();
        let verify = credentials.verify_token.expose_secret().as_bytes();
        let cell = |column| (business, number, column);
        row.api_version.clone_from(&app.api_version);
        row.token = Some(sealed::seal_secret(&mut tx, vault, cell("access_token_sealed"), token).await?);
        row.secrets = Some(sealed::seal_secret(&mut tx, vault, cell("app_secrets_sealed"), &secrets).await?);
        row.verify_token = Some(sealed::seal_secret(&mut tx, vault, cell("verify_token_sealed"), verify).await?);
    }
    if !store::set_app(&mut tx, business, &row).await? {
        return Err(Error::NoSuchNumber);
    }
    let details = json!({ "own": app.is_some() });
    record(&mut tx, words::APP_SET, (business, number), details, by).await?;
    tx.commit().await?;
    Ok(())
}

fn check(app: &NewApp) -> Result<(), Error> {
    let credentials = &app.credentials;
    let plain = |secret: &SecretString| {
        let text = secret.expose_secret();
        (8..=1024).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
    };
    let version = |text: &String| {
        let parts = text.strip_prefix('v').and_then(|rest| rest.split_once('.'));
        parts.is_some_and(|(major, minor)| {
            let digits =
                |part: &str, most| (1..=most).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
            digits(major, 3) && digits(minor, 2)
        })
    };
    if !plain(&credentials.access_token) {
        return Err(Error::BadApp("the access token"));
    }
    if !(1..=2).contains(&credentials.app_secrets.len()) || !credentials.app_secrets.iter().all(plain) {
        return Err(Error::BadApp("the app secrets (one, or two while one replaces the other)"));
    }
    if !plain(&credentials.verify_token) {
        return Err(Error::BadApp("the verify token"));
    }
    if !app.api_version.as_ref().is_none_or(version) {
        return Err(Error::BadApp("the API version, such as v25.0,"));
    }
    Ok(())
}

async fn record(
    tx: &mut PgConnection,
    word: crate::evidence::Word,
    (business, number): (BusinessId, &NumberId),
    details: serde_json::Value,
    by: &By<'_>,
) -> Result<(), Error> {
    let object = Object { kind: "whatsapp_number", id: number.as_str() };
    Ok(by.record(tx, Act { word, business: Some(business), object, details }).await?)
}

/// The numbers of a business, or of all, oldest first; a business sends from its first.
///
/// # Errors
/// When the database fails.
pub async fn list_accounts(conn: &mut PgConnection, business: Option<BusinessId>) -> Result<Vec<Account>, Error> {
    store::list_accounts(conn, business).await
}

/// A number with what its app shows when it calls.
///
/// # Errors
/// The vault is sealed, or the database fails.
pub(super) async fn sender_of(
    conn: &mut PgConnection,
    vault: &Vault,
    business: BusinessId,
    number: &NumberId,
) -> Result<Sender, Error> {
    let apps = store::list_apps(&mut *conn, business).await?;
    let Some(app) = apps.into_iter().find(|app| app.number == *number) else { return Err(Error::NoSuchNumber) };
    let opened = open(conn, vault, business, &app).await?;
    let access = opened.map(|credentials| {
        Arc::new(AppAccess {
            api_version: app.api_version,
            app_secret: credentials.app_secrets.first().cloned(),
            access_token: credentials.access_token,
        })
    });
    Ok(Sender { number: number.clone(), app: access })
}

/// Secrets and verify tokens of the apps that a business brought itself: what its webhooks are signed with.
///
/// # Errors
/// The vault is sealed, or the database fails.
pub async fn list_credentials(
    conn: &mut PgConnection,
    vault: &Vault,
    business: BusinessId,
) -> Result<Vec<Credentials>, Error> {
    let mut credentials = Vec::new();
    for app in store::list_apps(&mut *conn, business).await? {
        credentials.extend(open(conn, vault, business, &app).await?);
    }
    Ok(credentials)
}

async fn open(
    conn: &mut PgConnection,
    vault: &Vault,
    business: BusinessId,
    app: &store::App,
) -> Result<Option<Credentials>, Error> {
    let (Some(token), Some(secrets), Some(verify)) = (&app.token, &app.secrets, &app.verify_token) else {
        return Ok(None);
    };
    let cell = |column| (business, &app.number, column);
    let token = sealed::open_secret(conn, vault, cell("access_token_sealed"), token).await?;
    let secrets = sealed::open_secret(conn, vault, cell("app_secrets_sealed"), secrets).await?;
    let verify = sealed::open_secret(conn, vault, cell("verify_token_sealed"), verify).await?;
    let text =
        |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map(SecretString::from).map_err(|_| Error::AppUnreadable);
    let app_secrets: Vec<String> = serde_json::from_slice(&secrets).map_err(|_| Error::AppUnreadable)?;
    Ok(Some(Credentials {
        access_token: text(&token)?,
        app_secrets: app_secrets.into_iter().map(SecretString::from).collect(),
        verify_token: text(&verify)?,
    }))
}
