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
    /// The database failed.
    #[error("could not read or write businesses and tokens")]
    Database(#[from] sqlx::Error),
}
