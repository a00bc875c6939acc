//! Tokens that programs speak with: seen, made, shown this once, ended.
//!
//! The secret goes from the answer that made it to the page that shows it in a cookie that our vault sealed for this one
//! session, and is gone with that page: neither an address nor a reload brings it back, and two minutes later nothing
//! does. Where it cannot be sealed, no token is made.

use std::sync::Arc;

use axum::{
    Form,
    extract::{Path, Query, State},
    http::HeaderMap,
    response::{IntoResponse, Redirect, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use chrono::{DateTime, TimeDelta, Utc};
use muneem_jobs::{
    people::{
        self, Authority, BusinessId, Decision, NewToken, Scope, StaffId, Token, Tokens, create_token_by,
        find_business_by_id, list_businesses, list_staff, list_tokens_by, load_token_by, read_network, revoke_token_by,
    },
    vault::{self, Cell, Class, INSTALLATION},
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sqlx::{Connection, PgConnection};

use super::{
    Console,
    cookies::Crumb,
    enter,
    guard::{SignedIn, StepUp, Turned, may_not, sentence},
    names::{Names, shown},
    pages::{Page, draw, draw_again},
};

const HERE: &str = "/console/tokens";
/// What is offered for a life, in days; nothing: no end.
const LIVES: [(&str, &str, Option<i64>); 4] = [
    ("30", "30 days", Some(30)),
    ("90", "90 days", Some(90)),
    ("365", "A year", Some(365)),
    ("none", "It does not end by itself", None),
];
/// Tokens of one kind on a page.
const PAGE: u16 = 20;
/// Taken unless somebody says otherwise.
const USUAL_LIFE: &str = "90";

#[derive(Serialize)]
struct TokensPage {
    /// Whether she may make and end tokens.
    decides: bool,
    /// Absent on a page of older tokens of the other kind.
    usable: Option<Part>,
    ended: Option<Part>,
}

/// Tokens of one kind, and after which there are more.
#[derive(Serialize)]
struct Part {
    rows: Vec<Row>,
    /// Public id to go on after.
    before: Option<String>,
}

/// One page of the tokens that are usable, or of those that ended; nothing: the first of both.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Older {
    usable: Option<String>,
    ended: Option<String>,
}

#[derive(Serialize)]
struct Row {
    id: String,
    name: String,
    /// `in use`, `revoked`, `ended by itself`.
    state: &'static str,
    /// It stood in a URL, where logs keep it.
    exposed: Option<String>,
    /// Whose it is, for staff of the platform.
    business: Option<String>,
    holder: String,
    may: Vec<&'static str>,
    networks: Vec<String>,
    made: String,
    expires: Option<String>,
    used: Option<String>,
    is_hers_to_end: bool,
}

/// `GET /console/tokens`
pub(super) async fn show(
    State(console): State<Arc<Console>>,
    who: SignedIn,
    Query(older): Query<Older>,
) -> Result<Response, Turned> {
    let mut db = console.db.acquire().await?;
    let by = Authority::of_staff(&who.staff);
    by.require(Scope::TokenRead).map_err(may_not)?;
    let mut names = Names::new(&console, &who);
    let (usable, ended) = match (older.usable.as_deref(), older.ended.as_deref()) {
        (None, None) => (
            Some(part(&mut names, &mut db, (true, None)).await?),
            Some(part(&mut names, &mut db, (false, None)).await?),
        ),
        (Some(before), _) => (Some(part(&mut names, &mut db, (true, Some(before))).await?), None),
        (None, Some(before)) => (None, Some(part(&mut names, &mut db, (false, Some(before))).await?)),
    };
    names.told(&mut db).await?;
    let body = TokensPage { decides: by.require(Scope::TokenWrite).is_ok(), usable, ended };
    Ok(draw("tokens", &Page { title: "Tokens", inside: true, script: false, body }))
}

/// Tokens that open something, or not, older than the one with the public id `before`.
async fn part(
    names: &mut Names<'_>,
    db: &mut PgConnection,
    (usable, before): (bool, Option<&str>),
) -> Result<Part, Turned> {
    let by = Authority::of_staff(&names.who.staff);
    let asked =
        Tokens { business: names.who.staff.business_id, usable: Some(usable), now: names.console.clock.now(), before };
    let mut found = list_tokens_by(db, &asked, PAGE + 1, &by).await.map_err(may_not)?;
    let goes_on = found.len() > usize::from(PAGE);
    found.truncate(PAGE.into());
    let mut rows = Vec::with_capacity(found.len());
    for token in &found {
        rows.push(row(names, db, &by, token).await?);
    }
    Ok(Part { before: found.last().filter(|_| goes_on).map(|token| token.public_id.clone()), rows })
}

async fn row(names: &mut Names<'_>, db: &mut PgConnection, by: &Authority, token: &Token) -> Result<Row, Turned> {
    let who = names.who;
    let state = match (token.is_usable(names.console.clock.now()), token.revoked_at) {
        (true, _) => "in use",
        (false, Some(_)) => "revoked",
        (false, None) => "ended by itself",
    };
    let business = match (who.staff.business_id, token.business_id) {
        (Some(_), _) => None,
        (None, Some(id)) => find_business_by_id(db, id).await?.map(|business| business.legal_name),
        (None, None) => Some("All businesses".to_owned()),
    };
    let holder = match (token.support_grant_id, token.staff_id) {
        (Some(_), _) => "Support, while it is let in".to_owned(),
        (None, Some(staff)) if staff == who.staff.staff_id => "You".to_owned(),
        (None, Some(staff)) if by.require(Scope::StaffWrite).is_ok() => names.of(db, staff).await?,
        (None, Some(staff)) => format!("Staff {staff}"),
        (None, None) => "A program".to_owned(),
    };
    Ok(Row {
        id: token.public_id.clone(),
        name: token.label.clone(),
        state,
        exposed: token.exposed_at.map(shown),
        business,
        holder,
        may: token.scopes.iter().map(|scope| scope.words()).collect(),
        networks: token.networks.iter().map(ToString::to_string).collect(),
        made: shown(token.created_at),
        expires: token.expires_at.map(shown),
        used: token.last_used_at.map(shown),
        is_hers_to_end: by.require(Scope::TokenWrite).is_ok() && by.covers(&token.scopes).is_ok(),
    })
}

#[derive(Serialize)]
struct NewPage {
    problem: Option<String>,
    name: String,
    networks: String,
    groups: Vec<Group>,
    lives: Vec<Choice>,
    holders: Vec<Choice>,
    /// Only for staff of the platform.
    businesses: Vec<Choice>,
}

/// Scopes of one resource.
#[derive(Serialize)]
struct Group {
    name: String,
    scopes: Vec<Choice>,
}

#[derive(Serialize)]
struct Choice {
    value: String,
    words: String,
    chosen: bool,
}

/// What was typed into the form.
#[derive(Default)]
struct Typed {
    name: String,
    networks: String,
    scopes: Vec<String>,
    life: String,
    holder: String,
    business: String,
}

impl Typed {
    /// A box that is ticked is a pair of its own, so that the form is read as pairs.
    fn read(pairs: Vec<(String, String)>) -> Result<Self, Turned> {
        let mut typed = Self::default();
        for (field, value) in pairs {
            match field.as_str() {
                "name" => typed.name = value,
                "networks" => typed.networks = value,
                "scope" => typed.scopes.push(value),
                "life" => typed.life = value,
                "holder" => typed.holder = value,
                "business" => typed.business = value,
                _ => return Err(Turned::NotOurs("the form holds a field that it does not have here")),
            }
        }
        Ok(typed)
    }

    /// What the token is made from, or what is wrong with the form.
    fn checked(&self, who: &SignedIn, now: DateTime<Utc>) -> Result<NewToken, String> {
        let scopes = self.scopes.iter().map(|scope| scope.parse()).collect::<Result<Vec<Scope>, _>>();
        let lines = self.networks.split([',', '\n', '\r', ' ', '\t']).filter(|text| !text.is_empty());
        let networks = lines.map(read_network).collect::<Result<Vec<_>, _>>().map_err(|error| sentence(&error))?;
        let life = LIVES.iter().find(|(value, ..)| *value == self.life).ok_or("Choose when the token ends.")?;
        let holder: Option<StaffId> = match self.holder.as_str() {
            "" => None,
            id => Some(id.parse().map_err(|_| "Choose who holds the token.")?),
        };
        let business: Option<BusinessId> = match (who.staff.business_id, self.business.as_str()) {
            (Some(own), _) => Some(own),
            (None, "") => None,
            (None, id) => Some(BusinessId(id.parse().map_err(|_| "Choose a business.")?)),
        };
        Ok(NewToken {
            label: self.name.clone(),
            business_id: business,
            staff_id: holder,
            scopes: scopes.map_err(|_| "Choose what the token may do from the list.")?,
            networks,
            expires_at: life.2.map(|days| now + TimeDelta::days(days)),
        })
    }
}

/// `GET /console/tokens/new`
pub(super) async fn ask(State(console): State<Arc<Console>>, StepUp(who): StepUp) -> Result<Response, Turned> {
    let mut db = console.db.acquire().await?;
    let typed = Typed { life: USUAL_LIFE.to_owned(), ..Typed::default() };
    Ok(draw("token_new", &form(&console, &mut db, &who, &typed, None).await?))
}

async fn form(
    console: &Console,
    db: &mut PgConnection,
    who: &SignedIn,
    typed: &Typed,
    problem: Option<String>,
) -> Result<Page<NewPage>, Turned> {
    let by = Authority::of_staff(&who.staff);
    by.require(Scope::TokenWrite).map_err(may_not)?;
    let mut groups: Vec<Group> = Vec::new();
    for scope in Scope::ALL.iter().copied().filter(|scope| !scope.is_for_people_alone() && by.require(*scope).is_ok()) {
        let value = scope.to_string();
        let choice = Choice { chosen: typed.scopes.contains(&value), words: scope.words().to_owned(), value };
        match groups.last_mut().filter(|group| group.name == scope.resource()) {
            Some(group) => group.scopes.push(choice),
            None => groups.push(Group { name: scope.resource().to_owned(), scopes: vec![choice] }),
        }
    }
    let lives = LIVES.iter().map(|(value, words, _)| Choice {
        value: (*value).to_owned(),
        words: (*words).to_owned(),
        chosen: typed.life == *value,
    });
    let (mut names, mut holders) = (Names::new(console, who), Vec::new());
    if let Some(business) = who.staff.business_id {
        for staff in list_staff(db, Some(business), &by).await.map_err(may_not)? {
            if staff.removed_at.is_none() {
                let value = staff.staff_id.to_string();
                let words = names.of(db, staff.staff_id).await?;
                holders.push(Choice { chosen: typed.holder == value, words, value });
            }
        }
    }
    names.told(db).await?;
    let mut businesses = Vec::new();
    if who.staff.business_id.is_none() {
        for business in list_businesses(db).await? {
            let value = business.business_id.to_string();
            businesses.push(Choice { chosen: typed.business == value, words: business.legal_name, value });
        }
    }
    let body = NewPage {
        problem,
        name: typed.name.clone(),
        networks: typed.networks.clone(),
        groups,
        lives: lives.collect(),
        holders,
        businesses,
    };
    Ok(Page { title: "A new token", inside: true, script: false, body })
}

/// `POST /console/tokens`: makes it and leads to the page that shows it.
pub(super) async fn make(
    State(console): State<Arc<Console>>,
    StepUp(who): StepUp,
    Form(pairs): Form<Vec<(String, String)>>,
) -> Result<Response, Turned> {
    let typed = Typed::read(pairs)?;
    let mut db = console.db.acquire().await?;
    let by = Authority::of_staff(&who.staff);
    by.require(Scope::TokenWrite).map_err(may_not)?;
    let problem = match typed.checked(&who, console.clock.now()) {
        Err(problem) => problem,
        Ok(new) => {
            let mut tx = db.begin().await?;
            match create_token_by(&mut tx, new, &by, &*console.clock, &*console.chance).await {
                Ok((_, bearer)) => {
                    let answer = handed(&console, &mut tx, &who, &bearer).await?;
                    tx.commit().await?;
                    return Ok(answer);
                }
                Err(
                    error @ (people::Error::BadLabel
                    | people::Error::NoScopes
                    | people::Error::TooManyNetworks
                    | people::Error::BeyondHolder(_)),
                ) => {
                    tx.rollback().await?;
                    sentence(&error)
                }
                Err(error) => return Err(may_not(error)),
            }
        }
    };
    Ok(draw_again("token_new", &form(&console, &mut db, &who, &typed, Some(problem)).await?))
}

/// Where the secret stands between two pages: in the cookie of one session, and in no table.
fn cell<'a>(who: &SignedIn, session: &'a str) -> Cell<'a> {
    let business_id = who.staff.business_id.unwrap_or(INSTALLATION);
    Cell { business_id, table: "muneem.people_tokens", column: "shown_once", row: session }
}

/// How long a secret waits for the page that shows it.
const SHOWN_WITHIN: TimeDelta = TimeDelta::minutes(2);

/// Seals the secret with the instant, in the transaction that makes the token.
async fn handed(
    console: &Console,
    tx: &mut PgConnection,
    who: &SignedIn,
    bearer: &SecretString,
) -> Result<Response, Turned> {
    let session = who.session.session_id.to_string();
    let plain = SecretString::from(format!("{} {}", console.clock.now().timestamp(), bearer.expose_secret()));
    let plain = plain.expose_secret().as_bytes();
    let sealed = console.vault.seal(tx, Class::Credential, &cell(who, &session), plain).await?;
    let mut response = Redirect::to("/console/tokens/made").into_response();
    enter::add(&mut response, console.keep(Crumb::Made, &BASE64.encode(sealed).into()));
    Ok(response)
}

/// The token in what was sealed, unless it waited too long.
fn timely(plain: &[u8], now: DateTime<Utc>) -> Option<&str> {
    let (at, token) = std::str::from_utf8(plain).ok()?.split_once(' ')?;
    let at = DateTime::from_timestamp(at.parse().ok()?, 0)?;
    // Also where the clock of whoever sealed it goes before ours.
    ((now - at).abs() <= SHOWN_WITHIN).then_some(token)
}

#[derive(Serialize)]
struct Made<'a> {
    token: &'a str,
}

/// `GET /console/tokens/made`: shows it and lets go of it.
pub(super) async fn made(
    State(console): State<Arc<Console>>,
    who: SignedIn,
    headers: HeaderMap,
) -> Result<Response, Turned> {
    let back = || Redirect::to(HERE).into_response();
    let held = console.crumb(&headers, Crumb::Made).and_then(|held| BASE64.decode(held).ok());
    let Some(sealed) = held else { return Ok(back()) };
    let session = who.session.session_id.to_string();
    let mut db = console.db.acquire().await?;
    let opened = match console.vault.open(&mut db, &cell(&who, &session), &sealed).await {
        Ok(opened) => Some(opened),
        // Of another session, or not of ours at all.
        Err(vault::Error::Unreadable { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let mut response = match opened.as_deref().and_then(|plain| timely(plain, console.clock.now())) {
        Some(token) => {
            let body = Made { token };
            draw("token_made", &Page { title: "Keep this token", inside: true, script: false, body })
        }
        None => back(),
    };
    enter::add(&mut response, console.forget(Crumb::Made));
    Ok(response)
}

/// `GET /console/tokens/{id}/revoke`: asks whether she means it.
pub(super) async fn ask_revoke(
    State(console): State<Arc<Console>>,
    who: SignedIn,
    Path(id): Path<String>,
) -> Result<Response, Turned> {
    let mut db = console.db.acquire().await?;
    let by = Authority::of_staff(&who.staff);
    by.require(Scope::TokenWrite).map_err(may_not)?;
    let token = load_token_by(&mut db, &id, &by).await.map_err(may_not)?;
    if !token.is_usable(console.clock.now()) {
        return Ok(Redirect::to(HERE).into_response());
    }
    let mut names = Names::new(&console, &who);
    let body = row(&mut names, &mut db, &by, &token).await?;
    names.told(&mut db).await?;
    Ok(draw("token_revoke", &Page { title: "End this token?", inside: true, script: false, body }))
}

/// `POST /console/tokens/{id}/revoke`
pub(super) async fn revoke(
    State(console): State<Arc<Console>>,
    StepUp(who): StepUp,
    Path(id): Path<String>,
) -> Result<Response, Turned> {
    let by = Authority::of_staff(&who.staff);
    let decision = Decision { by: &by, now: console.clock.now(), chance: &*console.chance };
    let mut db = console.db.acquire().await?;
    revoke_token_by(&mut db, &id, &decision).await.map_err(may_not)?;
    Ok(Redirect::to(HERE).into_response())
}
