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
