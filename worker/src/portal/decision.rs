//! One decision of somebody outside.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use axum::{
    Form,
    extract::{Path, State},
    http::{StatusCode, header::RETRY_AFTER},
    response::{Html, IntoResponse, Response},
};
use chrono_tz::Asia::Kolkata;
use handlebars::Handlebars;
use muneem_jobs::{
    messaging,
    people::{
        Authority, Decision,
        approval::{self, Followed, Line, PlanHash, Shown, State as Stands, Verdict},
        links::{self, Entered, Purpose},
    },
};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use sqlx::Connection;

use super::{
    Portal,
    words::{self, Words},
};

static ENGINE: LazyLock<Handlebars<'static>> = LazyLock::new(|| {
    let mut engine = Handlebars::new();
    engine.set_strict_mode(true);
    engine
        .register_template_string("decision", include_str!("../../../templates/people/page/decision.html.hbs"))
        .expect("a test draws every page");
    engine
});

/// One drawing of the page: of `start`, `code` and `shown` at most one.
#[derive(Serialize)]
pub(super) struct Page<'a> {
    language: &'static str,
    words: &'static Words,
    title: &'a str,
    secret: &'a str,
    notice: Option<&'a str>,
    start: bool,
    code: bool,
    shown: Option<Question<'a>>,
    leave: bool,
}

/// What she decides on.
#[derive(Serialize)]
struct Question<'a> {
    business: String,
    kind: &'a str,
    summary: Vec<Line>,
    short: String,
    plan: String,
    until: String,
    proof: &'a str,
}

/// Why a page goes no further.
pub(super) enum Turned {
    /// The link, or the decision behind it, is gone: nobody is told which.
    Gone,
    /// Something failed inside.
    Broken,
}

impl From<links::Error> for Turned {
    fn from(error: links::Error) -> Self {
        match error {
            links::Error::NoSuchLink => Self::Gone,
            error => {
                tracing::error!(error = &error as &dyn std::error::Error, "a page for somebody outside failed");
                Self::Broken
            }
        }
    }
}

impl From<approval::Error> for Turned {
    fn from(error: approval::Error) -> Self {
        match error {
            approval::Error::NoSuchApproval(_) | approval::Error::NotOpen(_) => Self::Gone,
            approval::Error::Link(error) => error.into(),
            error => {
                tracing::error!(error = &error as &dyn std::error::Error, "a page for somebody outside failed");
                Self::Broken
            }
        }
    }
}

impl From<messaging::Error> for Turned {
    fn from(error: messaging::Error) -> Self {
        tracing::error!(error = &error as &dyn std::error::Error, "somebody could not leave");
        Self::Broken
    }
}

impl From<sqlx::Error> for Turned {
    fn from(error: sqlx::Error) -> Self {
        links::Error::from(error).into()
    }
}

impl IntoResponse for Turned {
    fn into_response(self) -> Response {
        // Whose language it is went with the link.
        let (_, english) = words::of("en");
        let (status, title, notice) = match self {
            Self::Gone => (StatusCode::NOT_FOUND, &english.gone_title, &english.gone),
            Self::Broken => (StatusCode::SERVICE_UNAVAILABLE, &english.title, &english.broken),
        };
        let mut page = Page::new("en", "");
        page.title = title;
        page.notice = Some(notice);
        page.draw(status)
    }
}

impl<'a> Page<'a> {
    fn new(language: &str, secret: &'a str) -> Self {
        let (language, words) = words::of(language);
        Self {
            language,
            words,
            title: &words.title,
            secret,
            notice: None,
            start: false,
            code: false,
            shown: None,
            leave: false,
        }
    }

    /// The page by which somebody leaves; `left` says that she has, and whether everything.
    pub(super) fn leaving(language: &str, secret: &'a str, left: Option<bool>) -> Self {
        let mut page = Self::new(language, secret);
        page.title = &page.words.leave_title;
        page.leave = left.is_none();
        page.notice =
            left.map(|everything| if everything { page.words.left_all.as_str() } else { page.words.left.as_str() });
        page
    }

    pub(super) fn draw(&self, status: StatusCode) -> Response {
        match ENGINE.render("decision", self) {
            Ok(html) => (status, Html(html)).into_response(),
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the page of a decision cannot be drawn");
                (StatusCode::INTERNAL_SERVER_ERROR, Html(String::new())).into_response()
            }
        }
    }
}

/// Too many links were tried from one address.
pub(super) fn too_often(wait: Duration) -> Response {
    let (_, english) = words::of("en");
    let mut page = Page::new("en", "");
    page.notice = Some(&english.too_often);
    let seconds = wait.as_secs().saturating_add(1).to_string();
    ([(RETRY_AFTER, seconds)], page.draw(StatusCode::TOO_MANY_REQUESTS)).into_response()
}

/// `GET /r/{secret}`
pub(super) async fn start(State(portal): State<Arc<Portal>>, Path(secret): Path<String>) -> Result<Response, Turned> {
    let mut db = portal.db.acquire().await?;
    let link = links::find(&mut db, &secret, Purpose::Approval, portal.clock.now()).await?;
    Ok(Page { start: true, ..Page::new(&link.language, &secret) }.draw(StatusCode::OK))
}

/// `POST /r/{secret}/code`
pub(super) async fn code(State(portal): State<Arc<Portal>>, Path(secret): Path<String>) -> Result<Response, Turned> {
    let mut db = portal.db.acquire().await?;
    let (now, at) = (portal.clock.now(), (secret.as_str(), Purpose::Approval));
    match links::make_code(&mut db, &portal.vault, at, now, &*portal.chance).await {
        Ok(link) => Ok(Page { code: true, ..Page::new(&link.language, &secret) }.draw(StatusCode::OK)),
        Err(links::Error::TooManyCodes) => {
            let link = links::find(&mut db, &secret, Purpose::Approval, now).await?;
            let mut page = Page::new(&link.language, &secret);
            page.notice = Some(&page.words.codes_over);
            Ok(page.draw(StatusCode::TOO_MANY_REQUESTS))
        }
        Err(error) => Err(error.into()),
    }
}

/// The form with the code.
#[derive(Deserialize)]
pub(super) struct Code {
    code: String,
}

/// `POST /r/{secret}/open`
pub(super) async fn open(
    State(portal): State<Arc<Portal>>,
    Path(secret): Path<String>,
    Form(form): Form<Code>,
) -> Result<Response, Turned> {
    let mut db = portal.db.acquire().await?;
    let (now, at) = (portal.clock.now(), (secret.as_str(), Purpose::Approval));
    let link = links::find(&mut db, &secret, Purpose::Approval, now).await?;
    let mut page = Page::new(&link.language, &secret);
    match links::enter_code(&mut db, at, &form.code, now, &*portal.chance).await? {
        Entered::Right(proof) => question(&portal, &mut db, page, proof.expose_secret()).await,
        Entered::Wrong { tries_left } => {
            page.code = tries_left > 0;
            page.start = tries_left == 0;
            page.notice = Some(if page.code { &page.words.code_wrong } else { &page.words.code_void });
            Ok(page.draw(StatusCode::UNPROCESSABLE_ENTITY))
        }
        Entered::Void => {
            page.start = true;
            page.notice = Some(&page.words.code_void);
            Ok(page.draw(StatusCode::UNPROCESSABLE_ENTITY))
        }
    }
}

/// Shows what she decides on, once it is on record that she looked.
async fn question(
    portal: &Portal,
    db: &mut sqlx::PgConnection,
    mut page: Page<'_>,
    proof: &str,
) -> Result<Response, Turned> {
    let by = Authority::operator();
    let decision = Decision { by: &by, now: portal.clock.now(), chance: &*portal.chance };
    let mut tx = db.begin().await?;
    let followed = Followed { secret: page.secret, proof };
    let shown = approval::show_outside(&mut tx, &portal.vault, followed, &decision).await?;
    tx.commit().await?;
    let Shown { business, kind, summary, plan_sha256, expires_at } = shown;
    let status = if page.notice.is_some() { StatusCode::CONFLICT } else { StatusCode::OK };
    let page = Page {
        shown: Some(Question {
            business,
            kind: page.words.kinds.get(kind.as_str()).map_or(kind.words(), String::as_str),
            summary,
            short: plan_sha256.short(),
            plan: plan_sha256.to_string(),
            until: expires_at.with_timezone(&Kolkata).format("%d-%m-%Y %H:%M IST").to_string(),
            proof,
        }),
        notice: page.notice.take(),
        ..page
    };
    Ok(page.draw(status))
}

/// The form with her decision.
#[derive(Deserialize)]
pub(super) struct Decided {
    proof: String,
    plan: String,
    verdict: String,
}

/// `POST /r/{secret}/decide`
pub(super) async fn decide(
    State(portal): State<Arc<Portal>>,
    Path(secret): Path<String>,
    Form(form): Form<Decided>,
) -> Result<Response, Turned> {
    let mut db = portal.db.acquire().await?;
    let now = portal.clock.now();
    let link = links::find(&mut db, &secret, Purpose::Approval, now).await?;
    let mut page = Page::new(&link.language, &secret);
    let verdict = match form.verdict.as_str() {
        "approve" => Verdict::Approve,
        "deny" => Verdict::Deny,
        _ => return Err(Turned::Gone),
    };
    let seen: PlanHash = form.plan.parse().map_err(|_| Turned::Gone)?;
    let by = Authority::operator();
    let decision = Decision { by: &by, now, chance: &*portal.chance };
    let followed = Followed { secret: &secret, proof: &form.proof };
    let mut tx = db.begin().await?;
    match approval::decide_outside(&mut tx, &portal.vault, followed, &seen, verdict, &decision).await {
        Ok(approval) => {
            tx.commit().await?;
            let denied = approval.state == Stands::Denied;
            page.notice = Some(if denied { &page.words.denied } else { &page.words.approved });
            Ok(page.draw(StatusCode::OK))
        }
        Err(approval::Error::PlanChanged) => {
            tx.rollback().await?;
            page.notice = Some(&page.words.show_changed);
            question(&portal, &mut db, page, &form.proof).await
        }
        Err(approval::Error::Link(links::Error::NotProved)) => {
            page.start = true;
            page.notice = Some(&page.words.code_void);
            Ok(page.draw(StatusCode::FORBIDDEN))
        }
        Err(approval::Error::SecondPersonNeeded | approval::Error::SamePerson | approval::Error::AlreadyVoted) => {
            page.notice = Some(&page.words.refused);
            Ok(page.draw(StatusCode::FORBIDDEN))
        }
        Err(error) => Err(error.into()),
    }
}
