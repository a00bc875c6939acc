//! Who calls, and whether they may: version, token, proof, permissions, and the calls that an account has in an hour.

use std::{collections::VecDeque, sync::Arc};

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, HeaderValue, Uri, header, request::Parts},
};
use chrono::{DateTime, TimeDelta, Utc};
use hmac::{Hmac, KeyInit, Mac};
use muneem_jobs::messaging::Credentials;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::{
    Inner,
    refused::{Refused, USAGE, no_such, refuse},
    world::World,
};

/// Versions that are alive.
const VERSIONS: [&str; 6] = ["v21.0", "v22.0", "v23.0", "v24.0", "v25.0", "v26.0"];
/// Calls in an hour of an account without a registered number, and of one with.
const CALLS: [usize; 2] = [200, 5_000];
/// Templates that an account may make in an hour.
const TEMPLATES_MADE: usize = 100;
/// The window of both.
const HOUR: TimeDelta = TimeDelta::hours(1);

/// The usage header of an answer.
pub(super) type Usage = (HeaderName, HeaderValue);

/// Whose limit a call counts against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Account,
    Templates,
}

/// An app: what its callers must show, and what its webhooks are signed with.
#[derive(Debug)]
pub(super) struct App {
    pub(super) id: String,
    pub(super) token: SecretString,
    pub(super) secrets: Vec<SecretString>,
    pub(super) verify_token: SecretString,
    /// Lower-case hexadecimal HMAC of the token, one for each secret.
    proofs: Vec<String>,
    /// Its token is over for now.
    pub(super) expired: bool,
    /// "Require app secret" is on.
    pub(super) proof_needed: bool,
    /// `whatsapp_business_messaging` was granted.
    pub(super) messaging: bool,
    /// `whatsapp_business_management` was granted.
    pub(super) management: bool,
}

impl App {
    pub(super) fn new(id: String, credentials: &Credentials) -> Self {
        let mut app = Self {
            id,
            token: credentials.access_token.clone(),
            secrets: credentials.app_secrets.clone(),
            verify_token: credentials.verify_token.clone(),
            proofs: Vec::new(),
            expired: false,
            proof_needed: false,
            messaging: true,
            management: true,
        };
        app.settle();
        app
    }

    /// After its token or secrets changed.
    pub(super) fn settle(&mut self) {
        let proof = |secret: &SecretString| {
            let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes())
                .expect("HMAC takes keys of any length");
            mac.update(self.token.expose_secret().as_bytes());
            hex::encode(mac.finalize().into_bytes())
        };
        self.proofs = self.secrets.iter().map(proof).collect();
    }
}

/// What happened in the last hour, one instant each.
#[derive(Debug, Default)]
pub(super) struct LastHour(VecDeque<DateTime<Utc>>);

impl LastHour {
    /// One more, unless there were `most`. Says how many there were, or how many minutes to wait.
    fn one_more(&mut self, most: usize, now: DateTime<Utc>) -> Result<usize, i64> {
        while self.0.front().is_some_and(|at| now - *at >= HOUR) {
            self.0.pop_front();
        }
        if self.0.len() >= most {
            let free = self.0.front().map_or(now, |at| *at + HOUR);
            return Err((free - now).num_minutes() + 1);
        }
        self.0.push_back(now);
        Ok(self.0.len())
    }
}

/// Somebody with a good token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    /// Whose token it is: an index.
    pub(super) app: usize,
}

impl FromRequestParts<Arc<Inner>> for Caller {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, inner: &Arc<Inner>) -> Result<Self, Refused> {
        Self::of(inner, &parts.uri, &parts.headers)
    }
}

impl Caller {
    /// Reads who calls.
    pub(super) fn of(inner: &Inner, uri: &Uri, headers: &HeaderMap) -> Result<Self, Refused> {
        let version = uri.path().split('/').nth(1).unwrap_or_default();
        if !VERSIONS.contains(&version) {
            return Err(refuse(2635, "You are calling a version of the Cloud API that is not alive"));
        }
        let caller = Self::by_token(inner, headers)?;
        let world = inner.world();
        let app = &world.apps[caller.app];
        let query = uri.query().unwrap_or_default();
        let proof = query.split('&').find_map(|pair| pair.strip_prefix("appsecret_proof="));
        match proof {
            Some(proof) if app.proofs.iter().any(|good| bool::from(good.as_bytes().ct_eq(proof.as_bytes()))) => {}
            Some(_) => return Err(refuse(100, "Invalid appsecret_proof provided in the API argument")),
            None if app.proof_needed => {
                return Err(refuse(104, "API calls from the server require an appsecret_proof argument"));
            }
            None => {}
        }
        Ok(caller)
    }

    /// Reads whose token it is.
    pub(super) fn by_token(inner: &Inner, headers: &HeaderMap) -> Result<Self, Refused> {
        let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = token.and_then(|value| value.strip_prefix("Bearer ").or_else(|| value.strip_prefix("OAuth ")));
        let Some(token) = token else { return Err(refuse(200, "Provide valid app ID")) };
        let world = inner.world();
        let fits = |given: &SecretString| bool::from(given.expose_secret().as_bytes().ct_eq(token.as_bytes()));
        let found = world.apps.iter().enumerate().find(|(_, app)| fits(&app.token));
        let Some((index, app)) = found else {
            return Err(refuse(190, "Invalid OAuth access token - Cannot parse access token"));
        };
        if app.expired {
            let over = refuse(190, "Error validating access token: Session has expired");
            return Err(Refused { subcode: Some(463), ..over });
        }
        Ok(Self { app: index })
    }

    /// A number that the caller's token may send from: an index.
    pub(super) fn number(self, world: &World, id: &str) -> Result<usize, Refused> {
        let index = world.number(id).filter(|index| world.numbers[*index].app == self.app);
        let index = index.ok_or_else(|| no_such(id))?;
        if world.apps[self.app].messaging {
            Ok(index)
        } else {
            Err(refuse(10, "Application does not have permission for this action"))
        }
    }

    /// Counts a management call on an account of the caller's.
    pub(super) fn account(
        self,
        world: &mut World,
        waba: &str,
        room: Room,
        now: DateTime<Utc>,
    ) -> Result<Usage, Refused> {
        let registered = world.numbers.iter().any(|number| number.number.waba_id == waba && number.registered);
        if !world.apps[self.app].management {
            return Err(refuse(200, "You do not have the whatsapp_business_management permission"));
        }
        let account = world.account_mut(waba).filter(|account| account.app == self.app);
        let account = account.ok_or_else(|| no_such(waba))?;
        let most = CALLS[usize::from(registered)];
        let header = |used: usize, wait: i64| {
            let percent = used * 100 / most;
            json!({ waba: [{ "type": "whatsapp", "call_count": percent, "total_cputime": percent, "total_time": percent,
                "estimated_time_to_regain_access": wait }] })
            .to_string()
        };
        match account.calls.one_more(most, now) {
            Ok(used) => {
                let value = HeaderValue::from_str(&header(used, 0));
                Ok((USAGE, value.unwrap_or_else(|_| HeaderValue::from_static("{}"))))
            }
            Err(minutes) => {
                let code = if room == Room::Templates { 80_008 } else { 80_007 };
                let details = "There have been too many calls to this WhatsApp Business account.";
                Err(Refused { usage: Some(header(most, minutes)), ..refuse(code, details) })
            }
        }
    }

    /// Counts a template that is made.
    pub(super) fn made_template(self, world: &mut World, waba: &str, now: DateTime<Utc>) -> Result<(), Refused> {
        let account = world.account_mut(waba).ok_or_else(|| no_such(waba))?;
        account.made.one_more(TEMPLATES_MADE, now).map(|_| ()).map_err(|_| {
            refuse(80_008, "There have been too many templates created in this WhatsApp Business account.")
        })
    }
}
