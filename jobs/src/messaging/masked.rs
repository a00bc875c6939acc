//! What a webhook's body may not keep: people write card and Aadhaar numbers into chats, and nobody may keep those
//! (`vault::screen`).

use std::borrow::Cow;

use crate::vault::screen::{self, Finding};

/// A body as it may be kept, with how much was masked in it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Masked<'a> {
    /// Byte for byte as it came, but for the numbers.
    pub(super) body: Cow<'a, [u8]>,
    /// Card numbers masked.
    pub(super) cards: usize,
    /// Aadhaar numbers masked.
    pub(super) aadhaar: usize,
}

/// Fields of the carrier's own that hold ids, people's numbers and instants: never what somebody wrote, and an id must
/// stay what it is.
const IDS: [&[u8]; 12] = [
    b"id",
    b"phone_number_id",
    b"display_phone_number",
    b"wa_id",
    b"from",
    b"to",
    b"recipient_id",
    b"timestamp",
    b"expiration_timestamp",
    b"biz_opaque_callback_data",
    b"sha256",
    b"code",
];

/// Masks card and Aadhaar numbers in every text and number of a JSON body but the carrier's own ids, all but their last
/// four digits. Reads token by token: what is no whole JSON is masked as far as it goes.
pub(super) fn mask(body: &[u8]) -> Masked<'_> {
    let mut masked = Masked { body: Cow::Borrowed(body), cards: 0, aadhaar: 0 };
    // Fewer than a dozen digits, or ways to hide them, hold none.
    let hints = body.iter().filter(|byte| byte.is_ascii_digit() || **byte == b'\\' || !byte.is_ascii()).count();
    if hints < 12 {
        return masked;
    }
    let mut kept: Vec<u8> = Vec::new();
    // Up to here the body is in `kept`, masked; it is empty until something was found.
    let mut copied = 0;
    let (mut at, mut name) = (0, &b""[..]);
    while let Some(token) = next_token(body, at) {
        at = token.end;
        let text = &body[token.start..token.end];
        let is_name = body[at..].iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b':');
        if is_name {
            name = text.strip_prefix(b"\"").and_then(|name| name.strip_suffix(b"\"")).unwrap_or(text);
        } else if IDS.contains(&name) {
            continue;
        }
        let Some((instead, found)) = masked_token(text) else { continue };
        masked.cards += found.iter().filter(|found| **found == Finding::CardNumber).count();
        masked.aadhaar += found.iter().filter(|found| **found == Finding::Aadhaar).count();
        kept.extend_from_slice(&body[copied..token.start]);
        kept.extend_from_slice(instead.as_bytes());
        copied = token.end;
    }
    if copied > 0 {
        kept.extend_from_slice(&body[copied..]);
        masked.body = Cow::Owned(kept);
    }
    masked
}

/// The next string or number at or after `from`.
fn next_token(body: &[u8], from: usize) -> Option<std::ops::Range<usize>> {
    let start = from + body.get(from..)?.iter().position(|byte| *byte == b'"' || byte.is_ascii_digit())?;
    let mut end = start + 1;
    if body[start] != b'"' {
        end += body[end..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        return Some(start..end);
    }
    while let Some(byte) = body.get(end) {
        end += 1;
        match byte {
            b'"' => return Some(start..end),
            b'\\' => end += 1,
            _ => {}
        }
    }
    Some(start..body.len())
}

/// The token as JSON without what nobody may keep; nothing where there is none of it.
fn masked_token(token: &[u8]) -> Option<(String, Vec<Finding>)> {
    // A string that does not read (half a surrogate pair) is masked as it was written.
    let text = serde_json::from_slice::<String>(token).ok();
    let written = String::from_utf8_lossy(token);
    let found = screen::findings(text.as_deref().unwrap_or(&written));
    if found.is_empty() {
        return None;
    }
    let instead = match text {
        Some(text) => serde_json::Value::from(screen::mask(&text)).to_string(),
        None if token.starts_with(b"\"") => screen::mask(&written),
        // A number with letters in it is one no more.
        None => format!("\"{}\"", screen::mask(&written)),
    };
    Some((instead, found))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn masked(body: &str) -> (String, usize, usize) {
        let masked = mask(body.as_bytes());
        (String::from_utf8(masked.body.into_owned()).expect("text"), masked.cards, masked.aadhaar)
    }

    #[test]
    fn atk_047_a_card_number_in_a_chat_is_masked_and_ids_stay() {
        let body = r#"{"entry":[{"id":"4111111111111111","changes":[{"value":{"metadata":{"phone_number_id":"4111111111111111"},
            "messages":[{"id":"wamid.4111111111111111","from":"919812345678","timestamp":"1764000000","type":"text",
            "text":{"body":"my card: 4111 1111 1111 1111, aadhaar 2341 2341 2346"}},
            {"image":{"caption":"\u0034111-1111-1111-1111"},"note":5555555555554444,"half":"\ud800 378282246310005"}]}}]}]}"#;
        let (kept, cards, aadhaar) = masked(body);
        assert_eq!((cards, aadhaar), (4, 1), "{kept}");
        assert!(kept.contains("my card: XXXX XXXX XXXX 1111, aadhaar XXXX XXXX 2346"), "{kept}");
        assert!(kept.contains(r#""caption":"XXXX-XXXX-XXXX-1111""#), "{kept}");
        assert!(kept.contains(r#""note":"XXXXXXXXXXXX4444""#), "{kept}");
        assert!(kept.contains(r#""half":"\ud800 XXXXXXXXXXX0005""#), "{kept}");
        assert!(kept.contains(r#""phone_number_id":"4111111111111111""#) && kept.contains("wamid.4111111111111111"));
        assert!(kept.contains(r#""from":"919812345678","timestamp":"1764000000""#));
    }

    #[test]
    fn what_holds_no_such_number_is_kept_byte_for_byte() {
        for body in [
            r#"{"text":{"body":"call +91 98123 45678, order 402-1234567-1234567"}, "at" : 1764000000000}"#,
            "{}",
            "",
            "\"",
            "\\",
            r#"{"a":"\"#,
            r#"{"a":"\u0906\u0936\u093e \/ 4111"}"#,
        ] {
            let masked = mask(body.as_bytes());
            assert_eq!(masked, Masked { body: Cow::Borrowed(body.as_bytes()), cards: 0, aadhaar: 0 });
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic_and_what_it_kept_holds_none(body in r#"([\[\]{},: \\u0034"]|4111|1111|card|text|ud800|आ){0,40}"#) {
            let once = mask(body.as_bytes()).body.into_owned();
            prop_assert_eq!(mask(&once), Masked { body: Cow::Borrowed(&once), cards: 0, aadhaar: 0 });
        }
    }
}
