use std::path::PathBuf;

use super::shop::NotSold;

/// Why the demo could not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A directory or file of the demo.
    #[error("demo: {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The private Postgres.
    #[error("demo: Postgres does not start")]
    Postgres(#[from] muneem_postgres::Error),
    /// A statement of the demo.
    #[error("demo: could not {attempted}")]
    Database {
        /// What was attempted.
        attempted: &'static str,
        /// Why it failed.
        #[source]
        source: sqlx::Error,
    },
    /// One of the demo's processes did not start or ended.
    #[error("demo: `muneem {command}` {trouble}; its log, {}, ends: {tail}", log.display())]
    Process {
        /// Its arguments.
        command: String,
        /// What happened.
        trouble: String,
        /// Where its words are.
        log: PathBuf,
        /// The last of them.
        tail: String,
    },
    /// No port is free, or the page cannot be served.
    #[error("demo: the shop's page")]
    Page(#[source] std::io::Error),
    /// A template of the shop's page.
    #[error("demo: the shop's page")]
    Template(#[from] handlebars::TemplateError),
    /// The shop's own business could not be set up.
    #[error("demo: the shop's business")]
    Business(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The stand-in or the API does not answer.
    #[error("demo: asking {what}")]
    Http {
        /// Whom.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: reqwest::Error,
    },
    /// The shop did not sell.
    #[error("demo: nothing sold: {0}")]
    NotSold(String),
}

impl Error {
    pub(super) fn database(attempted: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Database { attempted, source }
    }

    pub(super) fn http(what: &'static str) -> impl FnOnce(reqwest::Error) -> Self {
        move |source| Self::Http { what, source }
    }
}

impl From<NotSold> for Error {
    fn from(error: NotSold) -> Self {
        Self::NotSold(error.to_string())
    }
}
