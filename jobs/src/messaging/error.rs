use std::borrow::Cow;

use chrono::{DateTime, Utc};

use super::{MailId, MessageId, WebhookId, campaign::CampaignId, mail, wishes};
use crate::{
    files,
    outbound::{carrier::UploadError, mailer::MailFailure},
    people,
    queue::{self, Disposition, JobError, LostLease},
    vault,
};

/// A message could not be asked for, sent or followed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The business has no WhatsApp number here.
    #[error("the business has no WhatsApp number: add one with its phone number id")]
    NoAccount,
    /// The number belongs to another business.
    #[error("this WhatsApp number belongs to another business")]
    NumberTaken,
    /// The id of the WhatsApp Business Account is none.
    #[error("a WhatsApp Business Account id is 1 to 32 digits: copy it from WhatsApp Manager, API setup")]
    BadWabaId,
    /// The business has no such number.
    #[error("this business has no such WhatsApp number: `muneem messaging account list` shows its numbers")]
    NoSuchNumber,
    /// Something about an app of a business's own is missing or malformed.
    #[error("{0} is missing or malformed: copy it from the app's dashboard")]
    BadApp(&'static str),
    /// What is stored of an app no longer reads.
    #[error("what is stored of a number's app does not read: set it again")]
    AppUnreadable,
    /// There is no such campaign, or it is another business's.
    #[error("there is no such campaign: `muneem messaging campaigns list` shows those there are")]
    NoSuchCampaign,
    /// People are added to drafts alone.
    #[error("the campaign was started already: make another one for more people")]
    CampaignBegun,
    /// A draft neither rests nor goes on.
    #[error("the campaign has not begun: start it, or stop it for good")]
    CampaignNotBegun,
    /// What a campaign is filled from cannot be read as a list of people.
    #[error("the list {0}")]
    BadList(String),
    /// A campaign that has ended stays so.
    #[error("the campaign has ended: make another one")]
    CampaignOver,
    /// What a campaign is made of does not fit.
    #[error("{0} {1}")]
    BadCampaign(&'static str, &'static str),
    /// A stream of a campaign waits for its next wave or its next look.
    #[error("campaign {campaign} goes on at {until}")]
    CampaignWaits {
        /// Which.
        campaign: CampaignId,
        /// When.
        until: DateTime<Utc>,
    },
    /// A template parameter that the carrier would refuse.
    #[error("template parameter {field} {mend}")]
    BadParameter {
        /// The parameter.
        field: Cow<'static, str>,
        /// What it must be.
        mend: Cow<'static, str>,
    },
    /// The template wants a file, or wants none.
    #[error("template {template} {mend}")]
    BadDocument {
        /// The template.
        template: String,
        /// What it must be.
        mend: &'static str,
    },
    /// What stands around the words does not fit.
    #[error("{field} {mend}")]
    BadMessage {
        /// The field.
        field: &'static str,
        /// What it must be.
        mend: &'static str,
    },
    /// Words of one's own are for answers: the person has not written within 24 hours (Cloud API error 131047).
    #[error("she has not written within 24 hours, so only a template may be sent: send one")]
    WindowClosed,
    /// The row that a job names is not there.
    #[error("message {0} does not exist")]
    NoMessage(MessageId),
    /// The row that a job names is not there.
    #[error("webhook {0} does not exist")]
    NoWebhook(WebhookId),
    /// What is stored of a message no longer reads: an older program's words.
    #[error("message {0}: its stored {1} does not read")]
    Unreadable(MessageId, &'static str),
    /// The message waits for its next attempt or its next look.
    #[error("message {message} waits until {until}: {why}")]
    Waiting {
        /// Which.
        message: MessageId,
        /// Until when.
        until: DateTime<Utc>,
        /// For what.
        why: &'static str,
    },
    /// The file did not get to the carrier.
    #[error("message {0}: upload")]
    Upload(MessageId, #[source] Box<UploadError>),
    /// The file could not be fetched from our own store.
    #[error("message {0}: fetch its file")]
    File(MessageId, #[source] files::Error),
    /// Another worker has the job.
    #[error("messaging: lease")]
    Lease(#[from] LostLease),
    /// A follow-up job was not taken.
    #[error("messaging: enqueue")]
    Enqueue(#[from] queue::Error),
    /// The row that a job names is not there.
    #[error("mail {0} does not exist")]
    NoMail(MailId),
    /// What is stored of a mail no longer reads: an older program's words.
    #[error("mail {0}: its stored {1} does not read")]
    MailUnreadable(MailId, &'static str),
    /// The mail server did not take a mail; it may be sent again.
    #[error("mail {0} was not sent: {1}")]
    MailNotSent(MailId, MailFailure),
    /// The words of a mail could not be filled, or its parts cannot be sent.
    #[error("mail {0}: its words")]
    MailWords(MailId, #[source] Box<mail::ComposeError>),
    /// The words of a message by mail could not be filled, or its parts cannot be sent.
    #[error("message {0}: its mail")]
    MessageMail(MessageId, #[source] Box<mail::ComposeError>),
    /// What is stored of a report no longer reads.
    #[error("mail report {0}: its stored body does not read")]
    ReportUnreadable(uuid::Uuid),
    /// Whom the mail of a business comes from cannot be set up like this.
    #[error("whom the mail of a business comes from")]
    MailIdentity(#[from] mail::BadIdentity),
    /// Whom to write to could not be read.
    #[error("messaging: read whom to write to")]
    Staff(#[source] Box<people::Error>),
    /// The link that a message is about could not be read.
    #[error("messaging: read a link")]
    Link(#[source] Box<people::links::Error>),
    /// What somebody wants to hear could not be read or written.
    #[error("messaging: wishes")]
    Wishes(#[source] Box<wishes::Error>),
    /// What is personal could not be sealed or opened.
    #[error("messaging: vault")]
    Vault(#[from] vault::Error),
    /// What was done could not be put on record, so it was not done.
    #[error("messaging: evidence")]
    Evidence(#[from] crate::evidence::Error),
    /// A code's other way could not be planned.
    #[error("messaging: one-time code")]
    Otp(#[from] Box<super::otp::Error>),
    /// The frontend could not be told.
    #[error("messaging: webhooks")]
    Webhooks(#[source] Box<crate::webhooks::Error>),
    /// The database failed.
    #[error("messaging: database")]
    Database(#[from] sqlx::Error),
}

impl From<crate::webhooks::Error> for Error {
    fn from(error: crate::webhooks::Error) -> Self {
        Self::Webhooks(Box::new(error))
    }
}

impl From<people::links::Error> for Error {
    fn from(error: people::links::Error) -> Self {
        Self::Link(Box::new(error))
    }
}

impl From<wishes::Error> for Error {
    fn from(error: wishes::Error) -> Self {
        Self::Wishes(Box::new(error))
    }
}

impl JobError for Error {
    fn disposition(&self) -> Disposition {
        match self {
            Self::NoAccount
            | Self::NumberTaken
            | Self::BadWabaId
            | Self::NoSuchNumber
            | Self::NoSuchCampaign
            | Self::CampaignBegun
            | Self::CampaignOver
            | Self::CampaignNotBegun
            | Self::BadList(_)
            | Self::BadCampaign(..)
            | Self::BadApp(_)
            | Self::AppUnreadable
            | Self::BadParameter { .. }
            | Self::BadDocument { .. }
            | Self::BadMessage { .. }
            | Self::WindowClosed
            | Self::NoMessage(_)
            | Self::NoWebhook(_)
            | Self::NoMail(_)
            | Self::MailUnreadable(..)
            | Self::MailWords(..)
            | Self::MessageMail(..)
            | Self::ReportUnreadable(_)
            | Self::MailIdentity(_)
            | Self::Unreadable(..) => Disposition::Fail,
            Self::Waiting { until, .. } | Self::CampaignWaits { until, .. } => Disposition::Snooze(*until),
            Self::File(_, source) => source.disposition(),
            Self::Vault(source) => source.disposition(),
            Self::Evidence(source) => source.disposition(),
            Self::Link(source) => source.disposition(),
            Self::Otp(source) => source.disposition(),
            Self::Webhooks(source) => source.disposition(),
            Self::Wishes(source) => source.disposition(),
            Self::Upload(..)
            | Self::Lease(_)
            | Self::Enqueue(_)
            | Self::MailNotSent(..)
            | Self::Staff(_)
            | Self::Database(_) => Disposition::Retry,
        }
    }

    fn cause(&self) -> &'static str {
        match self {
            Self::NoAccount => "messaging.no_account",
            Self::NumberTaken => "messaging.number_taken",
            Self::BadWabaId => "messaging.bad_waba_id",
            Self::NoSuchNumber => "messaging.no_such_number",
            Self::NoSuchCampaign => "messaging.no_such_campaign",
            Self::CampaignBegun => "messaging.campaign_begun",
            Self::CampaignOver => "messaging.campaign_over",
            Self::CampaignNotBegun => "messaging.campaign_not_begun",
            Self::BadList(_) => "messaging.bad_list",
            Self::BadCampaign(..) => "messaging.bad_campaign",
            Self::CampaignWaits { .. } => "messaging.campaign_waits",
            Self::BadApp(_) => "messaging.bad_app",
            Self::AppUnreadable => "messaging.app_unreadable",
            Self::BadParameter { .. } => "messaging.bad_parameter",
            Self::BadDocument { .. } => "messaging.bad_document",
            Self::BadMessage { .. } => "messaging.bad_message",
            Self::WindowClosed => "messaging.window_closed",
            Self::NoMessage(_) => "messaging.no_message",
            Self::NoWebhook(_) => "messaging.no_webhook",
            Self::NoMail(_) => "messaging.no_mail",
            Self::MailUnreadable(..) => "messaging.mail_unreadable",
            Self::MailNotSent(..) => "messaging.mail_not_sent",
            Self::MailWords(..) => "messaging.mail_words",
            Self::MessageMail(..) => "messaging.message_mail",
            Self::ReportUnreadable(_) => "messaging.report_unreadable",
            Self::MailIdentity(_) => "messaging.mail_identity",
            Self::Staff(_) => "messaging.staff",
            Self::Unreadable(..) => "messaging.unreadable",
            Self::Waiting { .. } => "messaging.waiting",
            Self::Upload(..) => "messaging.upload",
            Self::File(..) => "messaging.file",
            Self::Lease(_) => "messaging.lost_lease",
            Self::Enqueue(_) => "messaging.enqueue",
            Self::Vault(source) => source.cause(),
            Self::Evidence(source) => source.cause(),
            Self::Link(source) => source.cause(),
            Self::Otp(source) => source.cause(),
            Self::Webhooks(source) => source.cause(),
            Self::Wishes(source) => source.cause(),
            Self::Database(_) => "messaging.database",
        }
    }
}
