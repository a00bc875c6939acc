//! One way to write each thing that is looked up: equal people must have equal indexes.

use crate::outbound::{Email, Phone, carrier::PhoneError};

/// Why a value has no canonical form. It never repeats the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotCanonical {
    /// A phone number.
    #[error("{0}")]
    Phone(PhoneError),
    /// An e-mail address.
    #[error("is not an e-mail address")]
    Email,
    /// A GSTIN: what is wrong, and the mend.
    #[error("{0}: {1}")]
    Gstin(&'static str, &'static str),
}

/// A phone number in E.164.
///
/// # Errors
/// Letters, signs that nobody sees, a number that no message can go to.
pub fn phone(text: &str) -> Result<String, NotCanonical> {
    Phone::parse(text).map(|phone| phone.as_e164().to_owned()).map_err(NotCanonical::Phone)
}

/// An e-mail address with its domain in lower case; what stands before the `@` is the receiving server's business.
///
/// # Errors
/// [`NotCanonical::Email`]
pub fn email(text: &str) -> Result<String, NotCanonical> {
    Email::parse(text.trim()).map(|email| email.expose()).map_err(|_| NotCanonical::Email)
}

/// A GSTIN in capitals, its check character right (CGST Rules 2017 r.10).
///
/// # Errors
/// [`NotCanonical::Gstin`]
pub fn gstin(text: &str) -> Result<String, NotCanonical> {
    let gstin = text.trim().to_ascii_uppercase();
    let known = gstin.get(..2).is_some_and(|code| crate::law::find_state(code).is_some());
    match crate::invoice::check_gstin(&gstin) {
        Ok(()) if known => Ok(gstin),
        Ok(()) => Err(NotCanonical::Gstin("begins with no State's code", "copy it from the registration certificate")),
        Err((problem, mend)) => Err(NotCanonical::Gstin(problem, mend)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn atk_046_a_gstin_is_written_one_way_or_refused() {
        assert_eq!(gstin(" 27aapfu0939f1zv "), Ok("27AAPFU0939F1ZV".to_owned()));
        for valid in ["27AAPFU0939F1ZV", "29ABCDE1234F1ZW", "36ABCPD1234E2ZE", "19AABCM0699K1Z0"] {
            assert_eq!(gstin(valid), Ok(valid.to_owned()));
        }
        for wrong in [
            "27AAPFU0939F1ZW",
            "72AAPFU0939F1ZV",
            "29AABCT1332L1ZU",
            "27AAPFUO939F1ZV",
            "00AAPFU0939F1ZV",
            "",
            "27AAPFU0939F1Z",
            "😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀",
        ] {
            let error = gstin(wrong).expect_err(wrong);
            assert!(wrong.is_empty() || !error.to_string().contains(wrong), "{error}");
        }
    }

    #[test]
    fn phones_take_digits_of_any_script_and_nothing_hidden() {
        for written in ["9876543210", "+91 98765-43210", "０９８７６５４３２１０", "৯৮৭৬৫৪৩২১০", "꣙꣘꣗꣖꣕꣔꣓꣒꣑꣐"]
        {
            assert_eq!(phone(written), Ok("+919876543210".to_owned()), "{written}");
        }
        for (wrong, why) in [
            ("98765\u{200b}43210", PhoneError::Hidden),
            ("\u{202e}9876543210", PhoneError::Hidden),
            ("987654321O", PhoneError::Letter),
            ("1-800-FLOWERS", PhoneError::Letter),
            ("9876543210;ext=5", PhoneError::Extension),
        ] {
            assert_eq!(phone(wrong), Err(NotCanonical::Phone(why)), "{wrong:?}");
        }
        assert_eq!(email("Asha.Verma@Example.IN"), Ok("Asha.Verma@example.in".to_owned()));
        assert_eq!(email("asha@"), Err(NotCanonical::Email));
    }
}
