//! Quiet hours: when nothing is sent, by what is said and in Indian Standard Time.
//!
//! Neither the Cloud API nor the WhatsApp Business Messaging Policy names hours; what sells is kept to the day all the
//! same, as India expects of every promotional call and message. What somebody waits for, and what a law wants said
//! without delay, knows no quiet hours.

use std::str::FromStr;

use chrono::{DateTime, Days, NaiveTime, TimeZone, Utc};
use chrono_tz::Asia::Kolkata;

use super::MessageClass;

/// Which hours are quiet for what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuietHours(Vec<Rule>);

/// One line of the setting.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    of: Of,
    from: NaiveTime,
    to: NaiveTime,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Of {
    Class(MessageClass),
    Purpose(String),
}

/// A line that means nothing, and what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write quiet hours as `marketing 21:00-09:00` or `invoice.reminder 20:00-10:00`, in Indian Standard Time: {0}")]
pub struct BadQuietHours(&'static str);

impl QuietHours {
    /// None at all.
    pub const NONE: Self = Self(Vec::new());

    /// Reads lines such as `marketing 21:00-09:00`: a class or a purpose, and from when to when. A purpose outweighs its
    /// class.
    ///
    /// # Errors
    /// [`BadQuietHours`] of the first line that means nothing.
    pub fn parse<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<Self, BadQuietHours> {
        let mut rules: Vec<Rule> = Vec::new();
        for line in lines {
            let rule: Rule = line.parse()?;
            if rules.iter().any(|known| known.of == rule.of) {
                return Err(BadQuietHours("one thing stands there twice"));
            }
            rules.push(rule);
        }
        Ok(Self(rules))
    }

    /// Until when a message of this kind waits; nothing: it may go now.
    pub fn until(&self, class: MessageClass, purpose: &str, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        if matches!(class, MessageClass::Otp | MessageClass::Statutory) {
            return None;
        }
        let own = self.0.iter().find(|rule| matches!(&rule.of, Of::Purpose(of) if of == purpose));
        let rule = own.or_else(|| self.0.iter().find(|rule| rule.of == Of::Class(class)))?;
        let local = now.with_timezone(&Kolkata).naive_local();
        let (date, time) = (local.date(), local.time());
        let day = if rule.from < rule.to {
            (rule.from <= time && time < rule.to).then_some(date)
        } else if time >= rule.from {
            date.checked_add_days(Days::new(1))
        } else {
            (time < rule.to).then_some(date)
        };
        // India has had one offset since 1945.
        Some(Kolkata.from_local_datetime(&day?.and_time(rule.to)).single()?.to_utc())
    }
}

impl FromStr for Rule {
    type Err = BadQuietHours;

    fn from_str(line: &str) -> Result<Self, BadQuietHours> {
        let (of, hours) = line.trim().split_once(char::is_whitespace).ok_or(BadQuietHours("its hours are missing"))?;
        let (from, to) = hours.trim().split_once('-').ok_or(BadQuietHours("its hours have no end"))?;
        let time = |text: &str| NaiveTime::parse_from_str(text.trim(), "%H:%M");
        let (Ok(from), Ok(to)) = (time(from), time(to)) else { return Err(BadQuietHours("that is no time of day")) };
        if from == to {
            return Err(BadQuietHours("they begin and end together"));
        }
        let of = match of {
            "marketing" => Of::Class(MessageClass::Marketing),
            "transactional" => Of::Class(MessageClass::Transactional),
            "otp" | "statutory" => return Err(BadQuietHours("codes and what a law wants said do not wait")),
            purpose if is_purpose(purpose) => Of::Purpose(purpose.to_owned()),
            _ => return Err(BadQuietHours("that is neither a class nor a purpose")),
        };
        Ok(Self { of, from, to })
    }
}

/// `invoice.issued`: two words, as a message's row holds them.
pub(super) fn is_purpose(text: &str) -> bool {
    let word = |text: &str, also: &[u8]| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || also.contains(&byte))
    };
    text.len() <= 64 && text.split_once('.').is_some_and(|(duty, what)| word(duty, b"") && word(what, b"_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().expect("an instant")
    }

    #[test]
    fn hours_are_indian_and_end_on_the_right_day() {
        let quiet = QuietHours::parse(["marketing 21:00-09:00", "invoice.reminder 13:00-15:00"]).expect("hours");
        let marketing = |now: &str| quiet.until(MessageClass::Marketing, "marketing.offers", at(now));
        assert_eq!(marketing("2026-11-24T15:29:59Z"), None, "20:59:59");
        assert_eq!(marketing("2026-11-24T15:30:00Z"), Some(at("2026-11-25T03:30:00Z")), "21:00");
        assert_eq!(marketing("2026-11-24T18:29:00Z"), Some(at("2026-11-25T03:30:00Z")), "before midnight");
        assert_eq!(marketing("2026-11-24T18:31:00Z"), Some(at("2026-11-25T03:30:00Z")), "after it");
        assert_eq!(marketing("2026-12-31T18:00:00Z"), Some(at("2027-01-01T03:30:00Z")), "over New Year");
        assert_eq!(marketing("2026-11-25T03:29:59Z"), Some(at("2026-11-25T03:30:00Z")), "the last second");
        assert_eq!(marketing("2026-11-25T03:30:00Z"), None, "09:00");
        let reminder = |now: &str| quiet.until(MessageClass::Transactional, "invoice.reminder", at(now));
        assert_eq!(reminder("2026-11-24T08:00:00Z"), Some(at("2026-11-24T09:30:00Z")), "13:30");
        assert_eq!(reminder("2026-11-24T17:00:00Z"), None, "22:30");
        assert_eq!(quiet.until(MessageClass::Transactional, "invoice.issued", at("2026-11-24T17:00:00Z")), None);
        // A purpose outweighs its class.
        let own = QuietHours::parse(["marketing 21:00-09:00", "marketing.night 10:00-20:00"]).expect("hours");
        assert_eq!(own.until(MessageClass::Marketing, "marketing.night", at("2026-11-24T17:00:00Z")), None);
    }

    #[test]
    fn what_cannot_wait_does_not() {
        let quiet = QuietHours::parse(["breach.notice 00:00-23:59", "transactional 00:00-23:59"]).expect("hours");
        for class in [MessageClass::Otp, MessageClass::Statutory] {
            assert_eq!(quiet.until(class, "breach.notice", at("2026-11-24T12:00:00Z")), None, "{class:?}");
        }
        assert!(quiet.until(MessageClass::Transactional, "shop.order", at("2026-11-24T12:00:00Z")).is_some());
    }

    #[test]
    fn a_line_that_means_nothing_is_refused() {
        for line in [
            "",
            "marketing",
            "marketing 21:00",
            "marketing 25:00-09:00",
            "marketing 09:00-09:00",
            "otp 21:00-09:00",
            "statutory 21:00-09:00",
            "Marketing 21:00-09:00",
            "offers 21:00-09:00",
            "a.b.c 21:00-09:00",
        ] {
            assert!(QuietHours::parse([line]).is_err(), "{line:?}");
        }
        assert!(QuietHours::parse(["marketing 21:00-09:00", "marketing 20:00-08:00"]).is_err(), "twice");
    }
}
