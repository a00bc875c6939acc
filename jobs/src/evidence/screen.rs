//! Keeps personal data out of a log that cannot forget.
//!
//! Details are for codes: ids, digests, states, instants, counts. A string is taken when it is one word of such
//! characters and does not look like a phone number, a mail address, a GSTIN or a card. Free text is refused whatever
//! it says: nobody can tell what a person wrote into a reason.

use serde_json::Value;

use super::Error;

/// Longest word: a digest with its prefix fits.
const LONGEST_WORD: usize = 160;
/// Longest sealed value, in base64.
const LONGEST_SEALED: usize = 4096;
/// Deepest nesting of details.
const DEEPEST: usize = 4;

/// One word of the log: an id, a verb, a state.
pub(super) fn word<'a>(text: &'a str, field: &'static str) -> Result<&'a str, Error> {
    let fits = (1..=LONGEST_WORD).contains(&text.len()) && text.bytes().all(is_word_byte);
    if fits { Ok(text) } else { Err(Error::BadWord(field)) }
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._:/-".contains(&byte)
}

/// Refuses details that say, or may hide, something about a person.
pub(super) fn details(verb: &str, details: &Value) -> Result<(), Error> {
    walk(verb, "details", details, 0)
}

fn walk(verb: &str, path: &str, value: &Value, depth: usize) -> Result<(), Error> {
    let refuse = |problem| Err(Error::Personal { verb: verb.to_owned(), field: path.to_owned(), problem });
    if depth > DEEPEST {
        return refuse("lies too deep");
    }
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
        Value::String(text) => problem_of(path, text).map_or(Ok(()), refuse),
        Value::Array(items) => {
            for (place, item) in items.iter().enumerate() {
                walk(verb, &format!("{path}[{place}]"), item, depth + 1)?;
            }
            Ok(())
        }
        Value::Object(fields) => {
            for (name, item) in fields {
                // A name is ours, so it is one short word; what is not may be a value in the wrong place.
                let ours =
                    name.len() <= 64 && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
                if !ours || problem_of(path, name).is_some() {
                    return refuse("has a field whose name is not a plain word");
                }
                walk(verb, &format!("{path}.{name}"), item, depth + 1)?;
            }
            Ok(())
        }
    }
}

fn problem_of(path: &str, text: &str) -> Option<&'static str> {
    if path.ends_with(".sealed") {
        let base64 = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=_-".contains(&byte));
        return (!base64 || text.len() > LONGEST_SEALED).then_some("is not base64 of something sealed");
    }
    if text.contains('@') {
        return Some("looks like a mail address");
    }
    if looks_like_number_of_a_person(text) {
        return Some("looks like a phone, card or Aadhaar number");
    }
    if looks_like_gstin(text) {
        return Some("looks like a GSTIN");
    }
    if text.len() > LONGEST_WORD || !text.bytes().all(is_word_byte) {
        return Some("is not one word of letters, digits and ._:/-: keep free text sealed where it belongs");
    }
    None
}

/// Only digits and what people put between them, in a length and with a beginning that phones, cards and Aadhaar
/// numbers have. Instants have a `T` or `:`, ids letters: neither is looked at.
fn looks_like_number_of_a_person(text: &str) -> bool {
    if !text.bytes().all(|byte| byte.is_ascii_digit() || b"+-. ()".contains(&byte)) {
        return false;
    }
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_digit).map(|digit| digit - b'0').collect();
    let mobile = |digits: &[u8]| digits.len() == 10 && digits[0] >= 6;
    match digits.len() {
        10 => mobile(&digits) || text.starts_with('+'),
        11 => (digits[0] == 0 && mobile(&digits[1..])) || text.starts_with('+'),
        12 => (digits.starts_with(&[9, 1]) && mobile(&digits[2..])) || text.starts_with('+') || digits[0] >= 2,
        14 if is_instant(text) => false,
        13..=19 => text.starts_with('+') || luhn(&digits),
        _ => text.starts_with('+') && digits.len() >= 7,
    }
}

/// Fourteen digits that name a second of this century, `20261125141000`, as versions of a schema do. One in ten passes
/// the check of a card number; no card is one: fourteen digits have those of Diners Club alone, which begin with 30, 36,
/// 38 or 39 (ISO/IEC 7812 issuer numbers), and Aadhaar and phone numbers are shorter.
fn is_instant(text: &str) -> bool {
    text.len() == 14
        && text.starts_with("20")
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && chrono::NaiveDateTime::parse_from_str(text, "%Y%m%d%H%M%S").is_ok()
}

fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, &digit)| {
            let digit = u32::from(digit);
            if place % 2 == 0 {
                digit
            } else if digit > 4 {
                digit * 2 - 9
            } else {
                digit * 2
            }
        })
        .sum();
    sum.is_multiple_of(10)
}

/// Two digits of the State, ten of a PAN, then entity, Z and check character (CGST Rules 2017 r.10).
fn looks_like_gstin(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() == 15
        && bytes[..2].iter().all(u8::is_ascii_digit)
        && bytes[2..7].iter().all(u8::is_ascii_alphabetic)
        && bytes[7..11].iter().all(u8::is_ascii_digit)
        && bytes[11].is_ascii_alphabetic()
        && bytes[12..].iter().all(u8::is_ascii_alphanumeric)
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta, Utc};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn taken(text: &str) -> bool {
        details("schema.version_reached", &json!({ "version": text })).is_ok()
    }

    #[test]
    fn every_version_of_the_schema_can_be_put_on_record() {
        let versions: Vec<String> = crate::MIGRATOR.iter().map(|step| step.version.to_string()).collect();
        assert!(!versions.is_empty());
        for version in versions {
            assert!(taken(&version), "{version}");
        }
    }

    #[test]
    fn what_only_looks_like_an_instant_is_a_card_number_still() {
        // Diners Club's own test numbers; years, months and hours that are none; separators; longer and shorter.
        for card in [
            "30569309025904",
            "38520000023237",
            "36227206271667",
            "20261325141004",
            "20261125251003",
            "19991125141001",
            "2026-1125-1410-06",
            "4111111111111111",
            "4222222222222",
        ] {
            let digits: Vec<u8> = card.bytes().filter(u8::is_ascii_digit).map(|digit| digit - b'0').collect();
            assert!(luhn(&digits), "{card} is no example");
            assert!(!taken(card), "{card}");
        }
    }

    proptest! {
        #[test]
        fn any_second_of_this_century_can_be_put_on_record(second in 0_i64..3_155_760_000) {
            let begin: DateTime<Utc> = "2000-01-01T00:00:00Z".parse().expect("an instant");
            let text = (begin + TimeDelta::seconds(second)).format("%Y%m%d%H%M%S").to_string();
            prop_assert!(taken(&text), "{}", text);
        }

        #[test]
        fn a_number_of_fourteen_digits_with_the_check_of_a_card_is_taken_as_an_instant_alone(
            number in 10_000_000_000_000_u64..100_000_000_000_000,
        ) {
            let text = number.to_string();
            let digits: Vec<u8> = text.bytes().map(|digit| digit - b'0').collect();
            prop_assert_eq!(taken(&text), !luhn(&digits) || is_instant(&text), "{}", text);
        }
    }
}
