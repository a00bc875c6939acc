//! What the stand-in knows: apps, accounts, numbers, templates, files, chats, what was posted and what is scripted. In
//! memory and bounded; gone with the process.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    hash::{Hash, Hasher},
    sync::Arc,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use muneem_jobs::messaging::template::library;
use serde::Serialize;

use super::{
    Number, Options,
    agenda::Agenda,
    callback::Body,
    door::{App, LastHour},
    fault::{Behaviour, Callbacks, Fault},
    handset::Handsets,
    limits::Limits,
    numbers::State,
    refused::{Refused, refuse},
    send::Filled,
    templates::{Store, Uploads},
};

/// Messages kept; the oldest go first.
const MESSAGES_KEPT: usize = 20_000;
/// Bytes of files kept; the oldest go first.
const MEDIA_BYTES_KEPT: usize = 256 * 1024 * 1024;
/// Bodies of webhooks that can be replayed.
const BODIES_KEPT: usize = 10;
/// References counted; then counting begins anew.
const REFERENCES_COUNTED: usize = 4_000_000;
/// References whose names the oracle tells; beyond, only those that were posted again.
const REFERENCES_NAMED: usize = 100_000;
/// Life of an uploaded file.
pub(super) const MEDIA_LIFE: TimeDelta = TimeDelta::days(30);

/// How far a message has come on the recipient's phone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Progress {
    Accepted,
    Failed,
    Sent,
    Delivered,
    Read,
}

/// How a message goes on after it was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Sent, delivered, read.
    Usual,
    /// Told as failed.
    Fails { code: i64, why: &'static str, after_sent: bool },
    /// Never heard of again.
    Vanishes,
    /// `read` is told, `delivered` is not.
    ReadOnly,
    /// Waits for a verdict on its template, or for its time.
    Held,
    /// Waits for its file to be fetched.
    Fetching,
}

#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) sequence: u64,
    pub(super) wamid: String,
    /// Of the sender: an index.
    pub(super) number: usize,
    /// Digits without plus.
    pub(super) to: String,
    /// It was sent to her business-scoped id.
    pub(super) by_user_id: bool,
    pub(super) reference: Option<String>,
    pub(super) content: Filled,
    pub(super) progress: Progress,
    pub(super) fate: Fate,
    /// What is told of it has values that nobody knows.
    pub(super) odd: bool,
    /// What is told of it comes so many seconds late.
    pub(super) late_secs: u32,
    pub(super) accepted_at: DateTime<Utc>,
    /// After that it is not delivered any more.
    pub(super) dies_at: DateTime<Utc>,
    /// When the phone showed it.
    pub(super) displayed_at: Option<DateTime<Utc>>,
    pub(super) events: Vec<(Progress, DateTime<Utc>)>,
}

#[derive(Clone, Debug)]
pub(super) struct Media {
    /// Of the number that it belongs to: an index.
    pub(super) number: usize,
    pub(super) mime_type: String,
    pub(super) content: Bytes,
    pub(super) uploaded_at: DateTime<Utc>,
}

/// A business's number, as it is now.
pub(super) struct Line {
    pub(super) number: Number,
    /// Whose token sends from it: an index.
    pub(super) app: usize,
    pub(super) registered: bool,
    pub(super) state: State,
    /// Its own, before the account's and the app's.
    pub(super) callback_url: Option<String>,
}

/// A WhatsApp Business Account.
#[derive(Debug, Default)]
pub(super) struct Account {
    pub(super) app: usize,
    /// Its app gets webhooks.
    pub(super) subscribed: bool,
    /// Its restriction, with the code that messages are refused with.
    pub(super) blocked: Option<(i64, &'static str)>,
    pub(super) callback_url: Option<String>,
    pub(super) calls: LastHour,
    pub(super) made: LastHour,
    /// In which it is billed; none: rupees.
    pub(super) currency: Option<String>,
    /// Where the business is; none: India.
    pub(super) country: Option<String>,
}

pub(super) struct World {
    random: u64,
    next: u64,
    pub(super) apps: Vec<App>,
    pub(super) numbers: Vec<Line>,
    by_number: HashMap<String, usize>,
    accounts: BTreeMap<String, Account>,
    pub(super) templates: Store,
    pub(super) uploads: Uploads,
    pub(super) agenda: Agenda,
    pub(super) limits: Limits,
    pub(super) posts: u64,
    pub(super) posts_by_reference: HashMap<String, u32>,
    pub(super) uploaded: u64,
    pub(super) messages: BTreeMap<u64, Message>,
    by_wamid: HashMap<String, u64>,
    pub(super) media: BTreeMap<String, Media>,
    media_bytes: usize,
    pub(super) faults: Vec<Fault>,
    pub(super) callbacks: Callbacks,
    pub(super) behaviour: Behaviour,
    pub(super) handsets: Handsets,
    /// Files that were fetched by their links, by the exact link.
    pub(super) fetched: HashMap<String, (String, DateTime<Utc>)>,
    pub(super) references: HashMap<u64, u32>,
    pub(super) callback_url: Option<String>,
    /// The last bodies that were taken.
    pub(super) posted: VecDeque<Arc<Body>>,
    pub(super) webhooks_taken: u64,
    pub(super) webhooks_refused: u64,
    pub(super) webhooks_given_up: u64,
    pub(super) webhooks_unsubscribed: u64,
}

impl World {
    pub(super) fn new(options: &Options, now: DateTime<Utc>) -> Self {
        let mut world = Self {
            random: options.seed,
            next: 1,
            apps: vec![App::new("670843887433847".to_owned(), &options.credentials)],
            numbers: Vec::new(),
            by_number: HashMap::new(),
            accounts: BTreeMap::new(),
            templates: Store::default(),
            uploads: Uploads::default(),
            agenda: Agenda::default(),
            limits: Limits::default(),
            posts: 0,
            posts_by_reference: HashMap::new(),
            uploaded: 0,
            messages: BTreeMap::new(),
            by_wamid: HashMap::new(),
            media: BTreeMap::new(),
            media_bytes: 0,
            faults: Vec::new(),
            callbacks: Callbacks::default(),
            behaviour: Behaviour::default(),
            handsets: Handsets::default(),
            fetched: HashMap::new(),
            references: HashMap::new(),
            callback_url: options.callback_url.clone(),
            posted: VecDeque::new(),
            webhooks_taken: 0,
            webhooks_refused: 0,
            webhooks_given_up: 0,
            webhooks_unsubscribed: 0,
        };
        for number in &options.numbers {
            world.add_number(number.clone());
        }
        if options.seed_templates {
            for waba in world.accounts.keys().cloned().collect::<Vec<_>>() {
                world.templates.seed(library(), &waba, now);
            }
        }
        world
    }

    fn add_number(&mut self, number: Number) {
        let app = match &number.credentials {
            None => 0,
            Some(credentials) => {
                self.apps.push(App::new(format!("{}", 670_843_887_433_847 + self.apps.len()), credentials));
                self.apps.len() - 1
            }
        };
        // Numbers of one account share its app.
        let account = self.accounts.entry(number.waba_id.clone()).or_insert_with(|| Account {
            app,
            subscribed: true,
            ..Account::default()
        });
        let app = account.app;
        self.by_number.insert(number.id.clone(), self.numbers.len());
        let callback_url = number.callback_url.clone();
        let state = State::default();
        self.numbers.push(Line { number, app, registered: true, state, callback_url });
    }

    /// The index of a number by its id.
    pub(super) fn number(&self, id: &str) -> Option<usize> {
        self.by_number.get(id).copied()
    }

    pub(super) fn accounts(&self) -> impl Iterator<Item = &str> {
        self.accounts.keys().map(String::as_str)
    }

    pub(super) fn account(&self, waba: &str) -> Option<&Account> {
        self.accounts.get(waba)
    }

    pub(super) fn account_mut(&mut self, waba: &str) -> Option<&mut Account> {
        self.accounts.get_mut(waba)
    }

    /// Whether a number may send at all now.
    pub(super) fn may_send(&self, number: usize) -> Result<(), Refused> {
        let line = &self.numbers[number];
        if line.state.deleted {
            return Err(refuse(33, "The business phone number has been deleted."));
        }
        if !line.registered {
            return Err(refuse(133_010, "The phone number is not registered."));
        }
        if let Some((code, details)) = line.state.refuses() {
            return Err(refuse(code, details));
        }
        match self.account(&line.number.waba_id).and_then(|account| account.blocked) {
            Some((code, details)) => Err(refuse(code, details)),
            None => Ok(()),
        }
    }

    /// Where webhooks of a number, or of an account as a whole, go.
    pub(super) fn callback(&self, waba: &str, number: Option<usize>) -> Option<&str> {
        let line = number.and_then(|number| self.numbers.get(number));
        let of_line = line.and_then(|line| line.callback_url.as_deref());
        let of_account = || self.accounts.get(waba).and_then(|account| account.callback_url.as_deref());
        of_line.or_else(of_account).or(self.callback_url.as_deref())
    }

    /// The next number of the seed's sequence (splitmix64).
    pub(super) fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn unit(&mut self) -> f64 {
        f64::from(u32::try_from(self.random() >> 32).unwrap_or(0)) / (f64::from(u32::MAX) + 1.0)
    }

    /// A fresh place in the order of all messages, and its id, which spells the person's number as the carrier's do.
    pub(super) fn wamid(&mut self, phone: &str) -> (u64, String) {
        let (sequence, salt) = (self.next, self.random());
        self.next += 1;
        let inside = format!("\u{1e}\u{4}{phone}\u{15}\u{2}{salt:016X}{sequence:08X}");
        (sequence, format!("wamid.{}", STANDARD.encode(inside)))
    }

    /// Takes a message in. Like the carrier, it takes an equal one again.
    pub(super) fn accept(&mut self, message: Message) {
        self.by_wamid.insert(message.wamid.clone(), message.sequence);
        self.messages.insert(message.sequence, message);
        while self.messages.len() > MESSAGES_KEPT {
            if let Some((_, oldest)) = self.messages.pop_first() {
                self.by_wamid.remove(&oldest.wamid);
            }
        }
    }

    /// The message of an id, while it is kept.
    pub(super) fn message(&self, wamid: &str) -> Option<&Message> {
        self.messages.get(self.by_wamid.get(wamid)?)
    }

    /// Counts a POST by what it was posted under: every reference for a while by its name, all of them by their hash.
    pub(super) fn count(&mut self, reference: Option<&str>) {
        let Some(reference) = reference else { return };
        if self.references.len() >= REFERENCES_COUNTED {
            self.references.clear();
        }
        let mut hasher = std::hash::DefaultHasher::new();
        reference.hash(&mut hasher);
        let times = self.references.entry(hasher.finish()).or_default();
        *times += 1;
        let times = *times;
        if times > 1 || self.posts_by_reference.len() < REFERENCES_NAMED {
            self.posts_by_reference.insert(reference.to_owned(), times);
        }
    }

    /// Keeps a body that was taken, so that somebody may replay it.
    pub(super) fn remember(&mut self, body: Arc<Body>) {
        if self.posted.len() >= BODIES_KEPT {
            self.posted.pop_front();
        }
        self.posted.push_back(body);
    }

    /// Moves a message on; never backwards. Says whether it moved.
    pub(super) fn advance(&mut self, sequence: u64, to: Progress, now: DateTime<Utc>) -> Option<&Message> {
        let message = self.messages.get_mut(&sequence)?;
        // What was sent can still fail; what a phone has shown cannot.
        let fails = to == Progress::Failed && message.progress == Progress::Sent;
        if message.progress >= to && !fails {
            return None;
        }
        message.progress = to;
        message.events.push((to, now));
        if matches!(to, Progress::Delivered | Progress::Read) && message.displayed_at.is_none() {
            message.displayed_at = Some(now);
        }
        Some(message)
    }

    pub(super) fn keep_media(&mut self, media: Media) -> String {
        let id = format!("{}", 1_000_000_000_000_000 + self.random() % 8_999_999_999_999_999);
        self.media_bytes += media.content.len();
        self.media.insert(id.clone(), media);
        while self.media_bytes > MEDIA_BYTES_KEPT && self.media.len() > 1 {
            let Some(oldest) = self.media.iter().min_by_key(|(_, media)| media.uploaded_at).map(|(id, _)| id.clone())
            else {
                break;
            };
            self.forget_media(&oldest);
        }
        id
    }

    pub(super) fn forget_media(&mut self, id: &str) -> bool {
        let Some(gone) = self.media.remove(id) else { return false };
        self.media_bytes -= gone.content.len();
        true
    }

    /// A file that a number may send.
    pub(super) fn media_of(&self, id: &str, number: usize, now: DateTime<Utc>) -> Option<&Media> {
        self.media.get(id).filter(|media| media.number == number && now - media.uploaded_at < MEDIA_LIFE)
    }
}
