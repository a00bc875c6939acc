//! Which slots become jobs: pure functions of the expression, the policy and the time.

use chrono::{DateTime, TimeDelta, Utc};

use super::{Expression, Missed};

/// A slot looked at later than this was missed, in seconds. Wide enough for a scheduler that sleeps 30 s at a time and
/// a busy database, short enough that nobody takes the run for punctual when it is not.
pub const ON_TIME_SECS: i64 = 60;

/// What to do about an entry now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Slots that become jobs, oldest first.
    pub slots: Vec<DateTime<Utc>>,
    /// Newest slot that has passed, with a job or without.
    pub settled: Option<DateTime<Utc>>,
    /// First slot after that and after now.
    pub next: Option<DateTime<Utc>>,
}

/// Slots from `open` (the first that is not settled) up to `now`, by the policy; at most `limit`, the newest.
///
/// Counts backwards from `now`, so that a clock that jumps a year costs `limit` steps and not half a million. With a
/// clock set back, `open` lies ahead and nothing is due.
pub fn due(expression: &Expression, missed: Missed, limit: usize, open: DateTime<Utc>, now: DateTime<Utc>) -> Due {
    let earlier = |slot: &DateTime<Utc>| expression.newest_at(*slot - TimeDelta::nanoseconds(1));
    let mut slots = std::iter::successors(expression.newest_at(now), earlier)
        .take_while(|slot| *slot >= open)
        .take(limit)
        .collect::<Vec<_>>();
    let settled = slots.first().copied();
    let on_time = slots.iter().take_while(|slot| now - **slot <= TimeDelta::seconds(ON_TIME_SECS)).count();
    match missed {
        Missed::RunAll => {}
        Missed::RunOnce => slots.truncate(on_time.max(1)),
        Missed::Skip => slots.truncate(on_time),
    }
    slots.reverse();
    Due { slots, settled, next: expression.next_after(now.max(open - TimeDelta::nanoseconds(1))) }
}

/// The key that makes a slot one job, however many schedulers see it.
pub fn slot_key(name: &str, slot: DateTime<Utc>) -> String {
    format!("schedule:{name}:{}", slot.to_rfc3339_opts(chrono::SecondsFormat::Secs, true))
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;
    use chrono_tz::Asia::Kolkata;

    use super::*;

    fn india(day: u32, hour: u32, minute: u32, second: u32) -> DateTime<Utc> {
        Kolkata.with_ymd_and_hms(2026, 11, day, hour, minute, second).unwrap().to_utc()
    }

    fn daily_at_nine() -> Expression {
        "0 9 * * *".parse().unwrap()
    }

    #[test]
    fn downtime_is_made_up_by_the_policy() {
        // Down from the 20th; the scheduler looks again on the 23rd.
        let open = india(20, 9, 0, 0);
        let missed_only = india(23, 12, 0, 0);
        let one_on_time = india(23, 9, 0, 20);
        let all = [20, 21, 22, 23].map(|day| india(day, 9, 0, 0)).to_vec();
        let newest = vec![india(23, 9, 0, 0)];
        let cases = [
            (Missed::RunAll, missed_only, all.clone()),
            (Missed::RunOnce, missed_only, newest.clone()),
            (Missed::Skip, missed_only, vec![]),
            (Missed::RunAll, one_on_time, all),
            (Missed::RunOnce, one_on_time, newest.clone()),
            (Missed::Skip, one_on_time, newest),
        ];
        for (missed, now, slots) in cases {
            let due = due(&daily_at_nine(), missed, 100, open, now);
            assert_eq!(due.slots, slots, "{missed:?} at {now}");
            assert_eq!(due.settled, Some(india(23, 9, 0, 0)));
            assert_eq!(due.next, Some(india(24, 9, 0, 0)));
        }
    }

    #[test]
    fn a_slot_is_on_time_for_a_minute() {
        let open = india(23, 9, 0, 0);
        let due_at = |now| due(&daily_at_nine(), Missed::Skip, 100, open, now).slots.len();
        assert_eq!(due_at(open - TimeDelta::milliseconds(1)), 0);
        assert_eq!(due_at(open), 1);
        assert_eq!(due_at(open + TimeDelta::seconds(ON_TIME_SECS)), 1);
        assert_eq!(due_at(open + TimeDelta::seconds(ON_TIME_SECS) + TimeDelta::milliseconds(1)), 0);
    }

    #[test]
    fn slots_on_time_run_each_whatever_the_policy() {
        let each_ten_seconds: Expression = "*/10 * * * * *".parse().unwrap();
        let open = india(23, 9, 0, 0);
        let due = due(&each_ten_seconds, Missed::RunOnce, 100, open, open + TimeDelta::seconds(25));
        assert_eq!(due.slots, [0, 10, 20].map(|second| open + TimeDelta::seconds(second)).to_vec());
    }

    #[test]
    fn a_clock_that_jumps_a_year_makes_up_only_the_newest() {
        let each_minute: Expression = "* * * * *".parse().unwrap();
        let open = india(23, 9, 0, 0);
        let now = open + TimeDelta::days(365);
        let due = due(&each_minute, Missed::RunAll, 100, open, now);
        assert_eq!(due.slots.len(), 100);
        assert_eq!(due.slots.first(), Some(&(now - TimeDelta::minutes(99))));
        assert_eq!(due.slots.last(), Some(&now));
        assert_eq!(due.next, Some(now + TimeDelta::minutes(1)));
    }

    #[test]
    fn a_clock_set_back_makes_nothing_due_and_keeps_the_open_slot() {
        let open = india(23, 9, 0, 0);
        let due = due(&daily_at_nine(), Missed::RunAll, 100, open, open - TimeDelta::days(30));
        assert_eq!(due, Due { slots: vec![], settled: None, next: Some(open) });
    }

    #[test]
    fn a_key_spells_the_slot() {
        assert_eq!(slot_key("queue.sweep", india(23, 9, 0, 0)), "schedule:queue.sweep:2026-11-23T03:30:00Z");
    }
}
