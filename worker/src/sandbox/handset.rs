//! The people and their phones: who is there, what they allow, and what they have written.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use serde_json::{Value, json};

/// The window in which a business may write freely after a person wrote.
const WINDOW: TimeDelta = TimeDelta::hours(24);
/// Phones remembered; beyond, remembering begins anew.
const KEPT: usize = 100_000;
/// People remembered to have written, of one period.
const WRITERS: usize = 500_000;
/// What people wrote that is kept; the oldest goes first.
const WRITTEN_KEPT: usize = 20_000;
/// Messages remembered that came after an opt-out.
const AFTER_KEPT: usize = 100;
/// Words that end everything but what must be said.
const STOP: [&str; 10] =
    ["stop", "unsubscribe", "opt out", "optout", "cancel", "stopall", "बंद", "बंद करो", "बंद करें", "band karo"];
const START: [&str; 5] = ["start", "resume", "subscribe", "चालू", "शुरू"];

/// A phone, and the person with it.
#[derive(Clone, Debug, Default)]
pub(super) struct Handset {
    pub(super) name: Option<String>,
    /// Switched off: messages wait, or run out.
    pub(super) offline: bool,
    /// Not on WhatsApp.
    pub(super) absent: bool,
    /// Tells nobody what was read.
    pub(super) receipts_off: bool,
    /// Shows its number to no business: webhooks hold the business-scoped id alone.
    pub(super) hidden: bool,
    /// No marketing, asked for in the app's own settings.
    pub(super) marketing_stopped: bool,
    /// Since when she wants nothing more, by the app's settings or by a word.
    pub(super) stopped_at: Option<DateTime<Utc>>,
    /// Her key, if it was told.
    pub(super) identity: Option<String>,
    /// Messages that wait for it to be switched on.
    pub(super) waiting: Vec<u64>,
}

/// What is scripted about a phone.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Set {
    pub(super) phone: String,
    pub(super) name: Option<String>,
    pub(super) offline: Option<bool>,
    pub(super) absent: Option<bool>,
    pub(super) receipts_off: Option<bool>,
    pub(super) hidden: Option<bool>,
    pub(super) identity: Option<String>,
}

/// What a person wrote.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub(super) wamid: String,
    pub(super) number: usize,
    pub(super) from: String,
    pub(super) at: DateTime<Utc>,
    /// As the phone shows it.
    pub(super) text: String,
    pub(super) context: Option<String>,
    /// The business has seen it.
    pub(super) seen: bool,
}

/// All phones.
#[derive(Debug, Default)]
pub(super) struct Handsets {
    by_phone: HashMap<String, Handset>,
    by_user_id: HashMap<String, String>,
    /// When a phone last wrote to a number, in this period and in the one before.
    wrote: [HashMap<(usize, String), DateTime<Utc>>; 2],
    period_began: Option<DateTime<Utc>>,
    typing: HashMap<(usize, String), DateTime<Utc>>,
    pub(super) written: BTreeMap<u64, Written>,
    after: Vec<Value>,
    after_counts: BTreeMap<String, u64>,
}

impl Handsets {
    pub(super) fn get(&self, phone: &str) -> Option<&Handset> {
        self.by_phone.get(phone)
    }

    pub(super) fn entry(&mut self, phone: &str) -> &mut Handset {
        if self.by_phone.len() >= KEPT && !self.by_phone.contains_key(phone) {
            self.by_phone.clear();
            self.by_user_id.clear();
        }
        if !self.by_phone.contains_key(phone) {
            self.by_user_id.insert(user_id(phone), phone.to_owned());
        }
        self.by_phone.entry(phone.to_owned()).or_default()
    }

    /// The phone of a person who is known by her business-scoped id.
    pub(super) fn of_user_id(&self, id: &str) -> Option<&str> {
        self.by_user_id.get(id).map(String::as_str)
    }

    /// Until when a number may write freely to a phone.
    pub(super) fn window(&self, number: usize, phone: &str) -> Option<DateTime<Utc>> {
        let key = (number, phone.to_owned());
        self.wrote.iter().find_map(|period| period.get(&key)).map(|at| *at + WINDOW)
    }

    /// Somebody wrote.
    pub(super) fn note(&mut self, sequence: u64, written: Written) {
        let key = (written.number, written.from.clone());
        // What neither period holds wrote too long ago to matter.
        let began = *self.period_began.get_or_insert(written.at);
        if written.at - began > WINDOW || self.wrote[0].len() >= WRITERS {
            self.wrote[1] = std::mem::take(&mut self.wrote[0]);
            self.period_began = Some(written.at);
        }
        self.wrote[0].insert(key, written.at);
        let word = written.text.trim().trim_end_matches(['.', '!']).to_lowercase();
        let at = written.at;
        let handset = self.entry(&written.from);
        if STOP.contains(&word.as_str()) {
            handset.stopped_at.get_or_insert(at);
        } else if START.contains(&word.as_str()) {
            handset.stopped_at = None;
        }
        self.written.insert(sequence, written);
        while self.written.len() > WRITTEN_KEPT {
            self.written.pop_first();
        }
    }

    /// She stops marketing or lets it in again, in the app's settings.
    pub(super) fn prefer(&mut self, phone: &str, stop: bool, now: DateTime<Utc>) {
        let handset = self.entry(phone);
        handset.marketing_stopped = stop;
        handset.stopped_at = stop.then_some(now);
    }

    pub(super) fn type_until(&mut self, number: usize, phone: &str, until: DateTime<Utc>) {
        if self.typing.len() > KEPT {
            self.typing.clear();
        }
        self.typing.insert((number, phone.to_owned()), until);
    }

    pub(super) fn is_typing(&self, number: usize, phone: &str, now: DateTime<Utc>) -> bool {
        self.typing.get(&(number, phone.to_owned())).is_some_and(|until| *until > now)
    }

    /// Notes what was accepted for somebody who wanted nothing more.
    pub(super) fn note_accepted(&mut self, to: &str, category: &str, wamid: &str, now: DateTime<Utc>) {
        let Some(stopped_at) = self.by_phone.get(to).and_then(|handset| handset.stopped_at) else { return };
        *self.after_counts.entry(category.to_owned()).or_default() += 1;
        if self.after.len() < AFTER_KEPT {
            self.after
                .push(json!({ "to": to, "category": category, "wamid": wamid, "stopped_at": stopped_at, "at": now }));
        }
    }

    /// What the oracle tells of messages after an opt-out.
    pub(super) fn told_after(&self) -> Value {
        json!({ "counts": self.after_counts, "first": self.after })
    }
}

/// The business-scoped id of a phone's person.
pub(super) fn user_id(phone: &str) -> String {
    let mut mixed = 0xcbf2_9ce4_8422_2325_u64;
    for byte in phone.bytes() {
        mixed = (mixed ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    let country = if phone.starts_with("91") { "IN" } else { "ZZ" };
    format!("{country}.{mixed:020}")
}
