//! The numbers on a document and how each is checked: GSTIN, serial number, HSN, quantity code, IMEI.

const BASE36: &[u8; 36] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// Quantity codes that returns and the registration portal know.
const UNITS: [&str; 46] = [
    "BAG", "BAL", "BDL", "BKL", "BOU", "BOX", "BTL", "BUN", "CAN", "CBM", "CCM", "CMS", "CTN", "DOZ", "DRM", "GGK",
    "GMS", "GRS", "GYD", "KGS", "KLR", "KME", "LTR", "MLT", "MTR", "MTS", "NA", "NOS", "OTH", "PAC", "PCS", "PRS",
    "QTL", "ROL", "SET", "SQF", "SQM", "SQY", "TBS", "TGM", "THD", "TON", "TUB", "UGS", "UNT", "YDS",
];

/// What is wrong with a number, and the mend: two short phrases.
pub(crate) type Fault = (&'static str, &'static str);

/// Checks form and check digit of a GSTIN of an ordinary taxpayer. That does not prove that it is registered or active.
///
/// # Errors
/// The fault.
pub(crate) fn check_gstin(gstin: &str) -> Result<(), Fault> {
    let bytes = gstin.as_bytes();
    let form_is_right = bytes.len() == 15
        && bytes.iter().enumerate().all(|(position, byte)| match position {
            0 | 1 | 7..=10 => byte.is_ascii_digit(),
            2..=6 | 11 => byte.is_ascii_uppercase(),
            12 => matches!(byte, b'1'..=b'9' | b'A'..=b'Z'),
            13 => *byte == b'Z',
            _ => byte.is_ascii_digit() || byte.is_ascii_uppercase(),
        });
    if !form_is_right {
        return Err((
            "is not of the form of a GSTIN",
            "write 15 characters in capitals: State code, PAN, entity number, Z, check character",
        ));
    }
    if gstin_check_character(bytes) == Some(bytes[14]) {
        Ok(())
    } else {
        Err(("has a wrong check character", "copy it again from the registration certificate; one character is off"))
    }
}

/// The fifteenth character that belongs to the first fourteen: base 36, weights 1 and 2.
fn gstin_check_character(gstin: &[u8]) -> Option<u8> {
    let mut sum = 0;
    for (position, byte) in gstin.iter().take(14).enumerate() {
        let product = BASE36.iter().position(|known| known == byte)? * (1 + position % 2);
        sum += product / 36 + product % 36;
    }
    // The last remainder matters when the sum is a multiple of 36.
    BASE36.get((36 - sum % 36) % 36).copied()
}

/// Checks the form of a Unique Identity Number of an embassy or UN body.
///
/// # Errors
/// The fault.
pub(super) fn check_uin(uin: &str) -> Result<(), Fault> {
    let bytes = uin.as_bytes();
    let form_is_right = bytes.len() == 15
        && bytes.iter().enumerate().all(|(position, byte)| match position {
            0..=3 | 7..=11 => byte.is_ascii_digit(),
            4..=6 => byte.is_ascii_uppercase(),
            12 => matches!(byte, b'U' | b'O'),
            13 => *byte == b'N',
            _ => byte.is_ascii_digit() || byte.is_ascii_uppercase(),
        });
    if form_is_right {
        Ok(())
    } else {
        Err(("is not of the form of a UIN", "write the 15 characters of the UIN certificate, or leave it out"))
    }
}

/// Checks a serial number (r.46(b)); with `e_invoice` also the portal's rule on its first character.
///
/// # Errors
/// The fault.
pub(super) fn check_serial(number: &str, e_invoice: bool) -> Result<(), Fault> {
    if !(1..=16).contains(&number.len()) {
        return Err(("must have 1 to 16 characters", "shorten the series or the running number"));
    }
    if !number.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-')) {
        return Err(("holds a character that is not allowed", "use letters, digits, `-` and `/` only"));
    }
    if e_invoice && matches!(number.as_bytes()[0], b'0' | b'/' | b'-') {
        return Err((
            "starts with 0, `/` or `-`",
            "start with a letter or 1 to 9: the e-invoice portal refuses others",
        ));
    }
    Ok(())
}

/// Checks digits of an HSN or SAC. `least` is the smallest number of digits that the supplier's turnover allows.
///
/// # Errors
/// The fault.
pub(super) fn check_hsn(hsn: &str, least: usize) -> Result<(), Fault> {
    if !hsn.bytes().all(|byte| byte.is_ascii_digit()) || !matches!(hsn.len(), 4 | 6 | 8) {
        return Err(("is no HSN or SAC", "write 4, 6 or 8 digits without spaces"));
    }
    if hsn.len() < least {
        return Err(match least {
            8 => ("has too few digits for an export", "write all 8 digits"),
            _ => ("has too few digits for a turnover above ₹5 crore", "write at least 6 digits"),
        });
    }
    Ok(())
}

/// Whether the code names a service.
pub(super) fn is_service(hsn: &str) -> bool {
    hsn.starts_with("99")
}

/// Checks a Unique Quantity Code.
///
/// # Errors
/// The fault.
pub(super) fn check_unit(unit: &str) -> Result<(), Fault> {
    if UNITS.binary_search(&unit).is_ok() {
        Ok(())
    } else {
        Err(("is no Unique Quantity Code", "write NOS for numbers, PCS for pieces, KGS, MTR, ... or OTH"))
    }
}

/// Checks an IMEI: 15 digits, check digit, not all the same digit, not a payment card.
///
/// # Errors
/// The fault.
pub(super) fn check_imei(imei: &str) -> Result<(), Fault> {
    let bytes = imei.as_bytes();
    if bytes.len() != 15 || !bytes.iter().all(u8::is_ascii_digit) {
        return Err(("is no IMEI", "write the 15 digits that *#06# shows, without spaces"));
    }
    if bytes.iter().all(|byte| *byte == bytes[0]) {
        return Err(("repeats one digit", "write the IMEI of the phone, not a filler"));
    }
    // American Express numbers have 15 digits and the same check digit; no IMEI starts so.
    if imei.starts_with("34") || imei.starts_with("37") {
        return Err(("looks like a payment card number", "remove it: card numbers may not be stored"));
    }
    let sum: u32 = bytes
        .iter()
        .enumerate()
        .map(|(position, byte)| {
            let digit = u32::from(byte - b'0') * if position % 2 == 1 { 2 } else { 1 };
            digit / 10 + digit % 10
        })
        .sum();
    if sum.is_multiple_of(10) {
        Ok(())
    } else {
        Err(("has a wrong check digit", "read it again from the box or with *#06#"))
    }
}

/// Checks a UPI id such as `sharma.mobiles@okbank`.
///
/// # Errors
/// The fault.
pub(super) fn check_upi_id(id: &str) -> Result<(), Fault> {
    let name_is_right = |name: &str| {
        (2..=64).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
    };
    match id.split_once('@') {
        Some((name, bank))
            if name_is_right(name) && name_is_right(bank) && bank.as_bytes()[0].is_ascii_alphabetic() =>
        {
            Ok(())
        }
        _ => Err(("is no UPI id", "write it as `name@bank`")),
    }
}

/// A whole GSTIN from its first fourteen characters.
#[cfg(test)]
pub(super) fn whole_gstin(first: &str) -> String {
    let check = gstin_check_character(first.as_bytes()).expect("characters of a GSTIN");
    format!("{first}{}", char::from(check))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_sorted_for_the_search() {
        assert!(UNITS.is_sorted());
    }

    #[test]
    fn gstin_check_characters() {
        for gstin in [
            "27AAPFU0939F1ZV",
            "29ABCDE1234F1ZW",
            "36ABCPD1234E2ZE",
            "27ZZZPZ0000Z1ZA",
            "29ZZZCZ9999Z1ZF",
            "07ZZZFZ1234Z1ZJ",
            "33ZZZCZ9999Z1ZQ",
            "19AABCM0699K1Z0",
        ] {
            assert_eq!(check_gstin(gstin), Ok(()), "{gstin}");
        }
        for gstin in ["27AAPFU0939F1ZW", "72AAPFU0939F1ZV", "29AABCT1332L1ZU"] {
            assert_eq!(check_gstin(gstin).expect_err("wrong").0, "has a wrong check character", "{gstin}");
        }
        for gstin in ["", "27aapfu0939f1zv", "27AAPFU0939F1Z", "27AAPFU0939F0ZV", "27AAPFU0939F1YV", "२7AAPFU0939F1"]
        {
            assert_eq!(check_gstin(gstin).expect_err("wrong").0, "is not of the form of a GSTIN", "{gstin}");
        }
    }

    #[test]
    fn serial_numbers_have_sixteen_characters_at_most() {
        for (number, e_invoice, right) in [
            ("SM/26-27/00001", false, true),
            ("1234567890123456", true, true),
            ("12345678901234567", false, false),
            ("", false, false),
            ("A B", false, false),
            ("INV_1", false, false),
            ("बिल/1", false, false),
            ("inv-1", false, true),
            ("001", false, true),
            ("001", true, false),
            ("-1", true, false),
            ("/1", true, false),
            ("1", true, true),
        ] {
            assert_eq!(check_serial(number, e_invoice).is_ok(), right, "{number} {e_invoice}");
        }
    }

    #[test]
    fn hsn_digits_follow_the_turnover() {
        for (hsn, least, right) in [
            ("8517", 4, true),
            ("8517", 6, false),
            ("851713", 6, true),
            ("85171300", 8, true),
            ("851713", 8, false),
            ("85171", 4, false),
            ("85 17", 4, false),
            ("", 4, false),
            ("998713", 6, true),
        ] {
            assert_eq!(check_hsn(hsn, least).is_ok(), right, "{hsn} {least}");
        }
    }

    #[test]
    fn imeis_pass_luhn_and_are_neither_fillers_nor_cards() {
        for imei in ["490154203237518", "352099001761481", "356938035643809", "860123045678900"] {
            assert_eq!(check_imei(imei), Ok(()), "{imei}");
        }
        for (imei, wrong) in [
            ("490154203237519", "has a wrong check digit"),
            ("000000000000000", "repeats one digit"),
            ("378282246310005", "looks like a payment card number"),
            ("49015420323751", "is no IMEI"),
            ("4901542032375180", "is no IMEI"),
            ("49015420323751A", "is no IMEI"),
        ] {
            assert_eq!(check_imei(imei).expect_err("wrong").0, wrong, "{imei}");
        }
    }

    #[test]
    fn upi_ids_have_a_name_and_a_bank() {
        for (id, right) in [
            ("sharma.mobiles@okbank", true),
            ("9876543210@ybl", true),
            ("sharma", false),
            ("a@b&am=1", false),
            ("@ok", false),
        ] {
            assert_eq!(check_upi_id(id).is_ok(), right, "{id}");
        }
    }
}
