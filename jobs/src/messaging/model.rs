use std::{borrow::Cow, str::FromStr};

use chrono::{DateTime, TimeDelta, Utc};
use secrecy::SecretString;

use super::{
    quiet::QuietHours,
    recipient::Recipient,
    template::{Content, Language},
    wishes::Channel,
};
use crate::{
    outbound::{Phone, carrier::NumberId},
    people::BusinessId,
};

crate::id_type! {
    /// One thing to say to one person.
    MessageId
}

crate::id_type! {
    /// One stored webhook body.
    WebhookId
}

crate::id_type! {
    /// One mail.
    MailId
}

/// A file that goes with a message: at the head of a template, as a file of its own, or attached to a mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Its name in the file store (`files::Stored::digest`).
    pub digest: String,
    /// The name that the recipient sees: `INV-1042.pdf`.
    pub filename: String,
}

/// What to send, to whom, and what to do when nobody can tell whether it went out.
#[derive(Clone)]
pub struct NewMessage {
    /// Whose message it is; it goes out from that business's number and mail address.
    pub business: BusinessId,
    /// The recipient, by which ways and in which order.
    pub to: Recipient,
    /// Which of the business's numbers it goes out from; its first if absent.
    pub from: Option<NumberId>,
    /// Which template, with its typed parameters.
    pub content: Content,
    /// The recipient's language; a template that does not speak it falls back to English.
    pub language: Language,
    /// The file in the header; the template says whether it needs one.
    pub document: Option<Document>,
    /// Better twice than never, or better never than twice.
    pub policy: Policy,
    /// Why it is said: `invoice.issued`. For what sells it is the word under which consent is kept.
    pub purpose: Cow<'static, str>,
    /// No attempt starts before this instant.
    pub not_before: Option<DateTime<Utc>>,
    /// After this instant no further attempt starts, on any way. [`DEFAULT_LIFE`] after now if absent.
    pub expires_at: Option<DateTime<Utc>>,
    /// How long a way may take before the next one is taken. [`FALLS_BACK_AFTER`] if absent.
    pub falls_back_after: Option<TimeDelta>,
}

impl NewMessage {
    /// A message that goes now, lives [`DEFAULT_LIFE`] and has no file.
    pub fn new(
        business: BusinessId,
        to: impl Into<Recipient>,
        (content, language): (Content, Language),
        (policy, purpose): (Policy, impl Into<Cow<'static, str>>),
    ) -> Self {
        Self {
            business,
            to: to.into(),
            from: None,
            content,
            language,
            document: None,
            policy,
            purpose: purpose.into(),
            not_before: None,
            expires_at: None,
            falls_back_after: None,
        }
    }
}

/// A phone that is off for half an hour may stay off; a mail waits for her wherever she is.
pub const FALLS_BACK_AFTER: TimeDelta = TimeDelta::minutes(30);

/// How long an invoice is worth sending; then another channel is due.
pub const DEFAULT_LIFE: chrono::Duration = chrono::Duration::hours(24);

/// What to do when an attempt's fate stays unknown although webhooks arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Policy {
    /// Invoices, notices that a law asks for: try again; a late sign of the first is recorded as a duplicate.
    AtLeastOnce,
    /// Marketing, greetings: leave it.
    AtMostOnce,
}

/// What kind of thing a message is, by law and by the carrier's policy: what may stop it, when it may go out, how urgent
/// it is.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    sqlx::Type,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum MessageClass {
    /// A code that its recipient asked for and waits for.
    Otp,
    /// A law wants it said: a breach notice (DPDP Act 2023 s.8(6)), an answer to a rights request.
    Statutory,
    /// About something she did: an invoice, an order.
    Transactional,
    /// Everything that sells.
    Marketing,
}

impl MessageClass {
    /// How urgent it is to send.
    pub const fn lane(self) -> crate::queue::Lane {
        match self {
            Self::Otp => crate::queue::Lane::Otp,
            Self::Statutory => crate::queue::Lane::Statutory,
            Self::Transactional => crate::queue::Lane::Transactional,
            Self::Marketing => crate::queue::Lane::Bulk,
        }
    }
}

/// Where a message stands.
///
/// ```text
/// queued ──▶ posting ──▶ accepted ▶ held ▶ sent ▶ delivered ▶ read      (only ever to the right)
///    ▲          │            └──────┴───────┴──▶ failed
///    │          ├──▶ failed (refused for good, or expired)
///    │          ▼
///    └────── unknown ──▶ accepted … read (a webhook told)
///                └─────▶ unknown_final
/// queued ──▶ skipped (not to be said to this person, or not now)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum State {
    /// An attempt is due; `messaging.send` will make it.
    Queued,
    /// An attempt is committed, its POST may be under way.
    Posting,
    /// The carrier may have it; `messaging.reconcile` finds out.
    Unknown,
    /// The carrier has it.
    Accepted,
    /// The carrier has it and holds it back (template pacing).
    Held,
    /// On its way to the recipient's phone.
    Sent,
    /// On the recipient's phone.
    Delivered,
    /// Seen.
    Read,
    /// Not delivered, and no attempt will follow.
    Failed,
    /// Nobody can tell, and the policy or the deadline forbids another attempt.
    UnknownFinal,
    /// It was not to be sent: the recipient does not want it, or a rule forbids it.
    Skipped,
}

impl State {
    /// As it stands in rows, HTTP and counts.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Posting => "posting",
            Self::Unknown => "unknown",
            Self::Accepted => "accepted",
            Self::Held => "held",
            Self::Sent => "sent",
            Self::Delivered => "delivered",
            Self::Read => "read",
            Self::Failed => "failed",
            Self::UnknownFinal => "unknown_final",
            Self::Skipped => "skipped",
        }
    }
}

/// What came of one POST.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum AttemptOutcome {
    /// Committed; the POST may be under way.
    Posting,
    /// The carrier has it: it answered so, or a webhook says so.
    Accepted,
    /// The carrier said no.
    Refused,
    /// No byte left.
    NotSent,
    /// Maybe.
    Unknown,
    /// No sign of it although webhooks arrive: another attempt was made.
    PresumedLost,
    /// The carrier had it and finally could not deliver it.
    Failed,
}

/// A status as the carrier reports it; what we do not know is kept by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Left the carrier.
    Sent,
    /// Reached the phone.
    Delivered,
    /// Seen, or a voice message played.
    Read,
    /// Finally not delivered.
    Failed,
    /// Something newer than this program.
    Other(String),
}

impl FromStr for Status {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "sent" => Self::Sent,
            "delivered" => Self::Delivered,
            "read" | "played" => Self::Read,
            "failed" => Self::Failed,
            other => Self::Other(other.to_owned()),
        })
    }
}

/// A message as people may see it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Message {
    /// Its id.
    pub message_id: MessageId,
    /// Where it stands.
    pub state: State,
    /// The way it goes.
    pub channel: Channel,
    /// What it belongs to with the messages by other ways to the same person: the id of the first of them.
    pub delivery_id: MessageId,
    /// Which of the ways it takes, from 1.
    pub way: i32,
    /// How many there are.
    pub ways: i32,
    /// When the next way is looked at.
    pub fall_back_at: Option<DateTime<Utc>>,
    /// Whom it is for: the last two digits of the number, `…21`; of a mail address nothing but `…@`.
    pub recipient: String,
    /// Why it was said.
    pub purpose: String,
    /// What kind of thing it is.
    pub class: MessageClass,
    /// Folder of its words.
    pub template: String,
    /// Language of its words.
    pub language: String,
    /// Name of the file in its header.
    pub document_filename: Option<String>,
    /// While queued: what it waits for.
    pub held_scope: Option<String>,
    /// Why it was never to be sent.
    pub skipped_because: Option<String>,
    /// The carrier's code of the last refusal or failure.
    pub error_code: Option<i64>,
    /// Its words.
    pub error_details: Option<String>,
    /// When a second accepted attempt came to light.
    pub duplicate_delivered_at: Option<DateTime<Utc>>,
    /// No attempt starts before.
    pub not_before: Option<DateTime<Utc>>,
    /// When no further attempt starts.
    pub expires_at: DateTime<Utc>,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When its state last changed.
    pub updated_at: DateTime<Utc>,
}

/// One attempt as people may see it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Attempt {
    /// From 1.
    pub number: i32,
    /// What came of it.
    pub outcome: AttemptOutcome,
    /// HTTP status of the answer.
    pub http_status: Option<i16>,
    /// The carrier's code.
    pub error_code: Option<i64>,
    /// What went wrong.
    pub error_details: Option<String>,
    /// The carrier's trace id.
    pub trace: Option<String>,
    /// When its row was committed, just before the POST.
    pub started_at: DateTime<Utc>,
    /// When its outcome was known.
    pub ended_at: Option<DateTime<Utc>>,
    /// When a webhook told what the answer had not.
    pub adopted_at: Option<DateTime<Utc>>,
}

/// One status of a message, as it arrived.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Event {
    /// Which attempt it is about, if its reference says so.
    pub attempt: Option<i32>,
    /// As the carrier wrote it.
    pub status: String,
    /// The carrier's code of a failure.
    pub error_code: Option<i64>,
    /// The carrier's time.
    pub at: DateTime<Utc>,
    /// Ours.
    pub received_at: DateTime<Utc>,
}

/// Everything that is known of one message, in order.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Timeline {
    /// The message.
    pub message: Message,
    /// The messages by the other ways to the same person.
    pub others: Vec<Message>,
    /// Its attempts, first to last.
    pub attempts: Vec<Attempt>,
    /// Its statuses by arrival.
    pub events: Vec<Event>,
}

/// A number that a business sends from.
#[derive(Clone, Debug)]
pub struct Account {
    /// Whose it is.
    pub business: BusinessId,
    /// The carrier's id of it.
    pub number: NumberId,
    /// The WhatsApp Business Account it belongs to.
    pub waba_id: String,
    /// The number as customers see it.
    pub display_phone: Phone,
}

/// What the carrier and we must know of each other: the installation's, from its configuration, or a business's own,
/// which lie sealed beside its number.
#[derive(Clone)]
pub struct Credentials {
    /// Bearer token of the system user.
    pub access_token: SecretString,
    /// App secrets that sign webhooks: the present one and, during rotation, the one before. The first also proves
    /// possession of the token where the app asks for it.
    pub app_secrets: Vec<SecretString>,
    /// What the carrier repeats when the callback is registered.
    pub verify_token: SecretString,
}

/// How messaging behaves in this installation.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long after its start an unknown attempt waits for its webhook. 120 s: transactional messages. An attempt
    /// whose job is gone waits at least as long as that job could have run.
    pub unknown_window: std::time::Duration,
    /// Webhooks are known to arrive when one was heard within this time, and after the attempt began.
    pub intake_fresh: std::time::Duration,
    /// Pause between two looks while they are not known to arrive.
    pub intake_pause: std::time::Duration,
    /// When nothing is sent.
    pub quiet_hours: QuietHours,
    /// Where the pages of this installation are, for the link by which somebody leaves: `https://muneem.example`. None: a
    /// mail has no such link, and what sells is not sent by mail.
    pub public_url: Option<String>,
}

impl Settings {
    /// 120 s, 10 minutes, 60 s; no quiet hours, and no pages.
    pub const DEFAULT: Self = Self {
        unknown_window: std::time::Duration::from_secs(120),
        intake_fresh: std::time::Duration::from_secs(600),
        intake_pause: std::time::Duration::from_secs(60),
        quiet_hours: QuietHours::NONE,
        public_url: None,
    };
}

/// The attempt's name, echoed by the carrier in each webhook: `w1.<message id>.<number>.<tag>`.
///
/// The tag is chance and the row that holds it is committed before the POST: a stranger's value matches no row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference(pub(super) String);

impl Reference {
    pub(super) fn new(message: MessageId, number: i32, chance: &dyn crate::outbound::Chance) -> Self {
        let mut tag = [0; 10];
        chance.fill(&mut tag);
        Self(format!("w1.{}.{number}.{}", message.0.simple(), hex::encode(tag)))
    }
}
