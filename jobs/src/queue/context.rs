use std::{future::Future, pin::Pin, sync::Arc};

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, Postgres, Transaction};
use tokio_util::sync::CancellationToken;

use super::sealed;
use crate::{
    Deps,
    evidence::{Actor, By},
    id::JobId,
    people::BusinessId,
};

/// What a handler is given beside its payload.
pub struct JobContext {
    /// The database and the outside.
    pub deps: Arc<Deps>,
    /// The job.
    pub job: JobId,
    /// Which attempt this is, from 1: together with [`Self::worker`] the fencing token of the lease.
    pub attempt: i32,
    /// The worker incarnation that holds the lease.
    pub worker: i64,
    /// The business it is for.
    pub business: BusinessId,
    /// Raised when the job is cancelled or its lease is lost.
    pub cancelled: CancellationToken,
    /// Told of each step; tests kill the job there.
    pub steps: Arc<dyn Steps>,
}

/// Hears of every step of a job. The runtime logs it; `crash_at_every_step` never answers.
pub trait Steps: Send + Sync + 'static {
    /// Called between two effects; a job killed here must end right when run again.
    fn reached<'a>(&'a self, step: &'static str) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
}

/// Another worker holds the job by now, or it was cancelled: nothing of this attempt may be written.
#[derive(Debug, thiserror::Error)]
pub enum LostLease {
    /// Fencing refused the write.
    #[error("job {0} is no longer ours (attempt {1})")]
    Lost(JobId, i32),
    /// The database could not say.
    #[error("job {0}: could not check the lease")]
    Database(JobId, #[source] sqlx::Error),
    /// What is to stand in the job could not be sealed.
    #[error("job {0}: could not seal its payload")]
    Vault(JobId, #[source] Box<crate::vault::Error>),
}

impl JobContext {
    /// The present instant, by the one clock.
    pub fn now(&self) -> DateTime<Utc> {
        self.deps.clock.now()
    }

    /// This job, of this kind, as the evidence names it.
    pub fn by(&self, kind: &'static str) -> By<'_> {
        By { actor: Actor::Job { kind, job_id: self.job.0 }, now: self.now(), chance: &*self.deps.chance }
    }

    /// Marks a point between two effects.
    pub async fn step(&self, name: &'static str) {
        self.steps.reached(name).await;
    }

    /// Opens a transaction that holds the job's row and is refused when the lease is lost, so that a late holder
    /// writes nothing. It stands behind the wall: row-level security shows it the rows of the job's business and of no
    /// other (`muneem.people_build_wall`), whatever the handler asks for.
    ///
    /// # Errors
    /// [`LostLease::Lost`] when another attempt owns the job.
    pub async fn begin(&self) -> Result<Transaction<'static, Postgres>, LostLease> {
        let database = |error| LostLease::Database(self.job, error);
        let mut tx = self.deps.db.begin().await.map_err(database)?;
        let held = sqlx::query!(
            r#"select muneem.queue_hold($1, $2, $3) as "held!", set_config('muneem.business', $4, true) as business,
                set_config('role', 'muneem_business', true) as role"#,
            self.job.0,
            self.attempt,
            self.worker,
            self.business.to_string(),
        )
        .fetch_one(&mut *tx)
        .await
        .map_err(database)?;
        if held.held { Ok(tx) } else { Err(LostLease::Lost(self.job, self.attempt)) }
    }

    /// For what a handler reads before it writes: a transaction behind the same wall that can write nothing, and does not
    /// ask for the lease. Drop it before anything outside is waited for.
    ///
    /// # Errors
    /// The database fails.
    pub async fn begin_to_read(&self) -> sqlx::Result<Transaction<'static, Postgres>> {
        let mut tx = self.deps.db.begin_with("begin read only").await?;
        sqlx::query!(
            "select set_config('muneem.business', $1, true) as business, set_config('role', 'muneem_business', true) as role",
            self.business.to_string(),
        )
        .fetch_one(&mut *tx)
        .await?;
        Ok(tx)
    }

    /// As [`Self::begin`], and sees the rows of all businesses: for work of the house itself, whose jobs are filed under
    /// one business and concern each ([`crate::schedule::Scope::House`]), and for what concerns staff, who may be the
    /// platform's.
    ///
    /// # Errors
    /// [`LostLease::Lost`] when another attempt owns the job.
    pub async fn begin_for_all(&self) -> Result<Transaction<'static, Postgres>, LostLease> {
        let database = |error| LostLease::Database(self.job, error);
        let mut tx = self.deps.db.begin().await.map_err(database)?;
        let held = sqlx::query_scalar!(
            r#"select muneem.queue_hold($1, $2, $3) as "held!""#,
            self.job.0,
            self.attempt,
            self.worker
        )
        .fetch_one(&mut *tx)
        .await
        .map_err(database)?;
        if held { Ok(tx) } else { Err(LostLease::Lost(self.job, self.attempt)) }
    }

    /// Acknowledges the job inside the caller's transaction: state, follow-up jobs and the end of this one commit
    /// together. Answer [`super::Done::Acked`] afterwards.
    ///
    /// # Errors
    /// [`LostLease::Lost`] when another attempt owns the job; roll back then.
    pub async fn complete(&self, tx: &mut PgConnection, result: Option<serde_json::Value>) -> Result<(), LostLease> {
        let done = sqlx::query_scalar!(
            r#"select muneem.queue_complete($1, $2, $3, $4) as "done!""#,
            self.job.0,
            self.attempt,
            self.worker,
            result
        )
        .fetch_one(tx)
        .await
        .map_err(|error| LostLease::Database(self.job, error))?;
        if done { Ok(()) } else { Err(LostLease::Lost(self.job, self.attempt)) }
    }

    /// Says how far the job is: `done` of `total`, with a note free of personal data. Costs a small write; call it a
    /// few times a second at most.
    ///
    /// # Errors
    /// [`LostLease::Lost`] when another attempt owns the job.
    pub async fn progress(&self, done: u64, total: u64, note: &str) -> Result<(), LostLease> {
        let database = |error| LostLease::Database(self.job, error);
        let mut conn = self.deps.db.acquire().await.map_err(database)?;
        let held = super::work::Held { job: self.job, attempt: self.attempt };
        let said = serde_json::json!({ "done": done, "total": total, "note": note });
        match super::work::set_progress(&mut conn, self.worker, held, &said).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(LostLease::Lost(self.job, self.attempt)),
            Err(super::Error::Database(error)) => Err(database(error)),
            Err(_) => Err(database(sqlx::Error::RowNotFound)),
        }
    }

    /// Replaces the payload of the running job, so that what was handed over is kept nowhere else. What stands there
    /// instead lies sealed too.
    ///
    /// # Errors
    /// [`LostLease::Lost`] when another attempt owns the job; roll back then.
    pub async fn replace_payload(&self, tx: &mut PgConnection, payload: &serde_json::Value) -> Result<(), LostLease> {
        let sealed = sealed::seal(&mut *tx, &self.deps.vault, (self.business, self.job), &payload.to_string())
            .await
            .map_err(|error| LostLease::Vault(self.job, Box::new(error)))?;
        self.put_payload(tx, None, Some(&sealed)).await
    }

    /// Replaces the payload of the running job by one without a field; needs no key.
    pub(super) async fn empty_payload(&self, tx: &mut PgConnection) -> Result<(), LostLease> {
        self.put_payload(tx, Some(&serde_json::json!({})), None).await
    }

    async fn put_payload(
        &self,
        tx: &mut PgConnection,
        payload: Option<&serde_json::Value>,
        sealed: Option<&[u8]>,
    ) -> Result<(), LostLease> {
        let done = sqlx::query_scalar!(
            r#"select muneem.queue_replace_payload($1, $2, $3, $4, $5) as "done!""#,
            self.job.0,
            self.attempt,
            self.worker,
            payload,
            sealed,
        )
        .fetch_one(tx)
        .await
        .map_err(|error| LostLease::Database(self.job, error))?;
        if done { Ok(()) } else { Err(LostLease::Lost(self.job, self.attempt)) }
    }
}
