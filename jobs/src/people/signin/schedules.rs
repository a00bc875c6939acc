use super::ForgetSessions;
use crate::schedule::{Declaration, Error};

/// The schedules of signing in.
///
/// # Errors
/// None: a test reads them.
pub fn schedules() -> Result<Vec<Declaration>, Error> {
    Ok(vec![Declaration::of("people.forget-sessions", "41 3 * * *", &ForgetSessions {})?])
}
