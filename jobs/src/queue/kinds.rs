use std::{future::Future, pin::Pin};

use schemars::generate::SchemaSettings;

use super::{Disposition, Done, Job, JobContext, JobError, Lane, Payload, Settings, sealed};
use crate::vault::screen;

/// One declared kind, its type forgotten.
#[derive(Clone, Copy)]
pub struct Kind {
    /// `<word>.<verb_object>`.
    pub name: &'static str,
    /// The lane that an enqueue without one takes.
    pub lane: Lane,
    /// Its constants.
    pub settings: Settings,
    /// Whether its payloads may be personal, and so lie sealed.
    pub seals: bool,
    schema: fn() -> serde_json::Value,
    run: RunFn,
}

type RunFn = for<'a> fn(&'a str, &'a JobContext) -> Pin<Box<dyn Future<Output = Result<Done, JobFailure>> + Send + 'a>>;

/// Why an attempt failed, its type forgotten.
#[derive(Debug)]
pub struct JobFailure {
    /// What becomes of the job.
    pub disposition: Disposition,
    /// Stable cause, for machines.
    pub cause: &'static str,
    /// The chain of errors, in words; free of personal data.
    pub error: String,
}

impl Kind {
    /// The declaration of `J`.
    pub fn of<J: Job>() -> Self {
        let seals = match J::SETTINGS.payload {
            Payload::AsItsSchemaSays => J::SETTINGS.open || !sealed::holds_references_alone(&schema_of::<J>()),
            Payload::Sealed => true,
            Payload::References => false,
        };
        Self { name: J::KIND, lane: J::LANE, settings: J::SETTINGS, seals, schema: schema_of::<J>, run: run::<J> }
    }

    /// The payload's JSON Schema, 2020-12.
    pub fn schema(&self) -> serde_json::Value {
        (self.schema)()
    }

    /// Parses the payload and runs the handler.
    ///
    /// # Errors
    /// [`JobFailure`] with `queue.bad_payload` when the payload is not of the kind's type, else the handler's own.
    pub async fn run(&self, payload: &str, ctx: &JobContext) -> Result<Done, JobFailure> {
        (self.run)(payload, ctx).await
    }
}

fn schema_of<J: Job>() -> serde_json::Value {
    SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<J>().to_value()
}

fn run<'a, J: Job>(
    payload: &'a str,
    ctx: &'a JobContext,
) -> Pin<Box<dyn Future<Output = Result<Done, JobFailure>> + Send + 'a>> {
    Box::pin(async move {
        if let Err(refused) = screen::check_json(payload) {
            return Err(refuse(J::KIND, &refused, ctx).await);
        }
        let job: J = serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_str(payload)).map_err(
            // serde's own text repeats the value, which may be personal: the path says enough.
            |error| JobFailure {
                disposition: Disposition::Fail,
                cause: "queue.bad_payload",
                error: format!("payload of {}: `{}` is not what its schema says", J::KIND, error.path()),
            },
        )?;
        job.run(ctx).await.map_err(|error| JobFailure {
            disposition: error.disposition(),
            cause: error.cause(),
            error: chain(&error),
        })
    })
}

/// Refuses a payload with something in it that nobody may keep, and takes it out of the queue first: a dead letter
/// would keep it.
async fn refuse(kind: &str, refused: &screen::Refused, ctx: &JobContext) -> JobFailure {
    let error = format!("payload of {kind}: {refused}: {}", refused.found.mend());
    let emptied = async {
        let mut tx = ctx.begin().await?;
        ctx.empty_payload(&mut tx).await?;
        tx.commit().await.map_err(|source| super::LostLease::Database(ctx.job, source))
    };
    let disposition = match emptied.await {
        Ok(()) => Disposition::Fail,
        // The next attempt, here or elsewhere, empties it.
        Err(_) => Disposition::Retry,
    };
    JobFailure { disposition, cause: refused.found.cause(), error }
}

/// An error and its sources in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
