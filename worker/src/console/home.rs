//! The way home: who one is, where and as what, and what waits.

use std::sync::Arc;

use axum::{
    Form,
    extract::State,
    response::{Redirect, Response},
};
use muneem_jobs::{
    evidence::words,
    people::{
        Scope, StaffId, approval, find_business_by_id,
        signin::{demand_second_factor, find_open_reset, list_open_resets},
    },
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::Connection;
use uuid::Uuid;

use super::{
    Console, enter,
    guard::{SignedIn, StepUp, Turned},
    names::{Names, shown},
    pages::{Page, draw},
};

#[derive(Serialize)]
struct Home {
    name: String,
    business: Option<String>,
    handle: Option<String>,
    roles: Vec<String>,
    has_second_factor: bool,
    /// Whether she decides if everybody needs a second factor, and what she decided.
    decides: bool,
    demanded: bool,
    sees_staff: bool,
    sees_tokens: bool,
    sees_support: bool,
    sees_approvals: bool,
    /// Decisions that wait for her.
    waiting: usize,
    /// Somebody wants to take her own second factor away.
    own_reset: Option<Reset>,
    /// What others lost and she may approve.
    resets: Vec<Reset>,
}

#[derive(Serialize)]
struct Reset {
    id: Uuid,
    name: String,
    asked: String,
    due: Option<String>,
}

/// `GET /console`
pub(super) async fn show(State(console): State<Arc<Console>>, who: SignedIn) -> Result<Response, Turned> {
    let mut db = console.db.acquire().await?;
    let business = match who.staff.business_id {
        Some(id) => find_business_by_id(&mut db, id).await?,
        None => None,
    };
    let scopes = who.staff.scopes();
    let may = |scope| scopes.contains(&scope);
    let mine = find_open_reset(&mut db, who.session.staff_id).await?;
    let (mut names, mut resets) = (Names::new(&console, &who), Vec::new());
    if may(Scope::StaffWrite) {
        for reset in list_open_resets(&mut db, who.staff.business_id).await? {
            if reset.staff_id != who.session.staff_id && reset.asked_by != who.session.staff_id {
                let name = names.of(&mut db, StaffId(reset.staff_id)).await?;
                let (asked, due) = (shown(reset.asked_at), reset.due_at.map(shown));
                resets.push(Reset { id: reset.reset_id, name, asked, due });
            }
        }
    }
    let body = Home {
        name: names.of(&mut db, who.staff.staff_id).await?,
        handle: business.as_ref().map(|business| business.handle.clone()),
        business: business.map(|business| business.legal_name),
        roles: who.staff.roles.iter().map(|role| role.as_str().replace('_', " ")).collect(),
        has_second_factor: who.standing.has_second_factor(),
        decides: who.staff.business_id.is_some() && may(Scope::BusinessWrite),
        demanded: who.standing.second_factor_demanded,
        sees_staff: may(Scope::StaffRead),
        sees_tokens: may(Scope::TokenRead),
        sees_support: may(Scope::BusinessRead),
        sees_approvals: may(Scope::ApprovalRead),
        waiting: approval::count_waiting(&mut db, &who.staff, console.clock.now()).await?,
        own_reset: mine.map(|reset| Reset {
            id: reset.reset_id,
            name: String::new(),
            asked: shown(reset.asked_at),
            due: reset.due_at.map(shown),
        }),
        resets,
    };
    names.told(&mut db).await?;
    Ok(draw("home", &Page { title: "Home", inside: true, script: false, body }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Demand {
    demanded: bool,
}

/// `POST /console/second-factor-for-all`
pub(super) async fn demand(
    State(console): State<Arc<Console>>,
    StepUp(who): StepUp,
    Form(form): Form<Demand>,
) -> Result<Redirect, Turned> {
    let business = who.staff.business_id.ok_or(Turned::NotFound)?;
    if !who.staff.scopes().contains(&Scope::BusinessWrite) {
        return Err(Turned::MayNot("Only an owner decides this.".to_owned()));
    }
    let mut db = console.db.acquire().await?;
    let mut tx = db.begin().await?;
    demand_second_factor(&mut tx, business, form.demanded).await?;
    let details = json!({ "demanded": form.demanded });
    enter::note(&console, &mut tx, &who.staff, words::SECOND_FACTOR_DEMANDED, details).await?;
    tx.commit().await?;
    Ok(Redirect::to("/console"))
}
