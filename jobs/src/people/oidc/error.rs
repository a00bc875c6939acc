/// What can go wrong between a person, her provider and us.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No provider in use has this handle, or it is not for these people.
    #[error("there is no provider `{0}`: `muneem people oidc list` shows all")]
    NoSuchProvider(String),
    /// Another one has the handle.
    #[error("handle `{0}` is taken: choose another, or remove that provider first")]
    HandleTaken(String),
    /// A field of a new provider is off.
    #[error("`{0}` is off: give {1}")]
    BadField(&'static str, &'static str),
    /// The flow was used, has run out, never was, or began in another browser.
    #[error("this way to the provider and back is not open: begin again")]
    Void,
    /// Nobody here is linked with that identity.
    #[error("nobody here is linked with that account: sign in another way, and link it")]
    NotLinked,
    /// Somebody else is linked with it, or the person with another identity of the same provider.
    #[error("that account, or this person, is linked already: end that link first")]
    LinkTaken,
    /// Not what OpenID Connect calls a subject.
    #[error("the provider names the person by no subject: 1 to 255 ASCII characters")]
    BadSubject,
    /// Whoever asks may not.
    #[error(transparent)]
    People(#[from] super::super::Error),
    /// A value could not be sealed, opened or looked up.
    #[error("could not seal or open what is known of a provider")]
    Vault(#[from] crate::vault::Error),
    /// It could not be put on record, so it was not done.
    #[error("could not record it")]
    Evidence(#[from] crate::evidence::Error),
    /// The database failed.
    #[error("could not read or write identity providers")]
    Database(#[from] sqlx::Error),
}
