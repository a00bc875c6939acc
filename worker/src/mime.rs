//! Enough of MIME to show a mail that we wrote: unfolded headers, encoded words (RFC 2047), the plain text part
//! (RFC 2045, 2046). What it does not understand it shows as it came.

use base64::{Engine, engine::general_purpose::STANDARD};

/// Parts inside parts that are followed.
const DEEPEST: u8 = 4;

/// What a reader would see.
pub(crate) struct Read {
    pub(crate) message_id: Option<String>,
    pub(crate) subject: String,
    pub(crate) text: String,
}

/// Reads a whole mail.
pub(crate) fn read(raw: &[u8]) -> Read {
    let raw = String::from_utf8_lossy(raw);
    let (headers, body) = split(&raw);
    Read {
        message_id: header(&headers, "message-id").map(str::to_owned),
        subject: decoded_words(header(&headers, "subject").unwrap_or_default()),
        text: text(&headers, body, DEEPEST).unwrap_or_default(),
    }
}

type Headers = Vec<(String, String)>;

/// Headers, unfolded, and what follows the empty line.
fn split(part: &str) -> (Headers, &str) {
    let (head, body) = part.split_once("\r\n\r\n").unwrap_or((part, ""));
    let mut headers: Headers = Vec::new();
    for line in head.split("\r\n") {
        if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = headers.last_mut() {
                value.push(' ');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    (headers, body)
}

fn header<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// The first plain text in a part.
fn text(headers: &Headers, body: &str, deeper: u8) -> Option<String> {
    let kind = header(headers, "content-type").unwrap_or("text/plain");
    let main = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if main.starts_with("multipart/") && deeper > 0 {
        let boundary = kind.split_once("boundary=")?.1.split(';').next()?.trim().trim_matches('"');
        let marker = format!("--{boundary}");
        return body.split(&marker).skip(1).find_map(|part| {
            let (headers, body) = split(part.strip_prefix("\r\n")?);
            text(&headers, body, deeper - 1)
        });
    }
    if main != "text/plain" {
        return None;
    }
    let bytes = match header(headers, "content-transfer-encoding").unwrap_or("7bit").to_ascii_lowercase().as_str() {
        "base64" => STANDARD.decode(body.split_whitespace().collect::<String>()).ok()?,
        "quoted-printable" => quoted_printable(body),
        _ => body.as_bytes().to_vec(),
    };
    Some(String::from_utf8_lossy(&bytes).replace("\r\n", "\n").trim_end().to_owned())
}

fn quoted_printable(body: &str) -> Vec<u8> {
    let bytes = body.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if byte != b'=' {
            decoded.push(byte);
            at += 1;
        } else if bytes.get(at + 1..at + 3) == Some(b"\r\n") {
            at += 3;
        } else if let Some(value) = bytes.get(at + 1..at + 3).and_then(|pair| hex::decode(pair).ok()) {
            decoded.extend(value);
            at += 3;
        } else {
            decoded.push(byte);
            at += 1;
        }
    }
    decoded
}

/// `=?utf-8?b?…?=` and `=?utf-8?q?…?=` in clear; blanks between two of them mean nothing.
fn decoded_words(text: &str) -> String {
    let mut decoded = String::new();
    let mut rest = text;
    let mut after_word = false;
    while let Some((before, tail)) = rest.split_once("=?") {
        let Some((word, after)) = encoded_word(tail) else {
            decoded.push_str(before);
            decoded.push_str("=?");
            rest = tail;
            after_word = false;
            continue;
        };
        if !(after_word && before.trim().is_empty()) {
            decoded.push_str(before);
        }
        decoded.push_str(&word);
        rest = after;
        after_word = true;
    }
    decoded + rest
}

fn encoded_word(tail: &str) -> Option<(String, &str)> {
    let (charset, tail) = tail.split_once('?')?;
    let (encoding, tail) = tail.split_once('?')?;
    let (content, after) = tail.split_once("?=")?;
    if !charset.eq_ignore_ascii_case("utf-8") {
        return None;
    }
    let bytes = match encoding {
        "b" | "B" => STANDARD.decode(content).ok()?,
        "q" | "Q" => quoted_printable(&content.replace('_', " ")),
        _ => return None,
    };
    Some((String::from_utf8_lossy(&bytes).into_owned(), after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_is_read_as_a_person_would_see_it() {
        let raw = "Message-ID: <1@example.in>\r\nSubject: =?utf-8?b?4KSG4KSq4KSV4KS+?=\r\n =?utf-8?q?_code_=E2=82=B9?= now\r\n\
                   Content-Type: multipart/alternative;\r\n boundary=\"x1\"\r\n\r\n--x1\r\nContent-Type: text/plain; \
                   charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=E2=82=B9 500=\r\n only\r\n--x1\r\n\
                   Content-Type: text/html\r\n\r\n<p>no</p>\r\n--x1--\r\n";
        let mail = read(raw.as_bytes());
        assert_eq!(mail.message_id.as_deref(), Some("<1@example.in>"));
        assert_eq!(mail.subject, "आपका code ₹ now");
        assert_eq!(mail.text, "₹ 500 only");
    }

    #[test]
    fn what_is_broken_is_shown_as_it_came() {
        assert_eq!(read(b"Subject: =?utf-8?b?***?= =?x\r\n\r\nplain").subject, "=?utf-8?b?***?= =?x");
        assert_eq!(read(b"\r\n\r\nplain").text, "plain");
        assert_eq!(read(b"Content-Type: multipart/mixed\r\n\r\nplain").text, "");
        assert_eq!(quoted_printable("a=ZZ="), b"a=ZZ=");
    }
}
