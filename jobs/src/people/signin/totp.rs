//! Codes of an authenticator app (RFC 6238): SHA-1, six digits, thirty seconds, one step of tolerance either way, since
//! that is what every app takes. The library says which step a code belongs to; that each step counts once is kept by
//! the table ([`super::use_totp_step`]).

use chrono::{DateTime, Utc};
use totp_rs::{Algorithm, Builder, Totp};
use zeroize::Zeroizing;

use super::Error;
use crate::outbound::Chance;

/// Bytes of a secret: as long as the digest (RFC 4226 section 4).
const SECRET_LENGTH: usize = 20;
/// Seconds of one step.
const STEP_SECS: u64 = 30;
/// Steps tolerated before and after.
const SKEW: u16 = 1;

/// A fresh secret.
pub fn new_secret(chance: &dyn Chance) -> Zeroizing<Vec<u8>> {
    let mut secret = Zeroizing::new(vec![0; SECRET_LENGTH]);
    chance.fill(&mut secret);
    secret
}

/// The step of `code` if it is one of the three that are valid at `now`.
///
/// # Errors
/// [`Error::BadSecret`]
pub fn check(secret: &[u8], code: &str, now: DateTime<Utc>) -> Result<Option<i64>, Error> {
    if code.len() != 6 || !code.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    let step = totp(secret)?.check(code, seconds(now));
    Ok(step.and_then(|step| i64::try_from(step).ok()))
}

/// The step that `now` is in.
pub fn step_at(now: DateTime<Utc>) -> i64 {
    i64::try_from(seconds(now) / STEP_SECS).unwrap_or(0)
}

/// What an app reads from the QR code (the `otpauth` scheme), and the secret for those who type it.
///
/// `issuer` and `account` are shown in the app; they hold no colon.
pub fn enrolment(secret: &[u8], issuer: &str, account: &str) -> (Zeroizing<String>, Zeroizing<String>) {
    let typed = Zeroizing::new(base32(secret));
    let (issuer, account) = (escape(issuer), escape(account));
    let url = format!(
        "otpauth://totp/{issuer}:{account}?secret={}&issuer={issuer}&algorithm=SHA1&digits=6&period={STEP_SECS}",
        *typed
    );
    (Zeroizing::new(url), typed)
}

fn totp(secret: &[u8]) -> Result<Totp, Error> {
    Builder::new()
        .with_algorithm(Algorithm::SHA1)
        .with_digits(6)
        .with_skew(SKEW)
        .with_step_duration(STEP_SECS)
        .with_secret(secret)
        .build()
        .map_err(|_| Error::BadSecret)
}

fn seconds(now: DateTime<Utc>) -> u64 {
    u64::try_from(now.timestamp()).unwrap_or(0)
}

/// RFC 4648 section 6, without padding.
fn base32(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut text = String::with_capacity(bytes.len().div_ceil(5) * 8);
    let (mut bits, mut held) = (0_u32, 0);
    for &byte in bytes {
        bits = (bits << 8) | u32::from(byte);
        held += 8;
        while held >= 5 {
            held -= 5;
            text.push(char::from(LETTERS[(bits >> held & 31) as usize]));
        }
        bits &= (1 << held) - 1;
    }
    if held > 0 {
        text.push(char::from(LETTERS[(bits << (5 - held) & 31) as usize]));
    }
    text
}

/// Percent-encodes everything but unreserved characters (RFC 3986 section 2.3).
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => escaped.push(char::from(byte)),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;

    use super::*;

    const RFC: &[u8] = b"12345678901234567890";

    fn at(seconds: i64) -> DateTime<Utc> {
        Utc.timestamp_opt(seconds, 0).single().expect("an instant")
    }

    #[test]
    fn the_vectors_of_the_rfc_hold() {
        // RFC 6238 appendix B, the last six of eight digits.
        for (seconds, code) in
            [(59, "287082"), (1_111_111_109, "081804"), (1_234_567_890, "005924"), (2_000_000_000, "279037")]
        {
            assert_eq!(check(RFC, code, at(seconds)).expect("a secret"), Some(seconds / 30), "{seconds}");
        }
    }

    #[test]
    fn a_code_is_valid_one_step_early_or_late_and_no_longer() {
        for (seconds, valid) in [(-31, false), (-30, true), (0, true), (29, true), (59, true), (60, false)] {
            let found = check(RFC, "005924", at(1_234_567_890 + seconds)).expect("a secret");
            assert_eq!(found.is_some(), valid, "{seconds}");
            assert!(found.is_none_or(|step| step == 41_152_263), "the step is the code's own, not the clock's");
        }
        for no_code in ["", "00592", "0059244", "००५९२४", " 05924", "005924\n"] {
            assert_eq!(check(RFC, no_code, at(1_234_567_890)).expect("a secret"), None, "{no_code}");
        }
        assert!(matches!(check(b"short", "005924", at(0)), Err(Error::BadSecret)));
    }

    #[test]
    fn an_app_can_read_what_is_shown() {
        assert_eq!(base32(b"foobar"), "MZXW6YTBOI");
        assert_eq!(base32(b"fooba"), "MZXW6YTB");
        let (url, typed) = enrolment(RFC, "Sharma Mobiles", "asha:1");
        assert_eq!(*typed, "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
        assert_eq!(
            *url,
            "otpauth://totp/Sharma%20Mobiles:asha%3A1?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Sharma%20Mobiles\
             &algorithm=SHA1&digits=6&period=30"
        );
    }
}
