//! The page by which somebody leaves what a business sends her by mail.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use muneem_jobs::{
    evidence::By,
    messaging::mail::{self, Leaving},
};
use sqlx::Connection;

use super::{
    Portal,
    decision::{Page, Turned},
};

async fn found(portal: &Portal, token: &str) -> Result<(sqlx::pool::PoolConnection<sqlx::Postgres>, Leaving), Turned> {
    let mut db = portal.db.acquire().await?;
    let leaving = mail::find_leaving(&mut db, token).await?.ok_or(Turned::Gone)?;
    Ok((db, leaving))
}

/// `GET /r/leave/{token}`: two buttons. Scanners of mails follow every link, so that following it does nothing.
pub(super) async fn show(State(portal): State<Arc<Portal>>, Path(token): Path<String>) -> Result<Response, Turned> {
    let (_, leaving) = found(&portal, &token).await?;
    Ok(Page::leaving(leaving.language.as_str(), &token, None).draw(StatusCode::OK))
}

/// `POST /r/leave/{token}`: at once, without a further question. Her mail program sends `List-Unsubscribe=One-Click` in
/// whatever form it likes (RFC 8058 section 3.2), and any body is a no; the page's second button says `extent=all`.
pub(super) async fn leave(
    State(portal): State<Arc<Portal>>,
    Path(token): Path<String>,
    body: Bytes,
) -> Result<Response, Turned> {
    let (mut db, leaving) = found(&portal, &token).await?;
    let everything = body.as_ref() == b"extent=all";
    let by = By::system(portal.clock.now(), &*portal.chance);
    let mut tx = db.begin().await?;
    mail::leave(&mut tx, &portal.vault, leaving, everything, &by).await?;
    tx.commit().await?;
    Ok(Page::leaving(leaving.language.as_str(), &token, Some(everything)).draw(StatusCode::OK))
}
