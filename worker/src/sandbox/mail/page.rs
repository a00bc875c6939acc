//! The inbox of everybody, in a browser.

use std::sync::Arc;

use axum::{
    extract::{Query, State},
    http::{StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use chrono_tz::Asia::Kolkata;
use handlebars::Handlebars;
use serde::{Deserialize, Serialize};

use super::{super::Inner, Taken};

const PAGE: &str = include_str!("../../../../templates/sandbox/mail.html.hbs");
const STYLE: &str = include_str!("../../../../templates/sandbox/mail.css");
/// Nothing from elsewhere, no script, no frame.
const POLICY: &str =
    "default-src 'none'; style-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'";
/// Mails shown.
const SHOWN: usize = 200;

#[derive(Deserialize)]
pub(super) struct Which {
    id: Option<u64>,
}

#[derive(Serialize)]
struct Page {
    /// Newest first.
    mails: Vec<Line>,
    open: Option<Open>,
}

#[derive(Serialize)]
struct Line {
    id: u64,
    to: String,
    subject: String,
    time: String,
    open: bool,
}

#[derive(Serialize)]
struct Open {
    from: String,
    to: String,
    subject: String,
    at: String,
    text: String,
    raw: String,
}

/// `GET /sandbox/mail?id=3`
pub(super) async fn mails(State(inner): State<Arc<Inner>>, Query(which): Query<Which>) -> Response {
    let page = {
        let room = inner.mail();
        let open = which.id.and_then(|id| room.mails.iter().find(|mail| mail.id == id)).or_else(|| room.mails.back());
        let opened = open.map(|mail| mail.id);
        Page {
            mails: room.mails.iter().rev().take(SHOWN).map(|mail| line(mail, opened == Some(mail.id))).collect(),
            open: open.map(opened_mail),
        }
    };
    let mut engine = Handlebars::new();
    engine.set_strict_mode(true);
    match engine.render_template(PAGE, &page) {
        Ok(html) => ([(header::CONTENT_SECURITY_POLICY, POLICY), (header::CACHE_CONTROL, "no-store")], Html(html))
            .into_response(),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "the inbox cannot be drawn");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// `GET /sandbox/mail.css`
pub(super) async fn style() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")], STYLE)
}

fn line(mail: &Taken, open: bool) -> Line {
    let received = mail.received_at.with_timezone(&Kolkata);
    Line {
        id: mail.id,
        to: mail.to.join(", "),
        subject: mail.subject.clone(),
        time: received.format("%H:%M").to_string(),
        open,
    }
}

fn opened_mail(mail: &Taken) -> Open {
    Open {
        from: mail.from.clone(),
        to: mail.to.join(", "),
        subject: mail.subject.clone(),
        at: mail.received_at.with_timezone(&Kolkata).format("%-d %B %Y, %H:%M").to_string(),
        text: mail.text.clone(),
        raw: mail.raw.clone(),
    }
}
