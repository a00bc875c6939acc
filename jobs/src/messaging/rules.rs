//! Decisions as pure functions: how statuses fold, what a refusal means for the message, when silence is proof.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::model::{Policy, Settings, State, Status};
use crate::outbound::carrier::{Class, Scope};

/// How far a message has come: accepted 0, held 1, sent 2, delivered 3, read 4; nothing before acceptance.
const fn rank(state: State) -> Option<u8> {
    match state {
        State::Accepted => Some(0),
        State::Held => Some(1),
        State::Sent => Some(2),
        State::Delivered => Some(3),
        State::Read => Some(4),
        State::Queued | State::Posting | State::Unknown | State::Failed | State::UnknownFinal | State::Skipped => None,
    }
}

/// The state after a status, or nothing when it changes none.
///
/// Statuses come twice, late and in any order; `delivered` may never come when `read` did. So the furthest one counts,
/// and `failed` ends what is not yet delivered: after it only the recipient's own phone (delivered, read) is believed.
pub(super) fn fold(state: State, status: &Status) -> Option<State> {
    let told = match status {
        Status::Sent => State::Sent,
        Status::Delivered => State::Delivered,
        Status::Read => State::Read,
        Status::Failed => {
            let ends = !matches!(state, State::Failed | State::Delivered | State::Read);
            return ends.then_some(State::Failed);
        }
        Status::Other(_) => return None,
    };
    let moves = match state {
        State::Failed => matches!(told, State::Delivered | State::Read),
        _ => rank(told) > rank(state),
    };
    moves.then_some(told)
}

/// What becomes of a message after the carrier said no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Another attempt after this wait.
    Again(Duration),
    /// The same, and the scope is to be mended by a person or the carrier.
    Hold(Scope, Duration),
    /// None.
    Never,
    /// Perhaps it was sent: ask the webhooks first.
    Reconcile,
}

/// What becomes of the message after its `refusals`-th refusal (from 1).
pub(super) fn after_refusal(class: Class, refusals: usize, retry_after: Option<Duration>) -> Next {
    let wait = |waits: &[u32], index: usize| {
        let own = waits.get(index).copied().map(|secs| Duration::from_secs(u64::from(secs)));
        own.map(|own| retry_after.map_or(own, |asked| own.max(asked)))
    };
    let index = refusals.saturating_sub(1);
    match class {
        Class::Permanent | Class::Recipient(_) => Next::Never,
        Class::Retry(waits) => wait(waits, index).map_or(Next::Never, Next::Again),
        Class::Hold(scope, waits) => {
            let index = index.min(waits.len().saturating_sub(1));
            wait(waits, index).map_or(Next::Never, |wait| Next::Hold(scope, wait))
        }
        Class::Ambiguous(_) => Next::Reconcile,
    }
}

/// Pause before the next attempt when nothing left this machine: short at first, since it is usually one lost
/// connection, up to five minutes when the line is down.
pub(super) fn after_not_sent(failures: usize) -> Duration {
    Duration::from_secs(1 << failures.clamp(1, 9)).min(Duration::from_secs(300))
}

/// What an unknown attempt is to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Look again then.
    Wait(DateTime<Utc>),
    /// Surely lost: another attempt.
    Again,
    /// Nobody will know.
    GiveUp,
}

/// What is known when an unknown attempt is judged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Silence {
    pub(super) now: DateTime<Utc>,
    pub(super) started_at: DateTime<Utc>,
    /// When a webhook last told of the number.
    pub(super) heard_at: Option<DateTime<Utc>>,
    pub(super) expires_at: DateTime<Utc>,
    pub(super) policy: Policy,
}

/// Judges an attempt that no webhook has named. Silence proves something only when the window is over and webhooks
/// of this number do arrive: one came after the attempt began, and not long ago.
pub(super) fn judge(silence: &Silence, settings: &Settings) -> Verdict {
    let window_ends = silence.started_at + delta(settings.unknown_window);
    if silence.now < window_ends {
        return Verdict::Wait(window_ends);
    }
    let healthy = silence
        .heard_at
        .is_some_and(|heard| heard > silence.started_at && silence.now - heard <= delta(settings.intake_fresh));
    match silence.policy {
        _ if silence.now >= silence.expires_at => Verdict::GiveUp,
        _ if !healthy => Verdict::Wait((silence.now + delta(settings.intake_pause)).min(silence.expires_at)),
        Policy::AtLeastOnce => Verdict::Again,
        Policy::AtMostOnce => Verdict::GiveUp,
    }
}

/// A `std` duration in the time crate's words; far more than any setting fits.
pub(super) fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use State::{Accepted, Delivered, Failed, Held, Posting, Queued, Read, Sent, Unknown, UnknownFinal};

    #[test]
    fn statuses_only_move_forward() {
        let other = Status::Other("warned".to_owned());
        for (state, status, expected) in [
            (Accepted, Status::Sent, Some(Sent)),
            (Held, Status::Sent, Some(Sent)),
            (Posting, Status::Sent, Some(Sent)),
            (Unknown, Status::Delivered, Some(Delivered)),
            (UnknownFinal, Status::Delivered, Some(Delivered)),
            (Queued, Status::Sent, Some(Sent)),
            (Sent, Status::Sent, None),
            (Sent, Status::Read, Some(Read)),
            (Read, Status::Delivered, None),
            (Read, Status::Sent, None),
            (Delivered, Status::Sent, None),
            (Accepted, Status::Failed, Some(Failed)),
            (Sent, Status::Failed, Some(Failed)),
            (Delivered, Status::Failed, None),
            (Read, Status::Failed, None),
            (Failed, Status::Failed, None),
            (Failed, Status::Sent, None),
            (Failed, Status::Delivered, Some(Delivered)),
            (Sent, other, None),
        ] {
            assert_eq!(fold(state, &status), expected, "{state:?} + {status:?}");
        }
    }

    #[test]
    fn any_order_of_statuses_ends_alike() {
        let statuses = [Status::Sent, Status::Delivered, Status::Read, Status::Delivered];
        for first in 0..4 {
            for second in 0..4 {
                for third in 0..4 {
                    for fourth in 0..4 {
                        let order = [first, second, third, fourth];
                        if (0..4).any(|index| !order.contains(&index)) {
                            continue;
                        }
                        let end =
                            order.iter().fold(Accepted, |state, &index| fold(state, &statuses[index]).unwrap_or(state));
                        assert_eq!(end, Read, "{order:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn waits_come_from_the_table_and_end() {
        let waits = Class::Retry(&[1, 4, 16]);
        let secs = Duration::from_secs;
        assert_eq!(after_refusal(waits, 1, None), Next::Again(secs(1)));
        assert_eq!(after_refusal(waits, 3, None), Next::Again(secs(16)));
        assert_eq!(after_refusal(waits, 4, None), Next::Never);
        assert_eq!(after_refusal(waits, 1, Some(secs(60))), Next::Again(secs(60)));
        assert_eq!(after_refusal(Class::Permanent, 1, None), Next::Never);
        let hold = Class::Hold(Scope::Account, &[300, 900]);
        assert_eq!(after_refusal(hold, 50, None), Next::Hold(Scope::Account, secs(900)));
        assert_eq!(after_refusal(Class::Ambiguous(&[1]), 1, None), Next::Reconcile);
        assert_eq!(after_not_sent(1), secs(2));
        assert_eq!(after_not_sent(100), secs(300));
    }

    #[test]
    fn silence_is_proof_only_when_webhooks_arrive() {
        let at = |secs: i64| DateTime::from_timestamp(1_764_000_000 + secs, 0).expect("in range");
        let settings = Settings::DEFAULT;
        let silence = Silence {
            now: at(121),
            started_at: at(0),
            heard_at: Some(at(100)),
            expires_at: at(86_400),
            policy: Policy::AtLeastOnce,
        };
        assert_eq!(judge(&silence, &settings), Verdict::Again);
        assert_eq!(judge(&Silence { now: at(119), ..silence }, &settings), Verdict::Wait(at(120)));
        assert_eq!(judge(&Silence { policy: Policy::AtMostOnce, ..silence }, &settings), Verdict::GiveUp);
        // Nothing heard at all, nothing since the attempt, nothing for long: absence proves nothing.
        for heard_at in [None, Some(at(-5)), Some(at(0))] {
            assert_eq!(judge(&Silence { heard_at, ..silence }, &settings), Verdict::Wait(at(181)), "{heard_at:?}");
        }
        let stale = Silence { now: at(1000), ..silence };
        assert_eq!(judge(&stale, &settings), Verdict::Wait(at(1060)));
        // The deadline ends the waiting, whatever the policy.
        assert_eq!(judge(&Silence { now: at(86_400), heard_at: None, ..silence }, &settings), Verdict::GiveUp);
        let nearly = Silence { now: at(86_390), heard_at: None, ..silence };
        assert_eq!(judge(&nearly, &settings), Verdict::Wait(at(86_400)));
    }
}
