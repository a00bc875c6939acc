//! What is refused rather than sealed: card numbers, secrets of cards and accounts, Aadhaar numbers.
//!
//! A card number is 14 to 19 digits that an issuer gives out in that length, with a right check digit (ISO/IEC 7812-1,
//! Luhn); where goods and clocks have numbers of the same shape, a word about cards beside it decides. Nobody but
//! issuers and networks may keep one (RBI, card-on-file, in force since 1 October 2022); the last four digits may be
//! kept. An Aadhaar number is twelve digits with a right Verhoeff digit; kept at most masked (Aadhaar Act 2016 s.29).
//!
//! A number split over two messages is not seen: each half alone is no card number.

use serde_json::Value;

/// What must not be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The number of a payment card.
    CardNumber,
    /// A card's CVV or PIN, a UPI PIN, a magnetic stripe.
    PaymentSecret,
    /// An Aadhaar number.
    Aadhaar,
}

impl Finding {
    /// What is wrong, to stand behind the field's name.
    pub fn problem(self) -> &'static str {
        match self {
            Self::CardNumber => "holds what looks like a card number",
            Self::PaymentSecret => "is a secret of a card or account, which nobody may keep",
            Self::Aadhaar => "holds what looks like an Aadhaar number",
        }
    }

    /// What to do instead.
    pub fn mend(self) -> &'static str {
        match self {
            Self::CardNumber => "send the last four digits and the issuer, or the token of your payment service",
            Self::PaymentSecret => "leave the field out",
            Self::Aadhaar => "send the last four digits and the result of the check",
        }
    }

    /// Stable cause, for machines.
    pub fn cause(self) -> &'static str {
        match self {
            Self::CardNumber => "vault.card_number",
            Self::PaymentSecret => "vault.payment_secret",
            Self::Aadhaar => "vault.aadhaar",
        }
    }
}

/// A value that is refused: where it stands, never what it says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` {}", found.problem())]
pub struct Refused {
    /// Its path, `invoice.buyer.note`; a name that is itself the finding is left out.
    pub field: String,
    /// What it looks like.
    pub found: Finding,
}

/// Looks at all names and values of a document.
///
/// # Errors
/// The first thing that must not be kept.
pub fn check(value: &Value) -> Result<(), Refused> {
    walk(&mut Vec::new(), value)
}

/// As [`check`], for a document in writing. What is no JSON is left to its reader.
///
/// # Errors
/// The first thing that must not be kept.
pub fn check_json(text: &str) -> Result<(), Refused> {
    if !may_hold(text) {
        return Ok(());
    }
    serde_json::from_str(text).map_or(Ok(()), |value| check(&value))
}

/// Whether a closer look is worth it: most payloads are a few ids.
fn may_hold(text: &str) -> bool {
    let mut digits = 0;
    for byte in text.bytes() {
        digits += usize::from(byte.is_ascii_digit());
        // Digits of another script, or an escape that may hide one.
        if !byte.is_ascii() || byte == b'\\' || digits >= 12 {
            return true;
        }
    }
    SECRETS.iter().any(|secret| text.contains(secret))
}

/// Names of fields whose values nobody may keep.
const SECRETS: [&str; 10] =
    ["cvv", "cvv2", "cvc", "cvc2", "card_cvv", "card_pin", "atm_pin", "upi_pin", "mpin", "track2"];

fn walk(path: &mut Vec<String>, value: &Value) -> Result<(), Refused> {
    let refused = |found: Option<Finding>, path: &[String]| {
        found.map_or(Ok(()), |found| Err(Refused { field: path.join("."), found }))
    };
    match value {
        Value::Null | Value::Bool(_) => Ok(()),
        Value::Number(number) => refused(find_in(path, &number.to_string()), path),
        Value::String(text) => refused(find_in(path, text), path),
        Value::Array(items) => items.iter().enumerate().try_for_each(|(place, item)| {
            path.push(place.to_string());
            walk(path, item)?;
            path.pop();
            Ok(())
        }),
        Value::Object(fields) => fields.iter().try_for_each(|(name, item)| {
            refused(find(name), path)?;
            path.push(name.clone());
            let empty = item.is_null() || item.as_str().is_some_and(str::is_empty);
            let secret = !empty && SECRETS.contains(&name.to_lowercase().as_str());
            refused(secret.then_some(Finding::PaymentSecret), path)?;
            walk(path, item)?;
            path.pop();
            Ok(())
        }),
    }
}

/// What `text` holds that must not be kept.
pub fn find(text: &str) -> Option<Finding> {
    find_in(&[], text)
}

/// All that `text` holds that must not be kept, one for each place.
pub fn findings(text: &str) -> Vec<Finding> {
    spans(&[], text).map(|(found, _)| found).collect()
}

fn find_in(path: &[String], text: &str) -> Option<Finding> {
    spans(path, text).next().map(|(found, ..)| found)
}

/// `text` with all but the last four digits of each finding written as `X`: for free text that somebody else wrote and
/// that has to be kept.
pub fn mask(text: &str) -> String {
    let hidden: Vec<usize> = spans(&[], text)
        .flat_map(|(_, places)| {
            let kept = places.len().saturating_sub(4);
            places.into_iter().take(kept).collect::<Vec<_>>()
        })
        .collect();
    text.char_indices().map(|(at, character)| if hidden.contains(&at) { 'X' } else { character }).collect()
}

/// Digits without anything between them but what nobody sees.
struct Group {
    digits: Vec<u8>,
    /// Where each digit stands, in bytes.
    places: Vec<usize>,
    after_letter: bool,
    before_letter: bool,
    after_plus: bool,
    /// Whether only what people put between groups of one number stands before it.
    joined: bool,
}

fn groups(text: &str) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let (mut open, mut previous, mut between) = (false, None, Some(0));
    let mut uuid_ends = 0;
    for (at, character) in text.char_indices() {
        if at >= uuid_ends && !previous.is_some_and(char::is_alphanumeric) && is_uuid_at(text, at) {
            uuid_ends = at + UUID_LENGTH;
        }
        if at < uuid_ends {
            (open, between) = (false, None);
        } else if let Some(digit) = decimal(character) {
            if !open {
                groups.push(Group {
                    digits: Vec::new(),
                    places: Vec::new(),
                    after_letter: previous.is_some_and(char::is_alphabetic),
                    before_letter: false,
                    after_plus: previous == Some('+'),
                    joined: matches!(between, Some(1..=2)) && !groups.is_empty(),
                });
                open = true;
            }
            if let Some(group) = groups.last_mut() {
                group.digits.push(digit);
                group.places.push(at);
            }
            between = Some(0);
        } else if is_invisible(character) {
            continue;
        } else {
            if open && let Some(group) = groups.last_mut() {
                group.before_letter = character.is_alphabetic();
            }
            open = false;
            between = between.filter(|_| is_separator(character)).map(|count| count + 1);
        }
        previous = Some(character);
    }
    groups
}

/// Of a UUID as everybody writes it: 8-4-4-4-12 hexadecimal digits.
const UUID_LENGTH: usize = 36;

/// Whether a whole UUID begins here: about one in three thousand holds three groups of digits like an Aadhaar number's.
fn is_uuid_at(text: &str, at: usize) -> bool {
    let Some(here) = text.get(at..at + UUID_LENGTH) else { return false };
    let shaped = here.bytes().enumerate().all(|(place, byte)| match place {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    });
    shaped && !text[at + UUID_LENGTH..].starts_with(char::is_alphanumeric)
}

fn is_invisible(character: char) -> bool {
    matches!(character, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

fn is_separator(character: char) -> bool {
    matches!(character, ' ' | '-' | '.' | '\u{a0}' | '\u{2010}'..='\u{2015}' | '\u{202f}' | '\u{2212}')
}

/// How people write a card number in groups; `1` repeated is digit by digit.
const CARD_GROUPS: [&[usize]; 6] = [&[4, 4, 4, 4], &[4, 6, 5], &[4, 6, 4], &[4, 4, 4, 4, 3], &[8, 8], &[4, 4, 4, 1]];

/// Findings with the places of their digits.
fn spans<'a>(path: &'a [String], text: &'a str) -> impl Iterator<Item = (Finding, Vec<usize>)> + 'a {
    let groups = groups(text);
    let mut from = 0;
    std::iter::from_fn(move || {
        while from < groups.len() {
            let mut to = from + 1;
            let mut longest = None;
            loop {
                if let Some(found) = classify(path, text, &groups[from..to]) {
                    longest = Some((found, to));
                }
                if to >= groups.len() || !groups[to].joined || to - from >= 19 {
                    break;
                }
                to += 1;
            }
            if let Some((found, to)) = longest {
                let places = groups[from..to].iter().flat_map(|group| group.places.iter().copied()).collect();
                from = to;
                return Some((found, places));
            }
            from += 1;
        }
        None
    })
}

fn classify(path: &[String], text: &str, groups: &[Group]) -> Option<Finding> {
    let sizes: Vec<usize> = groups.iter().map(|group| group.digits.len()).collect();
    let digits: Vec<u8> = groups.iter().flat_map(|group| group.digits.iter().copied()).collect();
    let (first, last) = (groups.first()?, groups.last()?);
    let glued = first.after_letter || last.before_letter;
    let single = sizes.len() == 1;
    let spelled = sizes.len() > 1 && sizes.iter().all(|size| *size == 1);
    match digits.len() {
        13..=19 if single || spelled || CARD_GROUPS.contains(&sizes.as_slice()) => {
            let issued = issuer(&digits)?;
            let told = (issued == Issued::Surely && !glued) || speaks_of(path, text, CARD_WORDS);
            (told && luhn(&digits)).then_some(Finding::CardNumber)
        }
        12 if !first.after_plus && (single || spelled || sizes == [4, 4, 4]) => {
            let mobile = digits.starts_with(&[9, 1]) && digits[2] >= 6;
            let told = (sizes == [4, 4, 4] && !glued) || speaks_of(path, text, AADHAAR_WORDS);
            (digits[0] >= 2 && told && !(mobile && single) && verhoeff(&digits)).then_some(Finding::Aadhaar)
        }
        _ => None,
    }
}

const CARD_WORDS: &[&str] = &["card", "visa", "master", "rupay", "amex", "maestro", "credit", "debit", "cvv", "कार्ड"];
const AADHAAR_WORDS: &[&str] = &["aadh", "adhar", "adhaar", "uidai", "uid", "kyc", "identity", "id_proof", "आधार"];

/// Whether the text, or the names that lead to it, speak of such a thing.
fn speaks_of(path: &[String], text: &str, words: &[&str]) -> bool {
    let said = |text: &str| {
        let text = text.to_lowercase();
        words.iter().any(|word| text.contains(word))
    };
    path.iter().any(|name| said(name)) || said(text)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Issued {
    /// Hardly anything else looks like it.
    Surely,
    /// Goods, devices or clocks have numbers like it: EAN-13, IMEISV, `yyyymmddhhmmss`.
    Perhaps,
}

/// Whether an issuer gives out numbers with this beginning in this length.
fn issuer(digits: &[u8]) -> Option<Issued> {
    let beginning = |count: usize| digits.iter().take(count).fold(0, |number, digit| number * 10 + u32::from(*digit));
    let (two, three, four) = (beginning(2), beginning(3), beginning(4));
    match digits.len() {
        15 if matches!(two, 34 | 37) => Some(Issued::Surely),
        16 if matches!(two, 40..=49 | 51..=55 | 60 | 65 | 81 | 82) || three == 508 || (2221..=2720).contains(&four) => {
            Some(Issued::Surely)
        }
        19 if matches!(two, 40..=49 | 60 | 65) => Some(Issued::Surely),
        13 if matches!(two, 40..=49) => Some(Issued::Perhaps),
        14 if matches!(two, 30 | 36 | 38 | 39) => Some(Issued::Perhaps),
        16 if (3528..=3589).contains(&four) || matches!(two, 30 | 36 | 38 | 39) => Some(Issued::Perhaps),
        _ => None,
    }
}

/// The check of ISO/IEC 7812-1 annex B.
fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| match (place % 2, u32::from(*digit)) {
            (0, digit) => digit,
            (_, digit) if digit > 4 => digit * 2 - 9,
            (_, digit) => digit * 2,
        })
        .sum();
    sum.is_multiple_of(10)
}

/// Verhoeff's check: the dihedral group D5 and a permutation.
fn verhoeff(digits: &[u8]) -> bool {
    const PRODUCT: [&[u8; 10]; 10] = [
        b"0123456789",
        b"1234067895",
        b"2340178956",
        b"3401289567",
        b"4012395678",
        b"5987604321",
        b"6598710432",
        b"7659821043",
        b"8765932104",
        b"9876543210",
    ];
    const PERMUTATION: [&[u8; 10]; 8] = [
        b"0123456789",
        b"1576283094",
        b"5803796142",
        b"8916043527",
        b"9453126870",
        b"4286573901",
        b"2793806415",
        b"7046913258",
    ];
    let check = digits.iter().rev().enumerate().fold(0_u8, |check, (place, digit)| {
        let permuted = PERMUTATION[place % 8][usize::from(*digit)] - b'0';
        PRODUCT[usize::from(check)][usize::from(permuted)] - b'0'
    });
    check == 0
}

/// The value of a decimal digit of any script (Unicode general category Nd).
pub fn decimal(character: char) -> Option<u8> {
    if character.is_ascii() {
        return character.to_digit(10).and_then(|digit| u8::try_from(digit).ok());
    }
    let code = u32::from(character);
    ZEROS.iter().find(|zero| (**zero..**zero + 10).contains(&code)).and_then(|zero| u8::try_from(code - zero).ok())
}

/// The zero of each script beyond ASCII, Unicode 14.
const ZEROS: [u32; 65] = [
    0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xde6, 0xe50, 0xed0, 0xf20,
    0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90, 0x1b50, 0x1bb0, 0x1c40, 0x1c50, 0xa620, 0xa8d0,
    0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10, 0x104a0, 0x10d30, 0x11066, 0x110f0, 0x11136, 0x111d0, 0x112f0,
    0x11450, 0x114d0, 0x11650, 0x116c0, 0x11730, 0x118e0, 0x11950, 0x11c50, 0x11d50, 0x11da0, 0x16a60, 0x16ac0,
    0x16b50, 0x1d7ce, 0x1d7d8, 0x1d7e2, 0x1d7ec, 0x1d7f6, 0x1e140, 0x1e2f0, 0x1e950, 0x1fbf0,
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn atk_047_card_numbers_are_found_however_they_are_written() {
        for text in [
            "4111 1111 1111 1111",
            "4111111111111111",
            "4111-1111-1111-1111",
            "pay with 4111.1111.1111.1111 please",
            "４１１１１１１１１１１１１１１１",
            "४१११ ११११ ११११ ११११",
            "4111\u{200b}111111111\u{200b}111",
            "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1",
            "scan_4111111111111111.pdf",
            "my card4111111111111111",
            "5555555555554444",
            "2223003122003222",
            "378282246310005",
            "3782 822463 10005",
            "6521 5209 8765 4321 is no card, 6011 1111 1111 1117 is",
            "card 30569309025904",
            "card 4222222222222",
            "12/27 4111 1111 1111 1111 123",
        ] {
            assert_eq!(find(text), Some(Finding::CardNumber), "{text}");
        }
        let refused = check(&json!({ "note": { "4111111111111111": 1 } })).expect_err("a card number as a name");
        assert_eq!((refused.field.as_str(), refused.found), ("note", Finding::CardNumber));
        let refused = check(&json!({ "lines": [{ "note": 4_111_111_111_111_111_u64 }] })).expect_err("as a number");
        assert_eq!(refused.field, "lines.0.note");
        assert!(!refused.to_string().contains("4111"), "{refused}");
        let refused = check_json(r#"{"payment":{"cvv":"123"}}"#).expect_err("a CVV");
        assert_eq!((refused.field.as_str(), refused.found), ("payment.cvv", Finding::PaymentSecret));
    }

    #[test]
    fn atk_048_instants_orders_devices_and_ids_are_no_cards() {
        for text in [
            "1764000000000",
            "1764000000000000",
            "20261123120000",
            "order 4111111111111112",
            "OD4111111111111111",
            "402-1234567-1234567",
            "550e8400-e29b-41d4-a716-446655440000",
            "41111111-1111-1111-1111-111111111111",
            "490154203237518",
            "352099001761481",
            "356938035643809",
            "4006381333931",
            "0000000000000000",
            "4111 1111 1111",
            "27AAPFU0939F1ZV",
            "+919876543210",
            "9876543210 9876543211",
        ] {
            assert_eq!(find(text), None, "{text}");
        }
        // Every millisecond of a second, and every hundredth order of a day: none looks like a card.
        for millis in 1_764_000_000_000_u64..1_764_000_001_000 {
            assert_eq!(find(&millis.to_string()), None, "{millis}");
        }
        for order in 0..1000_u64 {
            assert_eq!(find(&format!("SM/26-27/{order:05}")), None);
        }
    }

    #[test]
    fn atk_048_no_uuid_is_an_aadhaar_number_and_none_hides_one() {
        let id = "01902341-2341-7341-8346-a716446655c4";
        let digits = |from: u32| {
            (from..from + 10_000).map(|n| format!("0190{n:04}-2341-7{:03}-8{:03}-a7164466", n % 1000, n / 7 % 1000))
        };
        for beginning in digits(0) {
            let id = format!("{beginning}{}", "55c4");
            assert_eq!(check(&json!({ "identity": id, "kyc": format!("m:{id}/2") })), Ok(()), "{id}");
        }
        for text in [format!("{id} 2341 2341 2346"), format!("2341 2341 2346 {id}"), format!("{id}-2341-2341-2346")] {
            assert_eq!(find(&text), Some(Finding::Aadhaar), "{text}");
        }
        for text in [format!("{id}9"), format!("9{id}"), "2341-2341-2346-a716".to_owned()] {
            assert!(!is_uuid_at(&text, 0), "{text}");
        }
    }

    #[test]
    fn atk_049_an_aadhaar_number_is_refused_and_can_be_masked() {
        for text in ["2341 2341 2346", "my aadhaar is 999941057058", "आधार ९९९९४१०५७०५८", "9999-4105-7058"]
        {
            assert_eq!(find(text), Some(Finding::Aadhaar), "{text}");
        }
        assert_eq!(check(&json!({ "id_proof": "234123412346" })).expect_err("refused").found, Finding::Aadhaar);
        for text in ["2341 2341 2347", "aadhaar 234123412347", "919876543210", "rrn 234123412346", "1341 2341 2346"] {
            assert_eq!(find(text), None, "{text}");
        }
        assert_eq!(mask("aadhaar 2341 2341 2346, thanks"), "aadhaar XXXX XXXX 2346, thanks");
        assert_eq!(mask("४१११ ११११ ११११ ११११"), "XXXX XXXX XXXX ११११");
        assert_eq!(mask("call +91 98765 43210"), "call +91 98765 43210");
    }

    #[test]
    fn what_is_skipped_at_a_glance_holds_nothing() {
        assert!(!may_hold(r#"{"invoice_id":"a-b-c","count":12345678901}"#));
        assert!(may_hold(r#"{"note":"411111111111"}"#) && may_hold("४") && may_hold("\\u0966") && may_hold("upi_pin"));
    }
}
