use super::{ForgetFinished, ReapLeases, SealWaiting};
use crate::schedule::{Declaration, Error, Missed};

/// How long finished jobs are kept, in days. Their keys live on as their kinds say.
const KEEP_DAYS: u16 = 30;

/// The queue's own schedules.
///
/// # Errors
/// None: a test reads them.
pub fn schedules() -> Result<Vec<Declaration>, Error> {
    Ok(vec![
        Declaration::of("queue.reap-leases", "* * * * *", &ReapLeases {})?.missed(Missed::Skip),
        Declaration::of("queue.seal-waiting", "* * * * *", &SealWaiting {})?.missed(Missed::Skip),
        Declaration::of("queue.forget-finished", "17 3 * * *", &ForgetFinished { keep_days: KEEP_DAYS })?,
    ])
}
