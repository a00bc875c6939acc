use std::fmt;

use crate::vault::screen::decimal;

/// A mobile number in E.164 with its plus sign: `+919812345678`.
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
    /// A letter, which a telephone's keypad would turn into some digit and so into somebody else.
    #[error("the phone number holds a letter: write it with digits alone")]
    Letter,
    /// A character that nobody sees, or that turns the direction of writing.
    #[error("the phone number holds a character that nobody sees: type it anew")]
    Hidden,
    /// More than the number itself.
    #[error("the phone number has an extension: a message goes to the mobile itself, leave the rest out")]
    Extension,
    /// Other signs in it.
    #[error("the phone number holds something other than digits, spaces and + - . ( )")]
    NotDigits,
    /// Indian, but not a mobile.
    #[error("an Indian mobile number is +91 and ten digits, the first of them 6 to 9")]
    NotIndianMobile,
    /// Foreign, but not E.164.
    #[error("a foreign number is written as + country code number, 8 to 15 digits in all")]
    NotE164,
    /// Foreign, and no mobile of its country: a landline, toll-free or premium number.
    #[error("this is no mobile number of its country: give one that can take messages")]
    NotMobile,
    /// Of a country whose mobile numbers nobody can tell from others, or that is not on the list.
    #[error("numbers of this country are not served: {}", served())]
    NotServed,
}

/// Mobile numbers of a country: its calling code, how they begin, and how many digits follow the calling code.
struct Mobiles {
    country: &'static str,
    code: &'static str,
    begin: &'static [&'static str],
    digits: std::ops::RangeInclusive<usize>,
}

/// The countries that messages go to beside India: its neighbours, and where many live who buy there. Only those whose
/// mobile numbers can be told from others by how they begin (ITU-T E.129, the countries' own numbering plans); under +1
/// they cannot.
const ABROAD: [Mobiles; 14] = [
    Mobiles {
        country: "United Arab Emirates",
        code: "971",
        begin: &["50", "52", "54", "55", "56", "58"],
        digits: 9..=9,
    },
    Mobiles { country: "Saudi Arabia", code: "966", begin: &["5"], digits: 9..=9 },
    Mobiles { country: "Qatar", code: "974", begin: &["3", "5", "6", "7"], digits: 8..=8 },
    Mobiles { country: "Kuwait", code: "965", begin: &["5", "6", "9"], digits: 8..=8 },
    Mobiles { country: "Oman", code: "968", begin: &["7", "9"], digits: 8..=8 },
    Mobiles { country: "Bahrain", code: "973", begin: &["3", "66"], digits: 8..=8 },
    Mobiles { country: "Nepal", code: "977", begin: &["96", "97", "98"], digits: 10..=10 },
    Mobiles { country: "Bhutan", code: "975", begin: &["16", "17", "77"], digits: 8..=8 },
    Mobiles { country: "Bangladesh", code: "880", begin: &["13", "14", "15", "16", "17", "18", "19"], digits: 10..=10 },
    Mobiles { country: "Sri Lanka", code: "94", begin: &["7"], digits: 9..=9 },
    Mobiles { country: "Singapore", code: "65", begin: &["8", "9"], digits: 8..=8 },
    Mobiles {
        country: "Malaysia",
        code: "60",
        begin: &["10", "11", "12", "13", "14", "16", "17", "18", "19"],
        digits: 9..=10,
    },
    Mobiles {
        country: "United Kingdom",
        code: "44",
        // 70 are personal numbers at a premium, 76 pagers but for the Isle of Man.
        begin: &["71", "72", "73", "74", "75", "7624", "77", "78", "79"],
        digits: 10..=10,
    },
    Mobiles { country: "Australia", code: "61", begin: &["4"], digits: 9..=9 },
];

fn served() -> String {
    ABROAD.iter().fold("India".to_owned(), |list, one| format!("{list}, {}", one.country))
}

impl Phone {
    /// Reads a mobile number as people write it; what has no country code is Indian. Digits may be of any script
    /// (Unicode category Nd); a number that can be read in two ways is refused.
    ///
    /// # Errors
    /// [`PhoneError`] names what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, PhoneError> {
        let Written { digits, names_country } = Written::read(text)?;
        if names_country {
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
        // ITU-T E.164: at most fifteen digits, and no country's code begins with 0.
        if !(8..=15).contains(&digits.len()) || digits.starts_with('0') {
            return Err(PhoneError::NotE164);
        }
        let country = ABROAD.iter().find_map(|one| Some((one, digits.strip_prefix(one.code)?)));
        let (country, national) = country.ok_or(PhoneError::NotServed)?;
        let mobile = country.digits.contains(&national.len())
            && country.begin.iter().any(|beginning| national.starts_with(beginning));
        if mobile { Ok(Self(format!("+{digits}"))) } else { Err(PhoneError::NotMobile) }
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

/// A number as it was written.
struct Written {
    /// In ASCII.
    digits: String,
    /// By `+` or `00`.
    names_country: bool,
}

impl Written {
    /// What is no digit and no sign that people put between digits is refused and never left out in silence: whoever
    /// leaves it out has somebody else's number.
    fn read(text: &str) -> Result<Self, PhoneError> {
        let text = text.trim();
        // RFC 3966: `tel:` before a number with its country is that number; its parameters are none of ours.
        let text = match text.get(..4) {
            Some(scheme) if scheme.eq_ignore_ascii_case("tel:") && text[4..].starts_with('+') => &text[4..],
            _ => text,
        };
        // `+91 (0) 98765 43210`: the 0 that is dialled within the country, in brackets because it is not dialled from
        // outside it.
        let (mut digits, mut plus) = (String::with_capacity(16), false);
        let mut rest = text.chars();
        while let Some(character) = rest.next() {
            match character {
                '+' | '\u{ff0b}' if digits.is_empty() && !plus => plus = true,
                '(' if plus && !digits.is_empty() && rest.as_str().starts_with("0)") => {
                    rest.next();
                    rest.next();
                }
                // NFKC makes a space of the second and third.
                ' ' | '\u{a0}' | '\u{202f}' | '-' | '\u{2010}'..='\u{2013}' | '.' | '(' | ')' => {}
                _ => match decimal(character) {
                    Some(digit) => digits.push(char::from(b'0' + digit)),
                    None => return Err(why_not(character, rest.as_str(), &digits)),
                },
            }
            if digits.len() > 20 {
                return Err(PhoneError::NotE164);
            }
        }
        if digits.is_empty() {
            return Err(PhoneError::Empty);
        }
        if !plus && let Some(national) = digits.strip_prefix("00") {
            return Ok(Self { digits: national.to_owned(), names_country: true });
        }
        Ok(Self { digits, names_country: plus })
    }
}

/// What is wrong with a character that belongs to no number.
fn why_not(character: char, rest: &str, digits: &str) -> PhoneError {
    let word = |words: &[&str]| {
        let said: String = std::iter::once(character).chain(rest.chars().take(12)).collect::<String>().to_lowercase();
        words.iter().any(|word| said.starts_with(word))
    };
    if digits.len() >= 8 && (matches!(character, ';' | '#' | ',') || word(&["ext", "x "])) {
        PhoneError::Extension
    } else if is_hidden(character) {
        PhoneError::Hidden
    } else if character.is_alphabetic() {
        PhoneError::Letter
    } else {
        PhoneError::NotDigits
    }
}

/// Characters that take no room or turn the direction of writing (Unicode categories Cc and Cf, as far as they are met
/// in copied numbers), and fillers.
const fn is_hidden(character: char) -> bool {
    matches!(
        character,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}'
            | '\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e01ef}'
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn is(written: &str, expected: &str) {
        assert_eq!(Phone::parse(written).as_ref().map(Phone::as_e164), Ok(expected), "{written}");
    }

    #[track_caller]
    fn is_not(written: &str, why: PhoneError) {
        assert_eq!(Phone::parse(written), Err(why), "{written:?}");
    }

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
            ("98123.45678", "+919812345678"),
            ("\u{a0}98123\u{202f}45678 ", "+919812345678"),
            ("+971 50 123 4567", "+971501234567"),
            ("0044 7400 123456", "+447400123456"),
        ] {
            is(written, expected);
        }
    }

    #[test]
    fn what_is_no_mobile_is_refused_with_the_reason() {
        for (written, expected) in [
            ("", PhoneError::Empty),
            ("   ", PhoneError::Empty),
            ("+", PhoneError::Empty),
            ("98+12345678", PhoneError::NotDigits),
            ("98/12345678", PhoneError::NotDigits),
            ("12345", PhoneError::NotIndianMobile),
            ("5812345678", PhoneError::NotIndianMobile),
            ("+910812345678", PhoneError::NotIndianMobile),
            ("0112345678", PhoneError::NotIndianMobile),
            ("98123456789", PhoneError::NotIndianMobile),
            ("+1234567", PhoneError::NotE164),
            ("+1234567890123456", PhoneError::NotE164),
            ("+0123456789", PhoneError::NotE164),
            ("98123456789812345678981234", PhoneError::NotE164),
        ] {
            is_not(written, expected);
        }
    }

    #[test]
    fn atk_040_letters_are_refused_and_never_dialled() {
        for written in ["+91987654321O", "1-800-FLOWERS", "98123x5678", "98765४321Ο", "९८७६५४३२१क", "tel:9876543210"]
        {
            is_not(written, PhoneError::Letter);
        }
    }

    #[test]
    fn atk_041_digits_of_any_script_are_digits_and_nothing_is_left_out_in_silence() {
        for written in [
            "९८१२३४५६७८",
            "৯৮১২৩৪৫৬৭৮",
            "௯௮௧௨௩௪௫௬௭௮",
            "９８１２３４５６７８",
            "＋９１ ９８１２３４５６７８",
            "٩٨١٢٣٤٥٦٧٨",
            "𝟗𝟖𝟏𝟐𝟑𝟒𝟓𝟔𝟕𝟖",
            "98123\u{a0}45678",
        ] {
            is(written, "+919812345678");
        }
        for hidden in ["\u{200b}", "\u{200d}", "\u{202e}", "\u{2066}", "\u{feff}", "\u{ad}", "\u{0}", "\t", "\u{fe0f}"]
        {
            is_not(&format!("98123{hidden}45678"), PhoneError::Hidden);
        }
        // Superscripts and circled digits look like digits, and are none.
        for sign in ["²", "②", "½", "*"] {
            is_not(&format!("98123{sign}45678"), PhoneError::NotDigits);
        }
    }

    #[test]
    fn atk_042_ways_to_write_one_number_are_one_and_what_is_ambiguous_is_refused() {
        for written in [
            "9876543210",
            "09876543210",
            "00919876543210",
            "919876543210",
            "+91 (0) 98765 43210",
            "+91(0)9876543210",
            "tel:+91-98765-43210",
            "TEL:+919876543210",
        ] {
            is(written, "+919876543210");
        }
        is("+44 (0) 7400 123456", "+447400123456");
        for written in
            ["9876543210;ext=5", "+919876543210 ext. 5", "9876543210 x 5", "9876543210#5", "tel:+919876543210;ext=5"]
        {
            is_not(written, PhoneError::Extension);
        }
        // A trunk 0 after the country's code without brackets: a slip of the finger, or another number.
        for written in ["+9109876543210", "+91 0 98765 43210", "(0) 98765 4321", "91 09876543210", "0919876543210"] {
            is_not(written, PhoneError::NotIndianMobile);
        }
    }

    #[test]
    fn atk_043_only_mobiles_of_countries_on_the_list() {
        // A landline, a toll-free, a shared-cost and a calling-campaign number.
        for written in ["+911234567890", "022 2345 6789", "1800 123 4567", "1860 500 1234", "1600123456"] {
            is_not(written, PhoneError::NotIndianMobile);
        }
        for written in [
            "0044 20 7946 0958",
            "+44 7000 123456",
            "+44 909 8790 000",
            "+971 4 123 4567",
            "+97150123456",
            "+966 11 234 5678",
        ] {
            is_not(written, PhoneError::NotMobile);
        }
        for written in ["+1 212 555 0123", "+1 900 555 0123", "+49 1512 3456789", "+7 912 345 6789", "+870 773 111 632"]
        {
            is_not(written, PhoneError::NotServed);
        }
        for (written, expected) in [
            ("+966 51 234 5678", "+966512345678"),
            ("+974 3312 3456", "+97433123456"),
            ("+965 5001 2345", "+96550012345"),
            ("+968 9212 3456", "+96892123456"),
            ("+973 3600 1234", "+97336001234"),
            ("+977 984 1234567", "+9779841234567"),
            ("+975 17 12 34 56", "+97517123456"),
            ("+880 1812 345678", "+8801812345678"),
            ("+94 71 234 5678", "+94712345678"),
            ("+65 8123 4567", "+6581234567"),
            ("+60 12 345 6789", "+60123456789"),
            ("+61 412 345 678", "+61412345678"),
        ] {
            is(written, expected);
        }
        assert!(PhoneError::NotServed.to_string().contains("Singapore"));
    }

    #[test]
    fn atk_045_strings_that_broke_other_parsers_are_refused() {
        for written in [
            ".;phone-context=",
            ";phone-context=+91",
            "tel:;phone-context=",
            "+;ext=",
            "tel:",
            "tel:+",
            "(0)",
            "+(0)",
            "+91(0",
            "((((((((((",
            "\u{1F4DE}9876543210",
            "té:+9",
            &"9".repeat(1 << 20),
            &"(".repeat(1 << 16),
        ] {
            assert!(Phone::parse(written).is_err(), "{}", &written[..written.len().min(20)]);
        }
    }

    proptest! {
        #[test]
        fn atk_045_nothing_makes_it_panic_and_what_it_takes_is_a_mobile(written in ".{0,40}") {
            if let Ok(phone) = Phone::parse(&written) {
                prop_assert!(phone.digits().bytes().all(|byte| byte.is_ascii_digit()));
                prop_assert_eq!(Phone::parse(phone.as_e164()), Ok(phone.clone()));
            }
        }

        #[test]
        fn atk_045_near_numbers_make_no_panic_either(written in "(tel:|TEL:|\\+|＋|00|0)?[0-9०-९ ().+;xe\u{200b}\u{ff0b}-]{0,24}") {
            if let Ok(phone) = Phone::parse(&written) {
                prop_assert_eq!(Phone::parse(phone.as_e164()), Ok(phone));
            }
        }
    }

    #[test]
    fn a_number_never_shows_itself() {
        let phone = Phone::parse("9812345678").expect("a mobile");
        assert_eq!(format!("{phone:?}"), "Phone(…)");
        assert_eq!(phone.digits(), "919812345678");
    }
}
