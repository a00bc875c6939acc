use super::{CheckLog, MakeMonths, RetireBodies};
use crate::schedule::{Declaration, Error};

/// The log's own schedules, at night.
///
/// # Errors
/// None: a test reads them.
pub fn schedules() -> Result<Vec<Declaration>, Error> {
    Ok(vec![
        Declaration::of("evidence.make-months", "23 2 * * *", &MakeMonths {})?,
        Declaration::of("evidence.retire-bodies", "37 2 * * *", &RetireBodies {})?,
        Declaration::of("evidence.check-log", "11 1 * * *", &CheckLog {})?,
    ])
}
