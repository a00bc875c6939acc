//! When to try again, when to leave an endpoint in peace, what an endpoint wants to hear of.

use chrono::{DateTime, TimeDelta, Utc};

use super::{Error, Settings};

/// Pauses before the second and every later attempt, as Standard Webhooks recommends: ten attempts in 76 hours.
const RETRIES: [TimeDelta; 9] = [
    TimeDelta::seconds(5),
    TimeDelta::minutes(5),
    TimeDelta::minutes(30),
    TimeDelta::hours(2),
    TimeDelta::hours(5),
    TimeDelta::hours(10),
    TimeDelta::hours(14),
    TimeDelta::hours(20),
    TimeDelta::hours(24),
];

/// After so many failures in a row nothing more is tried for a while, and then one thing alone.
const OPEN_AFTER: i32 = 5;
/// The first such while; each later one is twice as long, up to [`REST_MAX`].
const REST: TimeDelta = TimeDelta::seconds(5);
const REST_MAX: TimeDelta = TimeDelta::minutes(15);
/// A paused endpoint is asked so often.
const PROBE_EVERY: TimeDelta = TimeDelta::hours(1);
/// Longest pause that a receiver may ask for.
const ASKED_MAX: TimeDelta = TimeDelta::hours(24);
/// For one that says it is overloaded, and not for how long.
const OVERLOADED: TimeDelta = TimeDelta::seconds(30);

/// Pause after `tries` attempts that count; none when there is no attempt left. `chance` in `0..1` moves it by a tenth
/// either way.
pub(super) fn retry_after_tries(tries: i32, chance: f64) -> Option<TimeDelta> {
    let done = usize::try_from(tries).ok()?.checked_sub(1)?;
    RETRIES.get(done).map(|pause| jittered(*pause, chance))
}

fn jittered(pause: TimeDelta, chance: f64) -> TimeDelta {
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "a day in milliseconds is exact")]
    let millis = (pause.num_milliseconds() as f64 * (0.9 + chance * 0.2)) as i64;
    TimeDelta::milliseconds(millis)
}

/// How long an answer asks for peace (RFC 9110 section 10.2.3, RFC 6585 section 4); none where it does not. Capped at a
/// day.
pub(super) fn asked_pause(status: u16, retry_after: Option<&str>, now: DateTime<Utc>) -> Option<TimeDelta> {
    let asked = retry_after.and_then(|text| {
        let text = text.trim();
        if let Ok(secs) = text.parse::<u64>() {
            return Some(TimeDelta::seconds(i64::try_from(secs).unwrap_or(i64::MAX / 1000).min(i64::MAX / 1000)));
        }
        // Digits that do not fit are a long time too.
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Some(ASKED_MAX);
        }
        DateTime::parse_from_rfc2822(text).ok().map(|at| at.with_timezone(&Utc) - now)
    });
    match (status, asked) {
        (200..=299, _) => None,
        (_, Some(pause)) => Some(pause.clamp(TimeDelta::zero(), ASKED_MAX)).filter(|pause| *pause > TimeDelta::zero()),
        (429 | 502 | 503 | 504, None) => Some(OVERLOADED),
        _ => None,
    }
}

/// How an endpoint has been answering, as a run of attempts changes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answering {
    pub(super) is_paused: bool,
    pub(super) failures: i32,
    pub(super) failing_since: Option<DateTime<Utc>>,
    pub(super) last_success_at: Option<DateTime<Utc>>,
    pub(super) last_failure_at: Option<DateTime<Utc>>,
    pub(super) last_cause: Option<String>,
    pub(super) wait_until: Option<DateTime<Utc>>,
}

/// What an attempt at an endpoint makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing new.
    Goes,
    /// It has failed for so long that it is paused.
    Pauses,
    /// It answers again.
    Resumes,
}

impl Answering {
    /// It answered with 2xx.
    pub(super) fn succeeded(&mut self, now: DateTime<Utc>) -> Turn {
        let was_paused = std::mem::take(&mut self.is_paused);
        self.failures = 0;
        self.failing_since = None;
        self.last_success_at = Some(now);
        self.wait_until = None;
        if was_paused { Turn::Resumes } else { Turn::Goes }
    }

    /// It did not. `asked`: it wants peace for so long.
    pub(super) fn failed(
        &mut self,
        cause: &str,
        asked: Option<TimeDelta>,
        (now, chance): (DateTime<Utc>, f64),
        settings: &Settings,
    ) -> Turn {
        self.failures = self.failures.saturating_add(1);
        let since = *self.failing_since.get_or_insert(now);
        self.last_failure_at = Some(now);
        self.last_cause = Some(cause.to_owned());
        let pauses = !self.is_paused && now - since >= settings.pause_after;
        self.is_paused |= pauses;
        let rest = if self.is_paused {
            Some(jittered(PROBE_EVERY, chance))
        } else if self.failures >= OPEN_AFTER {
            let doublings = u32::try_from(self.failures - OPEN_AFTER).unwrap_or(0).min(12);
            Some(jittered((REST * 2_i32.pow(doublings)).min(REST_MAX), chance))
        } else {
            None
        };
        let until = [rest, asked].into_iter().flatten().map(|pause| now + pause).chain(self.wait_until).max();
        self.wait_until = until;
        if pauses { Turn::Pauses } else { Turn::Goes }
    }

    /// It has failed so often in a row that it is asked one thing at a time.
    pub(super) fn is_down(&self) -> bool {
        self.failures >= OPEN_AFTER
    }

    /// Nothing is begun before its instant.
    pub(super) fn is_resting(&self, now: DateTime<Utc>) -> bool {
        self.wait_until.is_some_and(|until| until > now)
    }
}

/// Most patterns of one endpoint.
const PATTERNS_MAX: usize = 64;
const TYPE_MAX: usize = 100;

/// `messaging.message.delivered`: lower case words of letters, digits and underscores, at least two of them.
pub(super) fn is_event_type(text: &str) -> bool {
    text.len() <= TYPE_MAX && text.contains('.') && text.split('.').all(is_word)
}

fn is_word(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// What an endpoint is told of, as it is stored: exact types, `<words>.*`, or `*`; each once.
///
/// # Errors
/// [`Error::BadField`] where it is none of these, or there are none or too many.
pub(super) fn checked_patterns(patterns: &[String]) -> Result<Vec<String>, Error> {
    const MEND: &str = "write types such as messaging.message.delivered, or messaging.*, or *; 1 to 64 of them";
    let bad = |problem| Error::BadField { field: "event_types", problem, mend: MEND };
    let mut checked: Vec<String> = Vec::new();
    for pattern in patterns {
        let words = pattern.strip_suffix(".*");
        let is_prefix = words.is_some_and(|words| words.len() < TYPE_MAX && words.split('.').all(is_word));
        if !(pattern == "*" || is_prefix || is_event_type(pattern)) {
            return Err(bad("holds something that is no type of event"));
        }
        if !checked.contains(pattern) {
            checked.push(pattern.clone());
        }
    }
    if checked.is_empty() {
        return Err(bad("is empty"));
    }
    if checked.len() > PATTERNS_MAX {
        return Err(bad("is too long"));
    }
    Ok(checked)
}

/// Whether an endpoint with these patterns wants to hear of this type.
pub(super) fn wants(patterns: &[String], event_type: &str) -> bool {
    patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
        // `messaging.*`: what begins with `messaging.`; `*`: everything.
        Some(prefix) => event_type.starts_with(prefix),
        None => pattern == event_type,
    })
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;

    use super::*;

    fn noon() -> DateTime<Utc> {
        Utc.with_ymd_and_hms(2026, 11, 24, 12, 0, 0).single().expect("an instant")
    }

    fn well() -> Answering {
        Answering {
            is_paused: false,
            failures: 0,
            failing_since: None,
            last_success_at: None,
            last_failure_at: None,
            last_cause: None,
            wait_until: None,
        }
    }

    #[test]
    fn ten_attempts_spread_over_76_hours_and_none_after() {
        let middle = |tries| retry_after_tries(tries, 0.5);
        let whole: TimeDelta = (1..=9).filter_map(middle).fold(TimeDelta::zero(), |sum, pause| sum + pause);
        assert_eq!(whole, TimeDelta::hours(75) + TimeDelta::minutes(35) + TimeDelta::seconds(5));
        assert_eq!((middle(0), middle(10), middle(-1)), (None, None, None));
        for tries in 1..=9 {
            let (least, most) = (retry_after_tries(tries, 0.0), retry_after_tries(tries, 0.999_999));
            assert!(least < middle(tries) && middle(tries) < most, "{tries}: {least:?} {most:?}");
        }
    }

    #[test]
    fn atk_021_a_receiver_is_left_in_peace_as_it_asks_but_a_day_at_most() {
        let asked = |status, text: Option<&str>| asked_pause(status, text, noon());
        for (status, text, pause) in [
            (429, Some("120"), Some(TimeDelta::seconds(120))),
            (503, Some(" 7 "), Some(TimeDelta::seconds(7))),
            (500, Some("60"), Some(TimeDelta::seconds(60))),
            (429, Some("99999999"), Some(ASKED_MAX)),
            (429, Some("99999999999999999999999999"), Some(ASKED_MAX)),
            (429, Some("18446744073709551615"), Some(ASKED_MAX)),
            (503, Some("Tue, 24 Nov 2026 12:05:00 GMT"), Some(TimeDelta::minutes(5))),
            (503, Some("Tue, 24 Nov 2099 12:05:00 GMT"), Some(ASKED_MAX)),
            (503, Some("Tue, 24 Nov 2020 12:05:00 GMT"), None),
            (429, Some("0"), None),
            (429, Some("soon"), Some(OVERLOADED)),
            (429, Some("-5"), Some(OVERLOADED)),
            (504, None, Some(OVERLOADED)),
            (500, None, None),
            (404, None, None),
            (200, Some("60"), None),
        ] {
            assert_eq!(asked(status, text), pause, "{status} {text:?}");
        }
    }

    #[test]
    fn a_failing_endpoint_rests_longer_and_longer_is_paused_and_comes_back() {
        let settings = Settings::DEFAULT;
        let (mut one, mut now) = (well(), noon());
        for failures in 1..OPEN_AFTER {
            assert_eq!(one.failed("status", None, (now, 0.5), &settings), Turn::Goes);
            assert_eq!((one.failures, one.is_resting(now)), (failures, false));
        }
        let mut rests = Vec::new();
        while one.failed("timed_out", None, (now, 0.5), &settings) == Turn::Goes {
            let until = one.wait_until.expect("it rests");
            rests.push((until - now).num_seconds());
            now = until;
        }
        assert_eq!(rests[..9], [5, 10, 20, 40, 80, 160, 320, 640, 900]);
        assert!(now - noon() >= settings.pause_after && one.is_paused);
        assert_eq!(one.wait_until, Some(now + PROBE_EVERY));
        assert_eq!(one.failed("status", None, (now, 0.5), &settings), Turn::Goes, "it is paused once");
        assert_eq!(one.succeeded(now), Turn::Resumes);
        assert_eq!((one.failures, one.failing_since, one.wait_until, one.is_paused), (0, None, None, false));
        assert_eq!(one.succeeded(now), Turn::Goes);
    }

    #[test]
    fn one_that_asks_for_peace_gets_it_whatever_else_holds() {
        let (mut one, now) = (well(), noon());
        one.failed("status", Some(TimeDelta::minutes(10)), (now, 0.5), &Settings::DEFAULT);
        one.failed("status", None, (now, 0.5), &Settings::DEFAULT);
        assert_eq!(one.wait_until, Some(now + TimeDelta::minutes(10)));
        assert!(one.is_resting(now) && !one.is_resting(now + TimeDelta::minutes(10)));
    }

    #[test]
    fn patterns_want_their_type_and_what_is_below_them() {
        let patterns = |list: &[&str]| list.iter().map(|&one| one.to_owned()).collect::<Vec<_>>();
        for (pattern, event_type, wanted) in [
            ("messaging.message.sent", "messaging.message.sent", true),
            ("messaging.message.sent", "messaging.message.sent_late", false),
            ("messaging.*", "messaging.message.sent", true),
            ("messaging.*", "messagingx.message", false),
            ("messaging.message.*", "messaging.message", false),
            ("*", "webhooks.ping", true),
        ] {
            assert_eq!(wants(&patterns(&[pattern]), event_type), wanted, "{pattern} {event_type}");
        }
        let checked = checked_patterns(&patterns(&["messaging.*", "*", "messaging.*"])).expect("good");
        assert_eq!(checked, ["messaging.*", "*"]);
        for bad in ["", "messaging", "Messaging.x", "a..b", ".*", "a.*.b", "a.b*", "**", "a.%", "a b.c", "a.b."] {
            assert!(checked_patterns(&patterns(&[bad])).is_err(), "{bad}");
        }
        assert!(checked_patterns(&[]).is_err());
        let many: Vec<_> = (0..65).map(|n| format!("a.b{n}")).collect();
        assert!(checked_patterns(&many).is_err() && checked_patterns(&many[1..]).is_ok());
    }
}
