use crate::{
    evidence, messaging, people, queue,
    schedule::{Declaration, Error},
    vault, webhooks,
};

/// What each duty offers: `schedules()` of its `mod.rs`.
type Duty = fn() -> Result<Vec<Declaration>, Error>;

/// The duties that have schedules.
const DUTIES: &[Duty] = &[
    queue::schedules,
    evidence::schedules,
    people::signin::schedules,
    vault::schedules,
    messaging::schedules,
    webhooks::schedules,
];

/// Every schedule that a duty declares: the one list of them. The runtime writes it to the table at its start.
///
/// # Errors
/// A declaration means nothing; a test reads them all, so that this does not wait for a start.
pub fn schedules() -> Result<Vec<Declaration>, Error> {
    DUTIES.iter().try_fold(Vec::new(), |mut all, duty| {
        all.extend(duty()?);
        Ok(all)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn every_declared_schedule_means_something_and_has_a_name_of_its_own() {
        let all = super::schedules().expect("every declaration can be read");
        let names = all.iter().map(|declared| declared.name.as_str()).collect::<BTreeSet<_>>();
        assert_eq!(names.len(), all.len());
    }
}
