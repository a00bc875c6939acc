//! What stands around every page beside the page itself: while support is let in, a line that says so.
//!
//! The guard notes it for the request, whoever draws the page reads it there: no page can forget it.

use std::cell::RefCell;

use axum::{extract::Request, middleware::Next, response::Response};
use muneem_jobs::people::{Scope, Staff, support};
use serde::Serialize;

use super::{Console, guard::Turned, names::shown_from};

tokio::task_local! {
    static SUPPORT: RefCell<Option<Running>>;
}

/// Support that is let in now.
#[derive(Clone, Debug, Serialize)]
struct Running {
    until: String,
    /// Where it is seen; none: she may not look.
    there: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Framed<'a, T> {
    support_now: Option<Running>,
    #[serde(flatten)]
    page: &'a T,
}

/// Gives one request a place for what is noted.
pub(super) async fn scoped(request: Request, next: Next) -> Response {
    SUPPORT.scope(RefCell::new(None), next.run(request)).await
}

/// Notes for this request whether support is let into the business of `staff`: the grant that lasts longest.
pub(super) async fn note_support(console: &Console, staff: &Staff) -> Result<(), Turned> {
    let Some(business) = staff.business_id else { return Ok(()) };
    let now = console.clock.now();
    let mut db = console.db.acquire().await?;
    let live = support::list_live(&mut db, Some(business), now).await?;
    let running = live.iter().max_by_key(|grant| grant.expires_at).map(|grant| Running {
        until: shown_from(now, grant.expires_at),
        there: staff.scopes().contains(&Scope::BusinessRead).then(|| match live.len() {
            1 => format!("/console/support/{}", grant.grant_id),
            _ => "/console/support".to_owned(),
        }),
    });
    // Outside of a page of the console there is nobody to be told.
    let _ = SUPPORT.try_with(|noted| noted.replace(running));
    Ok(())
}

/// `page` with what was noted.
pub(super) fn around<T: Serialize>(page: &T) -> Framed<'_, T> {
    Framed { support_now: SUPPORT.try_with(|noted| noted.borrow().clone()).ok().flatten(), page }
}
