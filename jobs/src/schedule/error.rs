use super::ExpressionError;
use crate::queue::{self, Disposition, JobError};

/// What can go wrong with a schedule.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was typed means nothing.
    #[error(transparent)]
    Expression(#[from] ExpressionError),
    /// The payload of a declaration does not become JSON.
    #[error("schedule `{name}`: its payload does not become JSON")]
    Payload {
        /// The schedule.
        name: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A field of an entry is off.
    #[error("schedule `{name}`: {field} {why}")]
    Field {
        /// The schedule.
        name: String,
        /// Which field.
        field: &'static str,
        /// What is wrong, and what to write.
        why: String,
    },
    /// There is none.
    #[error("no schedule `{0}`: `muneem schedule list` shows all")]
    NotFound(String),
    /// The entry belongs to the code.
    #[error("schedule `{0}` is declared in code: it can be paused, resumed and triggered, not changed or removed")]
    DeclaredInCode(String),
    /// An operator's entry has the name that a duty declares.
    #[error(
        "schedule `{0}` is declared in code, but an entry of that name was put here by hand: rename or remove that"
    )]
    NameTaken(String),
    /// The queue refused the job, or had nobody to file it under.
    #[error("schedule `{name}`: no job could be made: {why}")]
    NotEnqueued {
        /// The schedule.
        name: String,
        /// The queue's own words.
        why: String,
    },
    /// The decision could not be put on record, so it was not taken.
    #[error("schedule: could not record the decision")]
    Evidence(#[from] crate::evidence::Error),
    /// The database could not be asked.
    #[error("schedule: could not {attempted}")]
    Database {
        /// What was attempted.
        attempted: &'static str,
        /// Why it failed.
        #[source]
        source: sqlx::Error,
    },
}

impl Error {
    pub(super) fn database(attempted: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Database { attempted, source }
    }

    pub(super) fn enqueue(name: &str, error: queue::Error) -> Self {
        match error {
            queue::Error::Database(source) if !about_the_job(&source) => {
                Self::Database { attempted: "enqueue the job of a schedule", source }
            }
            refused => Self::NotEnqueued { name: name.to_owned(), why: refused.to_string() },
        }
    }
}

impl JobError for Error {
    fn disposition(&self) -> Disposition {
        match self {
            Self::Database { .. } => Disposition::Retry,
            Self::Evidence(error) => error.disposition(),
            Self::Expression(_)
            | Self::Payload { .. }
            | Self::Field { .. }
            | Self::NotFound(_)
            | Self::DeclaredInCode(_)
            | Self::NameTaken(_)
            | Self::NotEnqueued { .. } => Disposition::Fail,
        }
    }

    fn cause(&self) -> &'static str {
        match self {
            Self::Expression(_) => "schedule.bad_expression",
            Self::Payload { .. } => "schedule.bad_payload",
            Self::Field { .. } => "schedule.bad_field",
            Self::NotFound(_) => "schedule.not_found",
            Self::DeclaredInCode(_) => "schedule.declared_in_code",
            Self::NameTaken(_) => "schedule.name_taken",
            Self::NotEnqueued { .. } => "schedule.not_enqueued",
            Self::Database { .. } => "schedule.database",
            Self::Evidence(error) => error.cause(),
        }
    }
}

/// Whether the database spoke about this statement, rather than about itself (gone, full, shutting down, deadlocked):
/// then another entry may fare better.
fn about_the_job(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|database| database.code());
    code.is_some_and(|code| ["22", "23", "42", "P0"].iter().any(|class| code.starts_with(class)))
}
