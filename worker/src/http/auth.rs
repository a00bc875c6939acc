//! Who is calling: `Authorization: Bearer mnm_…`.

use std::{ops::Deref, sync::Arc};

use axum::{
    extract::{FromRequestParts, MatchedPath, Query as Parsed},
    http::{header, request::Parts},
};
use muneem_jobs::{
    evidence::By,
    people::{self, BusinessId, Presented, Scope},
};
use sqlx::{PgConnection, Postgres, Transaction};

use super::{
    Api, client, method,
    problem::{Problem, ProblemId},
};
use crate::refusals::Known;

/// The caller behind a token that opens something and has the scope of the address: [`super::gate`] let her in. As an
/// argument of a handler it refuses everybody else.
#[derive(Clone, Debug)]
pub(super) struct Caller(people::Caller);

impl Deref for Caller {
    type Target = people::Caller;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Caller {
    /// Looks the token up; a malformed one is refused without asking the database. `known` is told whose it is as soon as
    /// its secret was right, also where it opens nothing.
    pub(super) async fn of(api: &Api, parts: &Parts, known: &mut Option<Known>) -> Result<Self, Problem> {
        refuse_in_query(api, parts).await?;
        let bearer = parts.headers.get(header::AUTHORIZATION).ok_or(ProblemId::NoToken)?.to_str().unwrap_or_default();
        let bearer = match bearer.split_once(' ') {
            Some((scheme, bearer)) if scheme.eq_ignore_ascii_case("bearer") => bearer.trim(),
            _ => return Err(ProblemId::NoToken.into()),
        };
        let from = client::address(api, parts);
        api.rates.admit(from, bearer)?;
        let presented = Presented::parse(bearer).ok_or(ProblemId::BadToken)?;
        let mut db = api.db.acquire().await?;
        let now = api.clock.now();
        let caller = match people::authenticate(&mut db, &presented, from, now).await {
            Ok(caller) => caller,
            Err(refusal) => {
                api.rates.forget(bearer);
                let held = people::find_holder(&mut db, &presented).await?;
                *known = held.map(|(token, business)| Known::token(&token, business));
                return Err(refusal.into());
            }
        };
        *known = Some(Known::token(&caller.token_id, caller.business));
        api.rates.charge(bearer, &caller)?;
        // Whoever of support looks is on record before anything is answered.
        if let Some(grant) = caller.support {
            let route = parts.extensions.get::<MatchedPath>().map_or("none", MatchedPath::as_str);
            let look = (method::name_of(&parts.method), route);
            people::support::note_look(&mut db, (&caller, grant), look, now, &*api.chance).await?;
        }
        Ok(Self(caller))
    }

    /// A transaction that sees what this caller may see: for a token of one business, row-level security stands around it.
    pub(super) async fn enter(&self, api: &Api) -> Result<Transaction<'static, Postgres>, Problem> {
        let tx = api.db.begin().await?;
        self.entered(tx).await
    }

    /// As [`Self::enter`], to do something: a token that was ended since it came in does nothing more.
    pub(super) async fn enter_to_act(&self, api: &Api) -> Result<Transaction<'static, Postgres>, Problem> {
        let mut tx = api.db.begin().await?;
        people::hold_token(&mut tx, self, api.clock.now()).await?;
        self.entered(tx).await
    }

    async fn entered(&self, mut tx: Transaction<'static, Postgres>) -> Result<Transaction<'static, Postgres>, Problem> {
        if let Some(business) = self.business {
            people::enter_business(&mut tx, business).await?;
        }
        Ok(tx)
    }

    /// As the evidence names it, now.
    pub(super) fn by<'a>(&self, api: &'a Api) -> By<'a> {
        By::token(&self.token_id, api.clock.now(), &*api.chance)
    }

    /// Refuses a token without this scope.
    pub(super) fn require(&self, scope: Scope) -> Result<(), Problem> {
        if self.scopes.contains(&scope) {
            return Ok(());
        }
        Err(Problem::new(ProblemId::MissingScope, format!("this needs the scope `{scope}`")))
    }

    /// The business that a list is narrowed to: the token's own, or the one asked for by its handle. To a token of one
    /// business there is no other.
    pub(super) async fn business_asked(
        &self,
        db: &mut PgConnection,
        asked: Option<&str>,
    ) -> Result<Option<BusinessId>, Problem> {
        let Some(asked) = asked else { return Ok(self.business) };
        let business = people::load_business(db, asked).await?.business_id;
        if self.sees(business) { Ok(Some(business)) } else { Err(ProblemId::NoSuchBusiness.into()) }
    }

    /// Whether things of `business` exist for this caller.
    pub(super) fn sees(&self, business: BusinessId) -> bool {
        self.business.is_none_or(|own| own == business)
    }
}

impl FromRequestParts<Arc<Api>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Api>) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| Problem::internal(&NoRow))
    }
}

/// An address was added and the table of the gate was not: nobody gets in there.
#[derive(Debug, thiserror::Error)]
#[error("the address has no row in the gate's table")]
struct NoRow;

/// A token in the query stands in the logs of every proxy and in histories: it is refused, whatever the header holds,
/// and marked so that somebody replaces it.
async fn refuse_in_query(api: &Api, parts: &Parts) -> Result<(), Problem> {
    // A query that does not read names no parameter of ours either; whoever asks for one refuses it.
    let Ok(Parsed(query)) = Parsed::<Vec<(String, String)>>::try_from_uri(&parts.uri) else { return Ok(()) };
    for (_, value) in query {
        if let Some(presented) = Presented::parse(&value) {
            let from = client::address(api, parts);
            api.rates.admit(from, &value)?;
            let mut db = api.db.acquire().await?;
            if people::note_exposed(&mut db, &presented, &By::system(api.clock.now(), &*api.chance)).await? {
                tracing::warn!("a token stood in a URL: `muneem people token list` shows which; replace it");
            }
            return Err(ProblemId::TokenInQuery.into());
        }
    }
    Ok(())
}
