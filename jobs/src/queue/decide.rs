//! What somebody decides about a job: out, or once more. Each leaves its evidence in the transaction that does it.
//!
//! A frontend's own `muneem.cancel_job` in SQL leaves none: it takes back what it asked for itself.

use serde_json::json;
use sqlx::{Connection, PgConnection};

use super::{Error, JobFilter, store};
use crate::{
    evidence::{Act, By, Object, words},
    id::JobId,
};

/// Takes a job out of the queue, or asks its worker to stop. False when it has ended.
///
/// # Errors
/// [`Error::Database`]; [`Error::Evidence`]: nothing was done then.
pub async fn cancel(conn: &mut PgConnection, id: JobId, by: &By<'_>) -> Result<bool, Error> {
    let mut tx = conn.begin().await?;
    let Some(job) = store::find_job(&mut tx, id).await? else { return Ok(false) };
    if !store::cancel(&mut tx, id).await? {
        return Ok(false);
    }
    let cancelled = Act {
        word: words::JOB_CANCELLED,
        business: Some(job.business),
        object: Object { kind: "job", id: &id.to_string() },
        details: json!({ "kind": job.kind, "state": job.state.as_str() }),
    };
    by.record(&mut tx, cancelled).await?;
    tx.commit().await?;
    Ok(true)
}

/// Puts a dead job back in line, its attempts forgotten. False when it is not dead.
///
/// # Errors
/// [`Error::Database`]; [`Error::Evidence`]: nothing was done then.
pub async fn retry(conn: &mut PgConnection, id: JobId, by: &By<'_>) -> Result<bool, Error> {
    Ok(revive(conn, &JobFilter::default(), Some(id), 1, by).await? > 0)
}

/// Puts up to `limit` dead jobs that match the filter back in line; answers how many. Call again until it answers 0.
///
/// # Errors
/// [`Error::Database`]; [`Error::Evidence`]: nothing was done then.
pub async fn retry_many(conn: &mut PgConnection, filter: &JobFilter, limit: u16, by: &By<'_>) -> Result<u64, Error> {
    revive(conn, filter, None, limit, by).await
}

async fn revive(
    conn: &mut PgConnection,
    filter: &JobFilter,
    id: Option<JobId>,
    limit: u16,
    by: &By<'_>,
) -> Result<u64, Error> {
    let mut tx = conn.begin().await?;
    let dead = store::lock_dead(&mut tx, filter, id, limit).await?;
    let jobs: Vec<JobId> = dead.iter().map(|dead| dead.job).collect();
    let revived = store::revive(&mut tx, &jobs).await?;
    let names: Vec<String> = jobs.iter().map(ToString::to_string).collect();
    let acts = dead.iter().zip(&names).map(|(dead, name)| Act {
        word: words::JOB_RETRIED,
        business: Some(dead.business),
        object: Object { kind: "job", id: name },
        details: json!({ "kind": dead.kind, "cause": dead.cause }),
    });
    by.record_all(&mut tx, acts.collect()).await?;
    tx.commit().await?;
    Ok(revived)
}
