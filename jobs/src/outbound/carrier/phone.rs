use std::fmt;

use crate::vault::screen::decimal;

/// A phone number in E.164 with its plus sign: `+919812345678`.
///
/// Without the plus the carrier prefixes the *sender's* country code, and the message goes to a stranger.
#[derive(Clone, PartialEq, Eq, Hash, sqlx::Type)]
#[sqlx(transparent)]
pub struct Phone(String);

/// Why a text is no phone number that a message can go to. It never repeats the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PhoneError {
    /// Nothing but spaces.
    #[error("the phone number is empty")]
    Empty,
    /// Letters or other signs in it.
    #[error("the phone number holds something other than digits, spaces and + - . ( )")]
    NotDigits,
    /// Indian, but not a mobile.
    #[error("an Indian mobile number is +91 and ten digits, the first of them 6 to 9")]
    NotIndianMobile,
    /// Foreign, but not E.164.
    #[error("a foreign number is written as + country code number, 8 to 15 digits in all")]
    NotE164,
}

impl Phone {
    /// Reads a number as people in India write it; what has no country code is Indian.
    ///
    /// # Errors
    /// [`PhoneError`] names what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, PhoneError> {
        let (digits, international) = digits(text)?;
        if international {
            return match digits.strip_prefix("91") {
                Some(national) => Self::indian(national),
                None => Self::foreign(&digits),
            };
        }
        // A leading 91 is the country code only when ten digits follow: 9198765432 is itself a mobile number.
        let national = match digits.len() {
            12 if digits.starts_with("91") => &digits[2..],
            11 if digits.starts_with('0') => &digits[1..],
            _ => digits.as_str(),
        };
        Self::indian(national)
    }

    fn indian(national: &str) -> Result<Self, PhoneError> {
        if national.len() == 10 && matches!(national.as_bytes()[0], b'6'..=b'9') {
            Ok(Self(format!("+91{national}")))
        } else {
            Err(PhoneError::NotIndianMobile)
        }
    }

    fn foreign(digits: &str) -> Result<Self, PhoneError> {
        if (8..=15).contains(&digits.len()) && !digits.starts_with('0') {
            Ok(Self(format!("+{digits}")))
        } else {
            Err(PhoneError::NotE164)
        }
    }

    /// With the plus sign, as the carrier and the database take it.
    pub fn as_e164(&self) -> &str {
        &self.0
    }

    /// Digits only, as the carrier's webhooks name people (`wa_id`, `from`, `recipient_id`).
    pub fn digits(&self) -> &str {
        &self.0[1..]
    }
}

impl fmt::Debug for Phone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Phone(…)")
    }
}

impl std::str::FromStr for Phone {
    type Err = PhoneError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// ASCII digits of `text`, and whether it named its country (by `+` or `00`).
fn digits(text: &str) -> Result<(String, bool), PhoneError> {
    let mut digits = String::with_capacity(16);
    let mut plus = false;
    for character in text.trim().chars() {
        match character {
            '+' | '＋' if digits.is_empty() && !plus => plus = true,
            ' ' | '\u{a0}' | '\u{202f}' | '-' | '\u{2010}'..='\u{2013}' | '.' | '(' | ')' => {}
            _ => {
                let digit = decimal(character).ok_or(PhoneError::NotDigits)?;
                digits.push(char::from(b'0' + digit));
            }
        }
        if digits.len() > 20 {
            return Err(PhoneError::NotE164);
        }
    }
    if digits.is_empty() {
        return Err(PhoneError::Empty);
    }
    if !plus && let Some(rest) = digits.strip_prefix("00") {
        return Ok((rest.to_owned(), true));
    }
    Ok((digits, plus))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_becomes_e164() {
        for (written, expected) in [
            ("9812345678", "+919812345678"),
            ("98123 45678", "+919812345678"),
            ("098123-45678", "+919812345678"),
            ("+91 98123 45678", "+919812345678"),
            ("0091 (98123) 45678", "+919812345678"),
            ("919812345678", "+919812345678"),
            ("9198765432", "+919198765432"),
            ("+91 9198765432", "+919198765432"),
            ("९८१२३४५६७८", "+919812345678"),
            ("௯௮௧௨௩௪௫௬௭௮", "+919812345678"),
            ("98123.45678", "+919812345678"),
            ("\u{a0}98123\u{202f}45678 ", "+919812345678"),
            ("+971 50 123 4567", "+971501234567"),
            ("0044 20 7946 0958", "+442079460958"),
        ] {
            assert_eq!(Phone::parse(written).as_ref().map(Phone::as_e164), Ok(expected), "{written}");
        }
    }

    #[test]
    fn what_is_no_mobile_is_refused_with_the_reason() {
        for (written, expected) in [
            ("", PhoneError::Empty),
            ("   ", PhoneError::Empty),
            ("+", PhoneError::Empty),
            ("98123x5678", PhoneError::NotDigits),
            ("98+12345678", PhoneError::NotDigits),
            ("12345", PhoneError::NotIndianMobile),
            ("5812345678", PhoneError::NotIndianMobile),
            ("1600123456", PhoneError::NotIndianMobile),
            ("+910812345678", PhoneError::NotIndianMobile),
            ("+9109812345678", PhoneError::NotIndianMobile),
            ("0112345678", PhoneError::NotIndianMobile),
            ("98123456789", PhoneError::NotIndianMobile),
            ("+1234567", PhoneError::NotE164),
            ("+1234567890123456", PhoneError::NotE164),
            ("+0123456789", PhoneError::NotE164),
            ("98123456789812345678981234", PhoneError::NotE164),
        ] {
            assert_eq!(Phone::parse(written), Err(expected), "{written}");
        }
    }

    #[test]
    fn a_number_never_shows_itself() {
        let phone = Phone::parse("9812345678").expect("a mobile");
        assert_eq!(format!("{phone:?}"), "Phone(…)");
        assert_eq!(phone.digits(), "919812345678");
    }
}
