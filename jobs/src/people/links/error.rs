use crate::{
    queue::{self, Disposition, JobError, LostLease},
    vault,
};

/// What can go wrong with links.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Unknown, of another purpose, expired, revoked or used up: one answer for all.
    #[error("this link does not work, or not any more: ask whoever sent it for another one")]
    NoSuchLink,
    /// The code was not entered, or too long ago.
    #[error("the code must be entered first, or once more")]
    NotProved,
    /// Whoever follows the link asked for all the codes it has.
    #[error("no more codes are sent for this link: ask whoever sent it for another one")]
    TooManyCodes,
    /// Nothing carries messages to phones on behalf of the installation.
    #[error(
        "no WhatsApp number of somebody else's writes on behalf of this installation: give a mail address, or have its \
         operator name another business that has one in `messaging.whatsapp.installation_business`"
    )]
    NoWayToPhone,
    /// What carries it belongs to whoever asks.
    #[error(
        "the number that would carry the code is one that whoever asks works for, and could read it at: give a mail address"
    )]
    OwnNumber,
    /// The mail server refused the mail for good.
    #[error("link {0}: the mail was refused: {1}")]
    Refused(super::LinkId, String),
    /// The mail server did not take the mail.
    #[error("link {0}: the mail was not taken: {1}")]
    NotSent(super::LinkId, String),
    /// What was sealed does not read.
    #[error("link {0}: what is sealed there cannot be read")]
    Unreadable(super::LinkId),
    /// The contact is malformed.
    #[error("the phone or mail address of a link")]
    Contact(#[source] Box<super::super::Error>),
    /// Words cannot be made.
    #[error("the words of a link's message")]
    Words(#[source] Box<handlebars::RenderError>),
    /// The mail cannot be sent as it is.
    #[error("the mail with a link")]
    Mail(#[from] crate::outbound::BadMail),
    /// Something could not be sealed or opened.
    #[error("the vault, for a link")]
    Vault(#[from] vault::Error),
    /// The job that sends it was not taken.
    #[error("could not enqueue the sending of a link")]
    Enqueue(#[from] queue::Error),
    /// Another worker has the job.
    #[error("a link's job")]
    Lease(#[from] LostLease),
    /// The database failed.
    #[error("could not read or write links")]
    Database(#[from] sqlx::Error),
}

impl From<super::super::Error> for Error {
    fn from(error: super::super::Error) -> Self {
        Self::Contact(Box::new(error))
    }
}

impl JobError for Error {
    fn disposition(&self) -> Disposition {
        match self {
            Self::Vault(source) => source.disposition(),
            Self::NotSent(..) | Self::Lease(_) | Self::Database(_) | Self::Enqueue(_) => Disposition::Retry,
            _ => Disposition::Fail,
        }
    }

    fn cause(&self) -> &'static str {
        match self {
            Self::NoSuchLink => "people.no_such_link",
            Self::NotProved => "people.link_not_proved",
            Self::TooManyCodes => "people.link_codes",
            Self::NoWayToPhone => "people.link_no_way",
            Self::OwnNumber => "people.link_own_number",
            Self::Refused(..) => "people.link_refused",
            Self::NotSent(..) => "people.link_not_sent",
            Self::Unreadable(_) => "people.link_unreadable",
            Self::Contact(_) => "people.link_contact",
            Self::Words(_) => "people.link_words",
            Self::Mail(_) => "people.link_mail",
            Self::Vault(source) => source.cause(),
            Self::Enqueue(_) => "people.link_enqueue",
            Self::Lease(_) => "people.lost_lease",
            Self::Database(_) => "people.database",
        }
    }
}
