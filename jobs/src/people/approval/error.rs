use crate::{
    evidence,
    people::{self, Scope, links},
    queue::{self, Disposition, JobError, LostLease},
    vault,
};

use super::{ApprovalId, State};

/// What can go wrong with a decision.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No decision has this id, or not for whoever asks.
    #[error("there is no decision `{0}`: `muneem people approval list` shows all")]
    NoSuchApproval(ApprovalId),
    /// Not a kind of decision.
    #[error("there is no kind of decision `{0}`")]
    NoSuchKind(String),
    /// The thing's id is no word.
    #[error("the subject's id is malformed: 1 to 160 letters, digits and ._:/-")]
    BadSubject,
    /// The summary cannot be shown.
    #[error("the summary {0}")]
    BadSummary(String),
    /// The plan has no canonical JSON.
    #[error("the plan has no canonical JSON")]
    NotCanonical(#[source] serde_json::Error),
    /// Not a reason.
    #[error("there is no such reason: take too_much, wrong, unclear, not_now or not_expected")]
    NoSuchReason,
    /// Not a plan's hash.
    #[error("the plan's hash is malformed: 64 hexadecimal digits")]
    BadPlanHash,
    /// How many must approve is off.
    #[error("between 1 and 5 people approve a decision: name such a number")]
    BadNumber,
    /// It would end at once, or never.
    #[error("the decision expires in the past, or more than 90 days away: name another instant")]
    BadExpiry,
    /// There is one already.
    #[error("a decision about this thing is open already: change its plan, or withdraw it first")]
    AlreadyOpen,
    /// A change that changes nothing.
    #[error("the plan is the one that was asked for already")]
    SamePlan,
    /// The plan was changed since it was looked at.
    #[error("the plan has changed since you looked at it: look again, then decide")]
    PlanChanged,
    /// It has ended, or stands elsewhere.
    #[error("the decision is {0}: nothing can be done about it this way")]
    NotOpen(State),
    /// Whoever asked, or changed the plan, does not approve it.
    #[error("whoever asks for something does not approve it, under no account of hers: ask somebody else")]
    SecondPersonNeeded,
    /// One person, one vote.
    #[error("you have decided on this already")]
    AlreadyVoted,
    /// The same phone or mail address has voted under another account.
    #[error("somebody with your phone or mail address has decided on this already: one person decides once")]
    SamePerson,
    /// Nobody has seen that she holds her phone or mail address.
    #[error("your phone or mail address is not verified: sign in with a code first")]
    NotVerified,
    /// A token, a command or a job.
    #[error("only a person may `{0}`: sign in to the console")]
    ForPeopleAlone(Scope),
    /// It takes more than was said.
    #[error("too few people have approved this")]
    NotApproved,
    /// Somebody of the business may approve it herself.
    #[error("somebody of the business may approve this: somebody outside is asked only where there is nobody")]
    HasApprovers,
    /// The contact is of somebody who has a hand in it.
    #[error("this phone or mail address is of somebody of the business, or of whoever asked: name another person's")]
    NotOutside,
    /// More invitations than anybody keeps an eye on.
    #[error(
        "three people outside are invited already, or ten were in the life of this decision: take an invitation back, or ask for the decision anew"
    )]
    TooManyInvited,
    /// What is sealed does not open, or is not of the plan in force: somebody changed it in the database.
    #[error(
        "decision {0}: its summary is not the one that was asked for: withdraw it, find out who changed it, and ask anew"
    )]
    Swapped(ApprovalId),
    /// Which numbers messages go out from could not be read; messaging says why.
    #[error("could not read which numbers messages go out from")]
    Numbers(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The invitation.
    #[error(transparent)]
    Link(#[from] links::Error),
    /// Rights, people and businesses.
    #[error(transparent)]
    People(#[from] people::Error),
    /// The summary could not be sealed or opened.
    #[error("the vault, for a decision")]
    Vault(#[from] vault::Error),
    /// It could not be put on record, so it was not done.
    #[error("could not record the decision")]
    Evidence(#[from] evidence::Error),
    /// The job that ends it was not taken.
    #[error("could not enqueue the end of a decision")]
    Enqueue(#[from] queue::Error),
    /// Another worker has the job.
    #[error("a decision's job")]
    Lease(#[from] LostLease),
    /// The database failed.
    #[error("could not read or write decisions")]
    Database(#[source] sqlx::Error),
}

/// What the database refuses, by the constraint's name.
impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let constraint = error.as_database_error().and_then(|error| error.constraint());
        match constraint {
            Some("people_approvals_open") => Self::AlreadyOpen,
            Some("people_approval_votes_same_plan" | "people_approvals_plan_asks_anew") => Self::PlanChanged,
            Some("people_approval_votes_second_person") => Self::SecondPersonNeeded,
            Some("people_approval_votes_other_person") => Self::SamePerson,
            Some("people_approval_votes_once") => Self::AlreadyVoted,
            Some("people_approval_votes_verified") => Self::NotVerified,
            Some("people_approvals_enough" | "people_approvals_approved_first") => Self::NotApproved,
            Some("people_approval_votes_invited") => Self::Link(links::Error::NoSuchLink),
            _ => Self::Database(error),
        }
    }
}

impl JobError for Error {
    fn disposition(&self) -> Disposition {
        match self {
            Self::Vault(source) => source.disposition(),
            Self::Link(source) => source.disposition(),
            Self::Lease(_) | Self::Database(_) | Self::Enqueue(_) | Self::Evidence(_) => Disposition::Retry,
            _ => Disposition::Fail,
        }
    }

    fn cause(&self) -> &'static str {
        match self {
            Self::Vault(source) => source.cause(),
            Self::Link(source) => source.cause(),
            Self::Lease(_) => "people.lost_lease",
            Self::Database(_) => "people.database",
            Self::Evidence(_) => "people.evidence",
            _ => "people.approval",
        }
    }
}
