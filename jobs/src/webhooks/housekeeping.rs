use super::{Retire, Sweep};
use crate::schedule::{Declaration, Error, Missed};

/// The schedules of webhooks.
///
/// # Errors
/// None: a test reads them.
pub fn schedules() -> Result<Vec<Declaration>, Error> {
    Ok(vec![
        Declaration::of("webhooks.sweep", "* * * * *", &Sweep {})?.missed(Missed::Skip),
        Declaration::of("webhooks.retire", "41 * * * *", &Retire {})?,
    ])
}
