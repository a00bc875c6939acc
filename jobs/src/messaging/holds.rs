//! Holds: where nothing is to be sent, who put them there, and what ends them.
//!
//! The carrier tells by an error code or by webhook that a token, an account, a number or a template is not to be used.
//! That is written down once, for all workers. A hold that is over lets a single message through. If the carrier takes
//! it, the hold is released and what waited goes out; if not, it holds on, longer.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    Error, MessageClass, Send, campaign,
    ledger::Sign,
    rules,
    store::{self, HoldRow, MessageRow},
    template,
};
use crate::{
    evidence::{Act, By, Object, words},
    outbound::carrier::{Class, NumberId, Scope},
    people::BusinessId,
    queue::{self, NewJob},
};

/// How long nobody else is let through while one message finds out whether a hold is over.
const PROBE: TimeDelta = TimeDelta::seconds(60);
/// Messages woken at once when a hold is released; the rest wake by themselves.
const WOKEN: i64 = 5_000;
/// Marketing rests so long after people blocked or reported the number (Cloud API error 131048).
const AFTER_REPORTS: TimeDelta = TimeDelta::hours(24);

/// What a hold says about the class of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Covers {
    /// Every message.
    All,
    /// Those that the business begins: all but answers within a conversation.
    Begun,
    /// Those that sell.
    Marketing,
}

impl Covers {
    const fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Begun => "begun",
            Self::Marketing => "marketing",
        }
    }

    /// Templates begin conversations; words of one's own answer within one.
    fn concerns(held: &str, class: MessageClass, begins: bool) -> bool {
        match held {
            "marketing" => class == MessageClass::Marketing,
            "begun" => begins,
            _ => true,
        }
    }
}

/// What a message is sent with, by which it can be held.
#[derive(Clone, Debug)]
pub(super) struct Line {
    scopes: Vec<String>,
    keys: Vec<String>,
    begins: bool,
}

impl Line {
    /// Of one message: the app and its token, the account, the number, and the template.
    pub(super) fn new(number: &NumberId, waba_id: &str, own_app: bool, words: (&str, &str)) -> Self {
        let app = if own_app { number.as_str() } else { INSTALLATION };
        let template =
            template::names_of(words.0, words.1).map(|(name, language)| template_key(waba_id, name, language));
        let all = [
            (Scope::App, Some(app.to_owned())),
            (Scope::Credential, Some(app.to_owned())),
            (Scope::Account, Some(waba_id.to_owned())),
            (Scope::Number, Some(number.as_str().to_owned())),
            (Scope::Template, template),
        ];
        let (scopes, keys) = all.into_iter().filter_map(|(scope, key)| Some((scope.as_str().to_owned(), key?))).unzip();
        Self { scopes, keys, begins: !words.0.starts_with(FREE) }
    }

    /// Of a message by WhatsApp; a mail has none.
    fn of(row: &MessageRow) -> Option<Self> {
        let (number, waba_id) = (row.number.as_ref()?, row.waba_id.as_deref()?);
        Some(Self::new(number, waba_id, row.own_app, (&row.template, &row.language)))
    }

    fn key(&self, scope: Scope) -> Option<&str> {
        let place = self.scopes.iter().position(|known| known == scope.as_str())?;
        self.keys.get(place).map(String::as_str)
    }
}

/// How the names of words of one's own begin in a message's row.
pub(super) const FREE: &str = "free_";

/// The key of what the installation's configuration names.
const INSTALLATION: &str = "installation";

/// The key of a template in one language.
pub(super) fn template_key(waba_id: &str, name: &str, language: &str) -> String {
    format!("{waba_id}/{name}/{}", language.replace('-', "_"))
}

/// Whether a message may go now.
#[derive(Debug)]
pub(super) enum Gate {
    /// It may; it finds out for these holds whether they are over.
    Open(Vec<Uuid>),
    /// It may not, until then.
    Held {
        /// What is held.
        scope: String,
        /// Because of this code of the carrier.
        code: Option<i64>,
        /// Until when, at least.
        until: DateTime<Utc>,
    },
}

/// Looks whether anything that a message is sent with is held.
///
/// # Errors
/// The database fails.
pub(super) async fn gate(
    conn: &mut PgConnection,
    (business, class): (BusinessId, MessageClass),
    line: &Line,
    now: DateTime<Utc>,
) -> Result<Gate, Error> {
    let mut holds = store::find_holds(conn, business, (&line.scopes, &line.keys)).await?;
    holds.retain(|hold| Covers::concerns(&hold.covers, class, line.begins));
    if let Some(hold) = holds.iter().filter(|hold| hold.until > now).max_by_key(|hold| hold.until) {
        return Ok(Gate::Held { scope: hold.scope.clone(), code: hold.code, until: hold.until });
    }
    Ok(Gate::Open(holds.into_iter().map(|hold| hold.hold_id).collect()))
}

/// Goes through holds that are over, as the one message that finds out; false when another does so already.
///
/// # Errors
/// The database fails.
pub(super) async fn probe(conn: &mut PgConnection, holds: &[Uuid], now: DateTime<Utc>) -> Result<bool, Error> {
    for hold in holds {
        if !store::probe_hold(conn, *hold, now, now + PROBE).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Something to be held, and for how long.
#[derive(Clone, Debug)]
pub(super) struct Strike<'a> {
    pub(super) scope: Scope,
    pub(super) key: &'a str,
    pub(super) covers: Covers,
    pub(super) code: Option<i64>,
    /// The carrier's word, where it told by webhook.
    pub(super) told: Option<&'a str>,
    /// Seconds, the n-th time in a row the n-th.
    pub(super) waits: &'a [u32],
    /// The carrier's own end of it.
    pub(super) until: Option<DateTime<Utc>>,
}

/// Puts a hold on something, or lets the one that is there hold on. Refusals of messages that were under way together are
/// one strike.
///
/// # Errors
/// The database fails, or the evidence cannot be written.
pub(super) async fn strike(
    conn: &mut PgConnection,
    business: BusinessId,
    strike: &Strike<'_>,
    by: &By<'_>,
) -> Result<DateTime<Utc>, Error> {
    let now = by.now;
    let until = |strikes: i32| {
        let place = usize::try_from(strikes - 1).unwrap_or(0).min(strike.waits.len().saturating_sub(1));
        let wait = strike.waits.get(place).map_or(TimeDelta::zero(), |secs| TimeDelta::seconds(i64::from(*secs)));
        (now + wait).max(strike.until.unwrap_or(now))
    };
    let id = (strike.scope.as_str(), strike.key, strike.covers.as_str());
    if let Some(mut hold) = store::lock_hold(conn, business, id).await? {
        let failed_probe = hold.probed_at.is_some_and(|probed| probed >= hold.struck_at);
        if failed_probe || hold.until <= now {
            hold.strikes = hold.strikes.saturating_add(1);
            hold.struck_at = now;
            hold.until = until(hold.strikes);
        } else {
            hold.until = hold.until.max(strike.until.unwrap_or(hold.until));
        }
        hold.code = strike.code.or(hold.code);
        hold.told = strike.told.map(str::to_owned).or(hold.told);
        store::strike_hold(conn, &hold).await?;
        return Ok(hold.until);
    }
    let hold = HoldRow {
        hold_id: by.chance.uuid_v7(now),
        scope: strike.scope.as_str().to_owned(),
        key: strike.key.to_owned(),
        covers: strike.covers.as_str().to_owned(),
        code: strike.code,
        told: strike.told.map(str::to_owned),
        strikes: 1,
        since: now,
        struck_at: now,
        until: until(1),
        probed_at: None,
    };
    if store::insert_hold(conn, business, &hold).await? {
        let held = Act {
            word: words::SENDER_HELD,
            business: Some(business),
            object: Object { kind: strike.scope.as_str(), id: strike.key },
            details: json!({ "covers": strike.covers, "code": strike.code, "told": strike.told, "until": hold.until }),
        };
        by.record(conn, held).await?;
        tracing::error!(
            messaging.scope = strike.scope.as_str(),
            code = strike.code,
            told = strike.told,
            "the carrier stops a sender: messages wait"
        );
    }
    Ok(hold.until)
}

/// What the carrier's refusals mean for the sender; how long each message waits because of it.
///
/// # Errors
/// As [`strike`].
pub(super) async fn react(
    conn: &mut PgConnection,
    business: BusinessId,
    signs: &[(&Sign, &MessageRow)],
    by: &By<'_>,
) -> Result<BTreeMap<super::MessageId, DateTime<Utc>>, Error> {
    let mut waits = BTreeMap::new();
    let mut struck: BTreeMap<(Scope, String, &'static str), DateTime<Utc>> = BTreeMap::new();
    for (sign, row) in signs {
        let Class::Hold(scope, seconds) = sign.class else { continue };
        let Some(line) = Line::of(row) else { continue };
        let mut strikes = vec![(scope, Covers::All, None)];
        match sign.code {
            131_048 => strikes.push((scope, Covers::Marketing, Some(by.now + AFTER_REPORTS))),
            131_063 => strikes = vec![(Scope::Account, Covers::Marketing, None)],
            _ => {}
        }
        for (scope, covers, own_end) in strikes {
            let Some(key) = line.key(scope) else { continue };
            let asked = sign.retry_after.map(|after| by.now + rules::delta(after));
            let id = (scope, key.to_owned(), covers.as_str());
            let until = match struck.get(&id) {
                Some(until) => *until,
                None => {
                    let new = Strike {
                        scope,
                        key,
                        covers,
                        code: Some(sign.code),
                        told: None,
                        waits: seconds,
                        until: own_end.into_iter().chain(asked).max(),
                    };
                    let until = strike(conn, business, &new, by).await?;
                    struck.insert(id, until);
                    until
                }
            };
            if Covers::concerns(covers.as_str(), row.class, line.begins) {
                let wait = waits.entry(row.message_id).or_insert(until);
                *wait = until.max(*wait);
            }
        }
    }
    Ok(waits)
}

/// Releases holds and wakes what waited behind them.
///
/// # Errors
/// The database fails, or the evidence cannot be written.
pub(super) async fn release(
    conn: &mut PgConnection,
    business: BusinessId,
    holds: &[Uuid],
    because: &'static str,
    by: &By<'_>,
) -> Result<usize, Error> {
    let released = store::release_holds(conn, holds, because, by.now).await?;
    let acts = released.iter().map(|(scope, key)| Act {
        word: words::SENDER_RELEASED,
        business: Some(business),
        object: Object { kind: scope, id: key },
        details: json!({ "because": because }),
    });
    by.record_all(conn, acts.collect()).await?;
    let scopes: std::collections::BTreeSet<_> = released.iter().map(|(scope, _)| scope.as_str()).collect();
    for scope in scopes {
        wake(conn, business, scope, by.now).await?;
    }
    Ok(released.len())
}

/// Lets what waits for a scope try at once, and campaigns look again.
///
/// # Errors
/// The database fails.
pub(super) async fn wake(
    conn: &mut PgConnection,
    business: BusinessId,
    scope: &str,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    for (id, class) in store::list_held(conn, business, scope, WOKEN).await? {
        let send = NewJob::of(business, &Send { message_id: id })?.lane(class.lane());
        queue::enqueue(conn, &send).await?;
    }
    campaign::wake(conn, business, now).await
}

/// Releases whatever holds one thing; how many holds that were.
///
/// # Errors
/// As [`release`].
pub(super) async fn release_key(
    conn: &mut PgConnection,
    business: BusinessId,
    (scope, key): (Scope, &str),
    because: &'static str,
    by: &By<'_>,
) -> Result<usize, Error> {
    let holds = store::find_holds(conn, business, (&[scope.as_str().to_owned()], &[key.to_owned()])).await?;
    if holds.is_empty() {
        return Ok(0);
    }
    let ids: Vec<_> = holds.iter().map(|hold| hold.hold_id).collect();
    release(conn, business, &ids, because, by).await
}
