//! What the stand-in knows: files, chats, what was posted and what is scripted. In memory and bounded; gone with the
//! process.

use std::collections::{BTreeMap, HashMap};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use super::fault::{Callbacks, Fault};

/// Messages kept; the oldest go first.
const MESSAGES_KEPT: usize = 20_000;
/// Bytes of files kept; the oldest go first.
const MEDIA_BYTES_KEPT: usize = 256 * 1024 * 1024;
/// References counted; then counting begins anew.
const REFERENCES_COUNTED: usize = 1_000_000;
/// Life of an uploaded file.
const MEDIA_LIFE: TimeDelta = TimeDelta::days(30);

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

#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) wamid: String,
    pub(super) number: String,
    /// Digits without plus.
    pub(super) to: String,
    pub(super) reference: Option<String>,
    pub(super) text: String,
    pub(super) document: Option<(String, String)>,
    pub(super) progress: Progress,
    pub(super) accepted_at: DateTime<Utc>,
    /// When the phone showed it.
    pub(super) displayed_at: Option<DateTime<Utc>>,
    pub(super) events: Vec<(Progress, DateTime<Utc>)>,
}

#[derive(Clone, Debug)]
pub(super) struct Media {
    pub(super) number: String,
    pub(super) mime_type: String,
    pub(super) content: Bytes,
    pub(super) uploaded_at: DateTime<Utc>,
}

/// A bucket that refills.
#[derive(Debug)]
struct Bucket {
    left: f64,
    filled_at: DateTime<Utc>,
}

impl Bucket {
    fn take(&mut self, now: DateTime<Utc>, size: f64, per_second: f64) -> bool {
        let passed = (now - self.filled_at).num_microseconds().unwrap_or(0).max(0);
        #[expect(clippy::cast_precision_loss, reason = "a bucket is not that exact")]
        let refill = passed as f64 / 1e6 * per_second;
        self.left = (self.left + refill).min(size);
        self.filled_at = now;
        let enough = self.left >= 1.0;
        if enough {
            self.left -= 1.0;
        }
        enough
    }
}

#[derive(Debug)]
pub(super) struct World {
    random: u64,
    next: u64,
    pub(super) posts: u64,
    pub(super) posts_by_reference: HashMap<String, u32>,
    pub(super) uploads: u64,
    pub(super) messages: BTreeMap<u64, Message>,
    by_wamid: HashMap<String, u64>,
    pub(super) media: BTreeMap<String, Media>,
    media_bytes: usize,
    pub(super) faults: Vec<Fault>,
    pub(super) callbacks: Callbacks,
    pub(super) callback_url: Option<String>,
    pub(super) webhooks_taken: u64,
    pub(super) webhooks_refused: u64,
    buckets: HashMap<String, Bucket>,
}

impl World {
    pub(super) fn new(seed: u64, callback_url: Option<String>) -> Self {
        Self {
            random: seed,
            next: 1,
            posts: 0,
            posts_by_reference: HashMap::new(),
            uploads: 0,
            messages: BTreeMap::new(),
            by_wamid: HashMap::new(),
            media: BTreeMap::new(),
            media_bytes: 0,
            faults: Vec::new(),
            callbacks: Callbacks::default(),
            callback_url,
            webhooks_taken: 0,
            webhooks_refused: 0,
            buckets: HashMap::new(),
        }
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

    /// The number's limit, then the pair's: 45 at once, one in six seconds.
    pub(super) fn admit(&mut self, number: &str, to: &str, per_second: u32, now: DateTime<Utc>) -> Result<(), i64> {
        if self.buckets.len() > 100_000 {
            self.buckets.clear();
        }
        let rate = f64::from(per_second);
        let full = |left| move || Bucket { left, filled_at: now };
        if !self.buckets.entry(number.to_owned()).or_insert_with(full(rate)).take(now, rate, rate) {
            return Err(130_429);
        }
        let pair = format!("{number}>{to}");
        if !self.buckets.entry(pair).or_insert_with(full(45.0)).take(now, 45.0, 1.0 / 6.0) {
            return Err(131_056);
        }
        Ok(())
    }

    /// Takes a message in. Like the carrier, it takes an equal one again. Its id spells the recipient, as theirs do.
    pub(super) fn accept(&mut self, mut message: Message) -> Message {
        let (sequence, salt) = (self.next, self.random());
        self.next += 1;
        let inside = format!("\u{1e}\u{4}{}\u{15}\u{2}{salt:016X}{sequence:08X}", message.to);
        message.wamid = format!("wamid.{}", STANDARD.encode(inside));
        self.by_wamid.insert(message.wamid.clone(), sequence);
        self.messages.insert(sequence, message.clone());
        while self.messages.len() > MESSAGES_KEPT {
            if let Some((_, oldest)) = self.messages.pop_first() {
                self.by_wamid.remove(&oldest.wamid);
            }
        }
        message
    }

    /// Counts a POST by what it was posted under.
    pub(super) fn count(&mut self, reference: Option<&str>) {
        if self.posts_by_reference.len() >= REFERENCES_COUNTED {
            self.posts_by_reference.clear();
        }
        if let Some(reference) = reference {
            *self.posts_by_reference.entry(reference.to_owned()).or_default() += 1;
        }
    }

    /// Moves a message on; never backwards. Says whether it moved.
    pub(super) fn advance(&mut self, wamid: &str, to: Progress, now: DateTime<Utc>) -> Option<Message> {
        let message = self.messages.get_mut(self.by_wamid.get(wamid)?)?;
        if message.progress >= to {
            return None;
        }
        message.progress = to;
        message.events.push((to, now));
        if matches!(to, Progress::Delivered | Progress::Read) && message.displayed_at.is_none() {
            message.displayed_at = Some(now);
        }
        Some(message.clone())
    }

    pub(super) fn keep_media(&mut self, media: Media) -> String {
        let id = format!("{}", 1_000_000_000_000_000 + self.random() % 8_999_999_999_999_999);
        self.uploads += 1;
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
    pub(super) fn media_of(&self, id: &str, number: &str, now: DateTime<Utc>) -> Option<&Media> {
        self.media.get(id).filter(|media| media.number == number && now - media.uploaded_at < MEDIA_LIFE)
    }
}
