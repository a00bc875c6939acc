//! `muneem messaging health`, `release`, `seen`, `account app`: senders, for whoever has a shell on the machine.

use std::path::{Path, PathBuf};

use anyhow::Context;
use muneem_jobs::{
    messaging::{self, Credentials, NewApp},
    outbound::carrier::NumberId,
    people::{self, BusinessId},
};
use secrecy::SecretString;
use serde_json::json;
use uuid::Uuid;

use super::{
    messaging::instant,
    output::{Output, json_line, text},
};
use crate::app::App;

/// Numbers, what is held, what wants to be seen: a table each, those without a row left out.
pub(super) async fn health(app: &App, business: Option<&str>, output: Output) -> anyhow::Result<()> {
    let mut db = app.deps.db.acquire().await?;
    let asked = match business {
        Some(handle) => Some(people::load_business(&mut db, handle).await?.business_id),
        None => None,
    };
    let handles = people::list_businesses(&mut db).await?;
    let handle = |id: BusinessId| {
        handles.iter().find(|known| known.business_id == id).map(|known| known.handle.clone()).unwrap_or_default()
    };
    let (senders, holds, alerts) = messaging::list_health(&mut db, asked, app.deps.clock.now()).await?;
    if output.is_json() {
        return json_line(&json!({ "senders": senders, "holds": holds, "alerts": alerts }));
    }
    let limit = |people: Option<i32>| people.map_or_else(|| "none known".to_owned(), |people| people.to_string());
    output.table(
        &["business", "number", "state", "quality", "a second", "people in 24 h", "of", "waiting"],
        &senders,
        |sender| {
            vec![
                handle(sender.business_id),
                sender.display_phone.clone(),
                sender.status.clone().unwrap_or_else(|| "not asked yet".to_owned()),
                sender.quality.clone().unwrap_or_default(),
                sender.messages_per_second.to_string(),
                sender.reached.to_string(),
                limit(sender.daily_recipients),
                sender.queued.to_string(),
            ]
        },
    )?;
    if !holds.is_empty() {
        text("\n")?;
        output.table(&["hold", "business", "holds", "because", "since", "until"], &holds, |hold| {
            let because = hold.meaning.map(str::to_owned).or(hold.told.clone()).unwrap_or_default();
            let covers = if hold.covers == "all" { String::new() } else { format!(" ({})", hold.covers) };
            vec![
                hold.hold_id.to_string(),
                handle(hold.business_id),
                format!("{} {}{covers}", hold.scope, hold.key),
                because,
                instant(hold.since),
                instant(hold.until),
            ]
        })?;
    }
    if !alerts.is_empty() {
        text("\n")?;
        output.table(&["alert", "business", "severity", "about", "says", "at"], &alerts, |alert| {
            let says = [alert.event.as_str(), alert.details.as_str()];
            let says = says.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ");
            vec![
                alert.alert_id.to_string(),
                handle(alert.business_id),
                alert.severity.clone(),
                alert.about.clone(),
                says,
                instant(alert.at),
            ]
        })?;
    }
    Ok(())
}

pub(super) async fn release(app: &App, id: Uuid) -> anyhow::Result<()> {
    let mut db = app.deps.db.acquire().await?;
    let (_, holds, _) = messaging::list_health(&mut db, None, app.deps.clock.now()).await?;
    let hold = holds.into_iter().find(|hold| hold.hold_id == id);
    let hold = hold.with_context(|| format!("there is no hold {id}: `muneem messaging health` lists them"))?;
    messaging::release_hold(&mut db, hold.business_id, id, &app.operator()).await?;
    text(&format!("released: {} {}\n", hold.scope, hold.key))
}

pub(super) async fn seen(app: &App, id: Uuid) -> anyhow::Result<()> {
    let mut db = app.deps.db.acquire().await?;
    let (_, _, alerts) = messaging::list_health(&mut db, None, app.deps.clock.now()).await?;
    let alert = alerts.into_iter().find(|alert| alert.alert_id == id);
    let alert = alert.with_context(|| format!("there is no alert {id}: `muneem messaging health` lists them"))?;
    messaging::end_alert(&mut db, alert.business_id, id, &app.operator()).await?;
    text(&format!("put away: {} about {}\n", alert.event, alert.about))
}

/// Where the secrets of an app are read from; none: the app is taken away.
pub(super) struct AppFiles {
    pub(super) token_file: Option<PathBuf>,
    pub(super) secrets_file: Option<PathBuf>,
    pub(super) verify_token_file: Option<PathBuf>,
    pub(super) api_version: Option<String>,
}

pub(super) async fn set_app(
    app: &App,
    (business, number): (&str, &str),
    files: &AppFiles,
    output: Output,
) -> anyhow::Result<()> {
    let number = NumberId::parse(number).map_err(|mend| anyhow::anyhow!("--phone-number-id: {mend}"))?;
    let mut db = app.deps.db.acquire().await?;
    let business_id = people::load_business(&mut db, business).await?.business_id;
    let new = match (&files.token_file, &files.secrets_file, &files.verify_token_file) {
        (Some(token), Some(secrets), Some(verify)) => Some(NewApp {
            credentials: Credentials {
                access_token: one_line(token)?,
                app_secrets: lines(secrets)?,
                verify_token: one_line(verify)?,
            },
            api_version: files.api_version.clone(),
        }),
        _ => None,
    };
    let by = app.operator();
    messaging::set_app(&mut db, &app.deps.vault, (business_id, &number), new.as_ref(), &by).await?;
    let said = match new {
        Some(_) => {
            format!("{business} sends with an app of its own; its webhooks come to /webhooks/whatsapp/{business}")
        }
        None => format!("{business} sends with the installation's app"),
    };
    output.done(&json!({ "phone_number_id": number.as_str(), "own_app": new.is_some() }), &said)
}

fn lines(path: &Path) -> anyhow::Result<Vec<SecretString>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(|line| line.to_owned().into()).collect())
}

fn one_line(path: &Path) -> anyhow::Result<SecretString> {
    match <[SecretString; 1]>::try_from(lines(path)?) {
        Ok([secret]) => Ok(secret),
        Err(_) => anyhow::bail!("{} is to hold one line", path.display()),
    }
}
