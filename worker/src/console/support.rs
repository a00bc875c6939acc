//! Support: let in for a time by the owner, watched while it looks, sent away.

use std::sync::Arc;

use axum::{
    Form,
    extract::{Path, Query, State},
    response::{IntoResponse, Redirect, Response},
};
use chrono::{DateTime, TimeDelta, Utc};
use muneem_jobs::people::{
    self, Authority, Decision, Scope, StaffId, find_business_by_id,
    support::{self, Deed, Grant, GrantId, Look, Looks, Wish},
};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use super::{
    Console,
    guard::{SignedIn, StepUp, Turned, may_not, sentence},
    names::{Names, shown},
    pages::{Page, draw, draw_again},
};

const HERE: &str = "/console/support";
/// Grants on one page.
const PAGE: u16 = 20;
/// Times that are offered, in minutes: none is shorter or longer than the rule lets it be.
const TIMES: [(i64, &str); 5] =
    [(15, "A quarter of an hour"), (60, "One hour"), (120, "Two hours"), (480, "Eight hours"), (1440, "A day")];

const _: () = assert!(
    TIMES[0].0 * 60 == support::SHORTEST.num_seconds()
        && TIMES[4].0 * 60 == support::LONGEST.num_seconds()
        && TIMES[2].0 * 60 == support::USUAL.num_seconds()
);

#[derive(Serialize)]
struct SupportPage {
    /// Whether she may let support in.
    lets_in: bool,
    running: Vec<Card>,
    /// Nobody is let in, on this page or another.
    none: bool,
    past: Vec<Card>,
    /// Where the list goes on.
    before: Option<GrantId>,
}

#[derive(Serialize)]
struct Card {
    id: GrantId,
    /// Whose it is, for staff of the platform.
    business: Option<String>,
    /// Whom of support she let in.
    person: Option<String>,
    granted_by: String,
    from: String,
    until: String,
    is_live: bool,
    /// How it ended: `sent away by you`, `ran out`.
    ended: Option<String>,
    ends: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Older {
    before: Option<GrantId>,
}

/// `GET /console/support`
pub(super) async fn list(
    State(console): State<Arc<Console>>,
    who: SignedIn,
    Query(Older { before }): Query<Older>,
) -> Result<Response, Turned> {
    let mut db = console.db.acquire().await?;
    let by = Authority::of_staff(&who.staff);
    let is_first = before.is_none();
    let now = console.clock.now();
    let asked = support::Asked { past_at: Some(now), before, ..Default::default() };
    let mut found = support::list(&mut db, asked, PAGE + 1, &by).await.map_err(may_not)?;
    let goes_on = found.len() > usize::from(PAGE);
    found.truncate(PAGE.into());
    let before = found.last().map(|grant| grant.grant_id).filter(|_| goes_on);
    let live = support::list_live(&mut db, who.staff.business_id, now).await?;
    let none = live.is_empty();
    let (mut names, mut running, mut past) = (Names::new(&console, &who), Vec::new(), Vec::new());
    for grant in live.iter().filter(|_| is_first) {
        running.push(card(&mut names, &mut db, grant).await?);
    }
    for grant in &found {
        past.push(card(&mut names, &mut db, grant).await?);
    }
    names.told(&mut db).await?;
    let body = SupportPage { lets_in: by.require(Scope::SupportGrant).is_ok(), running, none, past, before };
    Ok(draw("support", &Page { title: "Support", inside: true, script: false, body }))
}

async fn card(names: &mut Names<'_>, db: &mut PgConnection, grant: &Grant) -> Result<Card, Turned> {
    let (who, now) = (names.who, names.console.clock.now());
    let by = Authority::of_staff(&who.staff);
    let business = match who.staff.business_id {
        Some(_) => None,
        None => find_business_by_id(db, grant.business_id).await?.map(|business| business.legal_name),
    };
    let person = match grant.only {
        Some(staff) => Some(called(names, db, staff).await?),
        None => None,
    };
    let is_live = grant.is_live(now);
    let ended = match (&grant.ended_by, is_live) {
        (_, true) => None,
        (Some(name), false) if *name == by.name() => Some("sent away by you".to_owned()),
        (Some(name), false) if name.starts_with("job:") => Some("ran out".to_owned()),
        (Some(name), false) => Some(match name.strip_prefix("staff:").and_then(|id| id.parse().ok()) {
            Some(staff) => format!("sent away by {}", called(names, db, staff).await?),
            None => "sent away".to_owned(),
        }),
        (None, false) => Some("ran out".to_owned()),
    };
    Ok(Card {
        id: grant.grant_id,
        business,
        person,
        granted_by: called(names, db, grant.granted_by).await?,
        from: shown(grant.granted_at),
        until: shown(grant.ended_at.unwrap_or(grant.expires_at)),
        is_live,
        ended,
        ends: is_live && (by.require(Scope::SupportGrant).is_ok() || by.require(Scope::BusinessWrite).is_ok()),
    })
}

/// By name for whoever lets support in, by id for whoever looks on.
async fn called(names: &mut Names<'_>, db: &mut PgConnection, staff: StaffId) -> Result<String, Turned> {
    let who = &names.who.staff;
    Ok(match staff {
        own if own == who.staff_id => "you".to_owned(),
        staff if who.scopes().contains(&Scope::SupportGrant) => names.of(db, staff).await?,
        staff => format!("staff {staff}"),
    })
}

#[derive(Serialize)]
struct NewPage {
    problem: Option<String>,
    times: Vec<Choice>,
    people: Vec<Choice>,
    reason: String,
}

#[derive(Serialize)]
struct Choice {
    value: String,
    words: String,
    chosen: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Letting {
    minutes: i64,
    #[serde(default)]
    person: String,
    reason: String,
}

/// `GET /console/support/new`
pub(super) async fn ask(State(console): State<Arc<Console>>, StepUp(who): StepUp) -> Result<Response, Turned> {
    let mut db = console.db.acquire().await?;
    let typed = Letting { minutes: support::USUAL.num_minutes(), person: String::new(), reason: String::new() };
    Ok(draw("support_new", &form(&console, &mut db, &who, typed, None).await?))
}

async fn form(
    console: &Console,
    db: &mut PgConnection,
    who: &SignedIn,
    typed: Letting,
    problem: Option<String>,
) -> Result<Page<NewPage>, Turned> {
    let by = Authority::of_staff(&who.staff);
    let (mut names, mut choices) = (Names::new(console, who), Vec::new());
    for staff in support::list_people(db, &by).await.map_err(may_not)? {
        let value = staff.to_string();
        choices.push(Choice { words: names.of(db, staff).await?, chosen: typed.person == value, value });
    }
    names.told(db).await?;
    let times = TIMES.iter().map(|(minutes, words)| Choice {
        value: minutes.to_string(),
        words: (*words).to_owned(),
        chosen: *minutes == typed.minutes,
    });
    let body = NewPage { problem, times: times.collect(), people: choices, reason: typed.reason };
    Ok(Page { title: "Let support in", inside: true, script: false, body })
}

/// `POST /console/support`
pub(super) async fn let_in(
    State(console): State<Arc<Console>>,
    StepUp(who): StepUp,
    Form(typed): Form<Letting>,
) -> Result<Response, Turned> {
    let by = Authority::of_staff(&who.staff);
    by.require(Scope::SupportGrant).map_err(may_not)?;
    let decision = Decision { by: &by, now: console.clock.now(), chance: &*console.chance };
    let only = match typed.person.as_str() {
        "" => None,
        id => Some(StaffId(id.parse().map_err(|_| Turned::NotFound)?)),
    };
    let lasting = TimeDelta::try_minutes(typed.minutes).unwrap_or(TimeDelta::MAX);
    let wish = Wish { reason: &typed.reason, lasting, only };
    let mut db = console.db.acquire().await?;
    match support::grant(&mut db, &console.vault, &wish, &decision).await {
        Ok(grant) => Ok(Redirect::to(&format!("{HERE}/{}", grant.grant_id)).into_response()),
        Err(error @ (people::Error::BadReason | people::Error::BadDuration | people::Error::NotSupport)) => {
            let problem = Some(sentence(&error));
            Ok(draw_again("support_new", &form(&console, &mut db, &who, typed, problem).await?))
        }
        Err(error) => Err(may_not(error)),
    }
}

#[derive(Serialize)]
struct GrantPage {
    card: Card,
    /// Only for whoever may let support in herself.
    reason: Option<String>,
    /// Whether she may see the evidence.
    sees_looks: bool,
    looks: Vec<Row>,
    /// Number of the business's event to read on from.
    next: Option<u64>,
    retired: u64,
}

#[derive(Serialize)]
struct Row {
    at: String,
    who: String,
    /// Absent where somebody only came in.
    looked: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Since {
    from: Option<u64>,
}

/// `GET /console/support/{id}`
pub(super) async fn show(
    State(console): State<Arc<Console>>,
    who: SignedIn,
    Path(id): Path<String>,
    Query(Since { from }): Query<Since>,
) -> Result<Response, Turned> {
    let grant_id: GrantId = id.parse().map_err(|_| Turned::NotFound)?;
    let by = Authority::of_staff(&who.staff);
    let decision = Decision { by: &by, now: console.clock.now(), chance: &*console.chance };
    let mut db = console.db.acquire().await?;
    let grant = support::load(&mut db, grant_id, &by).await.map_err(may_not)?;
    let mut reason = None;
    if by.require(Scope::SupportGrant).is_ok() {
        reason = Some(support::open_reason(&mut db, &console.vault, grant_id, &decision).await.map_err(may_not)?.1);
    }
    let sees_looks = by.require(Scope::EvidenceRead).is_ok();
    let mut read = Looks::default();
    if sees_looks {
        read = support::read_looks(&mut db, grant_id, from, &decision).await.map_err(may_not)?;
    }
    let (mut names, mut looks) = (Names::new(&console, &who), Vec::new());
    for look in &read.looks {
        looks.push(row(&mut names, &mut db, look).await?);
    }
    let card = card(&mut names, &mut db, &grant).await?;
    names.told(&mut db).await?;
    let body = GrantPage { card, reason, sees_looks, looks, next: read.next, retired: read.retired };
    Ok(draw("support_grant", &Page { title: "Support was let in", inside: true, script: false, body }))
}

async fn row(names: &mut Names<'_>, db: &mut PgConnection, look: &Look) -> Result<Row, Turned> {
    let called = match look.staff {
        Some(staff) => called(names, db, staff).await?,
        None => "support".to_owned(),
    };
    let looked = match &look.deed {
        Deed::Entered => None,
        Deed::Looked { method, route } => Some(format!("{method} {route}")),
    };
    Ok(Row { at: to_the_second(look.at), who: called, looked })
}

fn to_the_second(at: DateTime<Utc>) -> String {
    at.with_timezone(&chrono_tz::Asia::Kolkata).format("%-d %B, %H:%M:%S").to_string()
}

/// `POST /console/support/{id}/end`: at once, and without a fresh proof: sending away is never wrong.
pub(super) async fn end(
    State(console): State<Arc<Console>>,
    who: SignedIn,
    Path(id): Path<String>,
) -> Result<Response, Turned> {
    let grant_id: GrantId = id.parse().map_err(|_| Turned::NotFound)?;
    let by = Authority::of_staff(&who.staff);
    let decision = Decision { by: &by, now: console.clock.now(), chance: &*console.chance };
    let mut db = console.db.acquire().await?;
    support::end(&mut db, grant_id, &decision).await.map_err(may_not)?;
    Ok(Redirect::to(&format!("{HERE}/{grant_id}")).into_response())
}
