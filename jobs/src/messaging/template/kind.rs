//! What a parameter may be, and what is wrong with a value that it may not be.

use std::borrow::Cow;

use chrono::{NaiveDate, NaiveTime};
use serde::{Deserialize, Serialize};

/// What a value must be before it stands in words that a person reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Plain words.
    Text,
    /// Somebody's name.
    Person,
    /// A shop's or company's name.
    Business,
    /// Rupees as printed: `₹1,180.00`, `₹12,34,567`.
    Amount,
    /// A day, perhaps with its time, as printed: `23-11-2026`, `23 November 2026, 14:05`, `26-11-2026 18:30 IST`.
    Date,
    /// What people quote: `INV-1042`, `R-2026-000123`.
    Reference,
    /// A whole address, https alone: `https://shop.example/b/1042`.
    Link,
    /// The end of an address, behind what a button's own words say: `1042?t=abc`.
    Path,
    /// Letters and digits to type or to copy, at most 15.
    Code,
}

/// What is to be done about a value.
pub type Mend = Cow<'static, str>;

/// Longest value, in characters, where the file says nothing.
const LONGEST: usize = 200;
/// Longest reference.
const LONGEST_REFERENCE: usize = 64;
/// Longest address (Cloud API, URL of a button).
const LONGEST_LINK: usize = 2000;
/// Longest code (Cloud API, authentication templates and coupon codes).
const LONGEST_CODE: usize = 15;

impl Kind {
    /// The longest value, in characters, that the carrier and a reader bear.
    pub const fn longest(self) -> usize {
        match self {
            Self::Text | Self::Person | Self::Business => LONGEST,
            Self::Amount | Self::Date => 40,
            Self::Reference => LONGEST_REFERENCE,
            Self::Link | Self::Path => LONGEST_LINK,
            Self::Code => LONGEST_CODE,
        }
    }

    /// The word in a file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Person => "person",
            Self::Business => "business",
            Self::Amount => "amount",
            Self::Date => "date",
            Self::Reference => "reference",
            Self::Link => "link",
            Self::Path => "path",
            Self::Code => "code",
        }
    }

    /// Says what is wrong with a value, and the mend.
    ///
    /// # Errors
    /// The value is none of this kind, or the carrier would refuse it (Cloud API errors 132005 and 132018).
    pub fn check(self, value: &str, longest: usize) -> Result<(), Mend> {
        plain(value, longest)?;
        match self {
            Self::Text => Ok(()),
            Self::Person | Self::Business => name(value),
            Self::Amount if is_amount(value) => Ok(()),
            Self::Amount => Err("must be rupees grouped as in India, such as ₹1,180.00 or ₹12,34,567".into()),
            Self::Date if is_date(value) => Ok(()),
            Self::Date => {
                Err("must be a day such as 23-11-2026 or 23 November 2026, perhaps with a time: 23-11-2026 14:05 IST"
                    .into())
            }
            Self::Reference => only(value, "-/_.#", "must be letters, digits and - / _ . # alone"),
            Self::Link => link(value),
            Self::Path => path(value),
            Self::Code => only(value, "", "must be letters and digits alone, at most 15"),
        }
    }
}

/// What holds for every value: the carrier refuses the rest (Cloud API error 132018).
fn plain(value: &str, longest: usize) -> Result<(), Mend> {
    if value.trim().is_empty() {
        Err("must not be empty".into())
    } else if value.chars().any(char::is_control) || value.contains(['\u{2028}', '\u{2029}']) {
        Err("must be one line: no line breaks, tabs or control characters".into())
    } else if value.chars().any(turns_the_direction) {
        Err("must not turn the direction of writing: take out the invisible characters".into())
    } else if value.contains("     ") {
        Err("must not hold more than four spaces in a row".into())
    } else if value.chars().count() > longest {
        Err(format!("must not be longer than {longest} characters").into())
    } else {
        Ok(())
    }
}

/// Overrides and isolates (Unicode UAX 9): they can make a number or an address read backwards. Joiners are none of them;
/// Indian scripts need those.
fn turns_the_direction(character: char) -> bool {
    matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

/// A name leads nowhere: else whoever chooses hers writes links into other people's bills.
fn name(value: &str) -> Result<(), Mend> {
    let lower = value.to_lowercase();
    if lower.contains("://") || lower.contains("www.") {
        return Err("must be a name, not an address".into());
    }
    if value.chars().any(char::is_alphanumeric) { Ok(()) } else { Err("must hold a letter or a digit".into()) }
}

fn only(value: &str, besides: &str, mend: &'static str) -> Result<(), Mend> {
    let fits = |character: char| character.is_ascii_alphanumeric() || besides.contains(character);
    if value.chars().all(fits) { Ok(()) } else { Err(mend.into()) }
}

/// `₹`, digits grouped 3-2-2 from the right without needless zeroes, perhaps two more behind a dot.
fn is_amount(value: &str) -> bool {
    let Some(number) = value.strip_prefix('₹') else { return false };
    let (whole, paise) = number.split_once('.').map_or((number, None), |(whole, paise)| (whole, Some(paise)));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if paise.is_some_and(|paise| paise.len() != 2 || !digits(paise)) {
        return false;
    }
    let groups: Vec<_> = whole.split(',').collect();
    let needless = whole.starts_with('0') && whole != "0";
    let grouped = match groups.as_slice() {
        [only] => (1..=3).contains(&only.len()),
        [first, middle @ .., last] => {
            (1..=2).contains(&first.len()) && middle.iter().all(|group| group.len() == 2) && last.len() == 3
        }
        [] => false,
    };
    grouped && !needless && groups.iter().all(|group| digits(group))
}

/// A real day as it is printed anywhere here, perhaps with a time of day.
fn is_date(value: &str) -> bool {
    let value = value.strip_suffix(" IST").unwrap_or(value);
    let (day, time) = match value.rsplit_once(' ') {
        Some((day, time)) if time.contains(':') => (day.strip_suffix(',').unwrap_or(day), Some(time)),
        _ => (value, None),
    };
    let printed = |format: &str| {
        // Written back it must be the same: no second spelling of one day.
        NaiveDate::parse_from_str(day, format).is_ok_and(|date| date.format(format).to_string() == day)
    };
    let real = ["%d-%m-%Y", "%-d %B %Y", "%d %B %Y"].into_iter().any(printed);
    let timely = time.is_none_or(|time| time.len() == 5 && NaiveTime::parse_from_str(time, "%H:%M").is_ok());
    real && timely
}

/// An address that leads to a page by way of TLS. This machine itself may be named without: nobody else gets there.
fn link(value: &str) -> Result<(), Mend> {
    let here = ["http://localhost", "http://127.0.0.1", "http://[::1]"];
    let here = here.into_iter().find_map(|here| value.strip_prefix(here));
    let rest = match here {
        Some(rest) if rest.is_empty() || rest.starts_with([':', '/']) => return characters(value),
        _ => value.strip_prefix("https://"),
    };
    let Some(rest) = rest else { return Err("must be an address that begins with https://".into()) };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host.contains('@') {
        return Err("must not name a user before the host".into());
    }
    let known = host.split(':').next().unwrap_or_default();
    if !known.starts_with(|first: char| first.is_ascii_alphanumeric()) || known.ends_with(['.', '-']) {
        return Err("must name a host behind https://".into());
    }
    characters(value)
}

fn characters(value: &str) -> Result<(), Mend> {
    let fits = |byte: u8| {
        byte.is_ascii_graphic() && !matches!(byte, b'<' | b'>' | b'"' | b'\\' | b'^' | b'`' | b'{' | b'}' | b'|')
    };
    if value.bytes().all(fits) {
        Ok(())
    } else {
        Err("must be written as an address is: no spaces, and letters of other scripts percent-encoded".into())
    }
}

fn path(value: &str) -> Result<(), Mend> {
    if value.starts_with('/') || value.contains("//") || value.contains("..") || value.contains('@') {
        return Err("must be the end of an address: without slashes at its front, two in a row, two dots, or @".into());
    }
    characters(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rust_decimal::Decimal;

    use super::*;

    fn check(kind: Kind, value: &str) -> Result<(), Mend> {
        kind.check(value, kind.longest())
    }

    #[test]
    fn what_the_carrier_would_refuse_in_any_value_is_told_with_its_mend() {
        for kind in [Kind::Text, Kind::Person, Kind::Business, Kind::Amount, Kind::Date, Kind::Reference, Kind::Link] {
            for (value, part) in [
                ("", "empty"),
                ("  ", "empty"),
                ("A\nB", "line"),
                ("A\tB", "line"),
                ("A\u{2028}B", "line"),
                ("A\u{202e}B", "direction"),
                ("A     B", "spaces"),
                (&"x".repeat(kind.longest() + 1), "longer"),
            ] {
                let mend = check(kind, value).expect_err(value);
                assert!(mend.contains(part), "{kind:?} {value:?}: {mend}");
            }
        }
        assert_eq!(check(Kind::Person, "क्\u{200d}ष आशा"), Ok(()), "joiners belong to the script");
    }

    #[test]
    fn each_kind_takes_what_is_printed_and_nothing_else() {
        let good: &[(Kind, &[&str])] = &[
            (Kind::Text, &["two items, ready at 5", "साफ़ शब्द"]),
            (Kind::Person, &["Asha Verma", "आशा वर्मा", "O'Neil Jr. 2"]),
            (Kind::Business, &["Sharma Mobiles", "24x7 & Sons"]),
            (Kind::Amount, &["₹0", "₹0.00", "₹9.50", "₹999", "₹1,180.00", "₹12,34,567", "₹1,00,00,000.05"]),
            (
                Kind::Date,
                &[
                    "23-11-2026",
                    "29-02-2028",
                    "5 March 2026",
                    "05 March 2026",
                    "23 November 2026, 14:05",
                    "26-11-2026 18:30 IST",
                    "23 November 2026, 14:05 IST",
                ],
            ),
            (Kind::Reference, &["INV-1042", "SM/26-27/0042", "R-2026-000123"]),
            (
                Kind::Link,
                &[
                    "https://shop.example/b/1?t=a#x",
                    "https://shop.example",
                    "https://shop.example:8443/x",
                    "http://localhost:8787/r/1",
                    "http://127.0.0.1:1/",
                ],
            ),
            (Kind::Path, &["1042?t=abc", "b/1042", "%E0%A4%86"]),
            (Kind::Code, &["012345", "DIWALI25", "A"]),
        ];
        for (kind, values) in good {
            for value in *values {
                assert_eq!(check(*kind, value), Ok(()), "{kind:?} {value}");
            }
        }
        let bad: &[(Kind, &[&str])] = &[
            (Kind::Person, &["https://evil.example", "Visit WWW.evil.example", "--"]),
            (Kind::Business, &["...", "http://x"]),
            (
                Kind::Amount,
                &[
                    "1,180.00",
                    "₹",
                    "₹1180",
                    "₹1,18,0",
                    "₹12,345,678",
                    "₹01",
                    "₹1,180.0",
                    "₹-5.00",
                    "₹ 5",
                    "₹,180",
                    "₹1,180.",
                    "₹१",
                ],
            ),
            (
                Kind::Date,
                &[
                    "2026-11-23",
                    "31-02-2026",
                    "29-02-2027",
                    "5-3-2026",
                    "23 Nov 2026",
                    "23-11-2026 25:00",
                    "23-11-2026 9:05",
                    "tomorrow",
                    "23-11-2026 IST 10:00",
                ],
            ),
            (Kind::Reference, &["INV 1042", "आ-1", "a@b", "x?y"]),
            (
                Kind::Link,
                &[
                    "http://shop.example",
                    "ftp://x",
                    "https://",
                    "https:///x",
                    "https://a@b.example",
                    "javascript:alert(1)",
                    "https://shop.example/a b",
                    "https://shop.example/आ",
                    "http://localhost.evil.example/",
                    "https://.example",
                    "https://shop.example/{{1}}",
                ],
            ),
            (Kind::Path, &["/x", "a//b", "a/../b", "@evil.example", "a b", "{{1}}"]),
            (Kind::Code, &["12 34", "12-34", "1234567890123456"]),
        ];
        for (kind, values) in bad {
            for value in *values {
                assert!(check(*kind, value).is_err(), "{kind:?} {value}");
            }
        }
    }

    proptest! {
        #[test]
        fn what_passes_is_what_the_carrier_takes(value in any::<String>(), place in 0_usize..9) {
            let kinds = [Kind::Text, Kind::Person, Kind::Business, Kind::Amount, Kind::Date, Kind::Reference, Kind::Link, Kind::Path, Kind::Code];
            let kind = kinds[place];
            if check(kind, &value).is_ok() {
                prop_assert!(!value.trim().is_empty() && !value.contains(['\n', '\r', '\t', '\0']));
                prop_assert!(!value.contains("     ") && value.chars().count() <= kind.longest());
                prop_assert!(kind != Kind::Link || value.starts_with("https://") || value.starts_with("http://"));
                prop_assert!(!matches!(kind, Kind::Link | Kind::Path | Kind::Code | Kind::Reference) || value.is_ascii());
            }
        }

        #[test]
        fn every_amount_that_we_print_is_one(paise in 0_i64..1_000_000_000_000_000) {
            let printed = format!("₹{}", crate::invoice::grouped(Decimal::new(paise, 2)));
            prop_assert_eq!(check(Kind::Amount, &printed), Ok(()), "{}", printed);
        }

        #[test]
        fn every_instant_that_we_print_is_one(secs in 0_i64..4_000_000_000) {
            let at = chrono::DateTime::from_timestamp(secs, 0).expect("an instant");
            for format in ["%-d %B %Y, %H:%M", "%d-%m-%Y %H:%M IST", "%d-%m-%Y", "%-d %B %Y"] {
                let printed = at.format(format).to_string();
                prop_assert_eq!(check(Kind::Date, &printed), Ok(()), "{}", printed);
            }
        }

        #[test]
        fn any_other_grouping_is_refused(digits in "[1-9][0-9]{3,12}") {
            let amount = format!("₹{digits}");
            prop_assert!(check(Kind::Amount, &amount).is_err());
        }

        #[test]
        fn no_value_breaks_out_of_its_line_or_its_words(before in "[a-z]{1,9}", after in "[a-z]{1,9}", breaker in "[\n\r\t\u{0}\u{b}\u{85}\u{2028}\u{202e}\u{2066}]") {
            let value = format!("{before}{breaker}{after}");
            for kind in [Kind::Text, Kind::Person, Kind::Business, Kind::Link, Kind::Path, Kind::Reference] {
                prop_assert!(check(kind, &value).is_err());
            }
        }
    }
}
