use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Done, Error, Job, JobContext, Lane, store};

/// Forgets what is over: days of the history past their time are dropped whole, one after another, used keys past
/// theirs deleted in batches; partitions for the coming days are made. A day that somebody reads is left for the next
/// time.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForgetFinished {
    /// How long finished jobs are kept, in days.
    pub keep_days: u16,
}

const BATCH: i64 = 5000;

impl Job for ForgetFinished {
    const KIND: &'static str = "queue.forget_finished";
    const LANE: Lane = Lane::Maintenance;
    type Error = Error;

    async fn run(self, ctx: &JobContext) -> Result<Done, Error> {
        let mut conn = ctx.deps.db.acquire().await.map_err(Error::Database)?;
        // Days are made ahead, and what finds none lies beside them: the next run is soon enough.
        let made = unless_locked(store::make_history_days(&mut conn, self.keep_days).await)?;
        let (mut days, mut left) = (0, usize::from(made.is_none()));
        for day in store::list_history_over(&mut conn, self.keep_days).await? {
            match unless_locked(store::drop_history(&mut conn, day, self.keep_days).await)? {
                Some(dropped) => days += usize::from(dropped),
                None => {
                    tracing::warn!(%day, "somebody reads this day of the history; left for the next time");
                    left += 1;
                }
            }
        }
        let mut keys = 0;
        while !ctx.cancelled.is_cancelled() {
            let gone = store::forget_keys(&mut conn, BATCH).await?;
            keys += gone;
            if gone < BATCH.unsigned_abs() {
                break;
            }
        }
        Ok(Done::Ack(Some(serde_json::json!({ "days": days, "left": left, "keys": keys }))))
    }
}

/// None when somebody else held a lock for too long (SQLSTATE 55P03, `lock_not_available`).
fn unless_locked<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Ok(done) => Ok(Some(done)),
        Err(Error::Database(sqlx::Error::Database(error))) if error.code().as_deref() == Some("55P03") => Ok(None),
        Err(error) => Err(error),
    }
}
