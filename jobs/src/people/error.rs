use crate::queue::{Disposition, JobError};

/// What can go wrong with businesses and tokens.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The handle is not of the form that URLs and commands take.
    #[error("handle `{0}` is malformed: 2 to 63 small letters, digits and single hyphens, such as sharma-mobiles")]
    BadHandle(String),
    /// Another business has it.
    #[error("handle `{0}` is taken: choose another")]
    HandleTaken(String),
    /// Nothing to print on an invoice.
    #[error("the legal name is empty: give the name of the registration")]
    EmptyLegalName,
    /// No business has this handle.
    #[error("there is no business `{0}`: `muneem people business list` shows all")]
    NoSuchBusiness(String),
    /// No token has this public id.
    #[error("there is no token `{0}`: `muneem people token list` shows all")]
    NoSuchToken(String),
    /// A token that may do nothing.
    #[error("the token has no scopes: name at least one")]
    NoScopes,
    /// Not a scope.
    #[error("there is no scope `{0}`: take {known}", known = super::Scope::list())]
    NoSuchScope(String),
    /// Nobody will know what the token is for.
    #[error("the label is empty or longer than 100 characters: say in a few words who holds the token")]
    BadLabel,
    /// It would never open anything.
    #[error("the token would expire in the past: name a later instant")]
    ExpiresInPast,
    /// No person of staff has this id, or not for whoever asks.
    #[error("there is no member of staff `{0}`: `muneem people staff list` shows all")]
    NoSuchStaff(super::StaffId),
    /// Not a role.
    #[error("there is no role `{0}`: `muneem people roles` shows all")]
    NoSuchRole(String),
    /// A role of a business for staff of the platform, or the other way round.
    #[error("the role `{0}` is not for {where_}: `muneem people roles` shows who may have it", where_ = place(*.1))]
    RoleNotHere(super::Role, Option<super::BusinessId>),
    /// Somebody would give away more than she has.
    #[error("this gives `{0}`, which you do not have yourself: ask somebody who has it")]
    BeyondOwn(super::Scope),
    /// Whoever asks may not do this.
    #[error("this needs the scope `{0}`")]
    MissingScope(super::Scope),
    /// A business without an owner could never be opened again.
    #[error("this is the last owner of the business: make somebody else an owner first")]
    LastOwner,
    /// Somebody else of the same business has the phone or the mail address.
    #[error("another member of staff has this phone or mail address: each has her own")]
    ContactTaken,
    /// Neither phone nor mail address.
    #[error("neither phone nor mail address is given: give one, to reach and recognise the person by")]
    Unreachable,
    /// A token's list of networks is off.
    #[error("`{0}` is no network: write an address or a CIDR block such as 203.0.113.0/24")]
    BadNetwork(String),
    /// More networks than anybody keeps an eye on.
    #[error("the list of networks is longer than 64: name wider blocks")]
    TooManyNetworks,
    /// A token cannot be the person that this needs.
    #[error("a token cannot have the scope `{0}`: only a person may do that")]
    ForPeopleAlone(super::Scope),
    /// A token for somebody that does more than she.
    #[error("the person it is for may not `{0}` herself: leave it out, or grant her a role that may")]
    BeyondHolder(super::Scope),
    /// What somebody signs in with could not be read or ended.
    #[error("could not end what she signs in with")]
    SignIn(#[from] super::signin::Error),
    /// Her part in decisions could not be ended.
    #[error("could not end her part in open decisions")]
    Approval(#[source] Box<super::approval::Error>),
    /// A field of the profile is off.
    #[error("`{field}` {problem}: {mend}")]
    BadField {
        /// Which.
        field: &'static str,
        /// What is wrong with it, never its value.
        problem: String,
        /// What to do.
        mend: &'static str,
    },
    /// What a business pays for is not its own to set.
    #[error("the plan is set by whoever runs the installation: ask there")]
    PlanNotYours,
    /// Nobody lets support in but the business itself.
    #[error("only a person of the business lets support in: sign in to its console")]
    NotOfBusiness,
    /// No grant has this id, or not for whoever asks.
    #[error("there is no such grant to support `{0}`: `muneem people support list` shows all")]
    NoSuchGrant(super::support::GrantId),
    /// The grant has ended.
    #[error("this grant to support has ended: ask the business for another one")]
    GrantEnded,
    /// The owner let somebody else in.
    #[error("this grant to support is for another person of support: ask the business for one of her own")]
    GrantForAnother,
    /// Support is let in for a day at most.
    #[error("support is let in for a quarter of an hour to 24 hours: name such a time")]
    BadDuration,
    /// Nobody would know why.
    #[error("the reason is empty or longer than 500 characters: say why support should look")]
    BadReason,
    /// Only support uses a grant to support.
    #[error("this person is not of the platform's support: grant her the role first")]
    NotSupport,
    /// The job that ends it was not taken.
    #[error("could not enqueue the end of a grant")]
    Enqueue(#[from] crate::queue::Error),
    /// Another worker has the job.
    #[error("a job of people")]
    Lease(#[from] crate::queue::LostLease),
    /// A personal value could not be sealed.
    #[error("could not seal what is known of the person")]
    Vault(#[from] crate::vault::Error),
    /// Not a mail address.
    #[error("the mail address is malformed: write name@domain")]
    BadEmail,
    /// The decision could not be put on record, so it was not taken.
    #[error("could not record the decision")]
    Evidence(#[from] crate::evidence::Error),
    /// The database failed.
    #[error("could not read or write businesses and tokens")]
    Database(#[from] sqlx::Error),
}

fn place(business: Option<super::BusinessId>) -> &'static str {
    if business.is_some() { "staff of a business" } else { "staff of the platform" }
}

impl From<super::approval::Error> for Error {
    fn from(error: super::approval::Error) -> Self {
        match error {
            super::approval::Error::People(error) => error,
            error => Self::Approval(Box::new(error)),
        }
    }
}

impl JobError for Error {
    fn disposition(&self) -> Disposition {
        match self {
            Self::Vault(source) => source.disposition(),
            Self::Approval(source) => source.disposition(),
            Self::Lease(_) | Self::Database(_) | Self::Enqueue(_) | Self::Evidence(_) => Disposition::Retry,
            _ => Disposition::Fail,
        }
    }

    fn cause(&self) -> &'static str {
        match self {
            Self::Vault(source) => source.cause(),
            Self::Approval(source) => source.cause(),
            Self::Lease(_) => "people.lost_lease",
            Self::Database(_) => "people.database",
            Self::Evidence(_) => "people.evidence",
            _ => "people.refused",
        }
    }
}
