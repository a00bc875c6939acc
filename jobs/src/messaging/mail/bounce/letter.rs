//! Letters that servers write instead of a report: qmail's, and those that quote the other server's answer.

use mail_parser::{Message, MessageParser};

use super::{
    Kind, MOST, Read, Report, envelope_tokens,
    fields::{enhanced_status, reply_code},
    once, own_tokens, returned_tokens,
};
use crate::{messaging::mail::token::MailToken, outbound::Email};

/// Begins every letter of qmail's.
const QMAIL: &str = "This is the qmail-send program at";
/// What of a letter is looked at, in bytes.
const LARGEST: usize = 32 * 1024;
/// Who writes such letters.
const DAEMONS: [&str; 3] = ["mailer-daemon", "postmaster", "microsoftexchange"];
/// What their subjects say of a mail that did not arrive, and of one that has not arrived yet.
const FAILED: [&str; 9] = [
    "undeliver",
    "failure notice",
    "delivery status notification",
    "delivery failure",
    "delivery has failed",
    "returned mail",
    "returned to sender",
    "mail delivery failed",
    "could not be delivered",
];
const DELAYED: [&str; 3] = ["delayed", "delay", "warning: message"];

/// What a mail that is no report by its parts says in words. Modest: it must come from a machine that delivers mail, and
/// say so.
pub(super) fn read(message: &Message<'_>) -> Read {
    let text: String = message.body_text(0).unwrap_or_default().chars().take(LARGEST).collect();
    if text.contains(QMAIL) {
        return qmail(message, &text);
    }
    if !is_from_a_daemon(message) {
        return if is_automatic(message) { Read::AutoReply } else { Read::NoReport };
    }
    let subject = message.subject().unwrap_or_default().to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| subject.contains(word));
    let kind = match (says(&DELAYED), says(&FAILED)) {
        (true, _) => Kind::Delayed,
        (false, true) => Kind::Failed,
        (false, false) => return Read::NoReport,
    };
    // What follows is the mail that came back, which may quote anything.
    let own = text.split("-----Original Message").next().unwrap_or_default();
    let own = own.split("Original message headers").next().unwrap_or_default();
    let status = own.split_whitespace().find_map(enhanced_status);
    let permanent = kind == Kind::Failed && is_permanent(status.as_deref(), own);
    let mut tokens = envelope_tokens(message);
    tokens.extend(returned_tokens(message));
    tokens.extend(MailToken::all_in(&text));
    Read::Reports(vec![Report { tokens: once(tokens), recipients: addresses(own), kind, status, permanent }])
}

/// A paragraph for each recipient, `<asha@example.in>:` and why; then the mail itself.
fn qmail(message: &Message<'_>, text: &str) -> Read {
    let text = text.replace("\r\n", "\n");
    let (own, returned) = text.split_once("--- Below this line is a copy of the message").unwrap_or((&text, ""));
    let mut tokens = envelope_tokens(message);
    let headers = returned.split_once('\n').map(|(_, headers)| headers.trim_start()).unwrap_or_default();
    if let Some(returned) = MessageParser::default().parse_headers(headers.as_bytes()) {
        tokens.extend(own_tokens(&returned));
    }
    let tokens = once(tokens);
    let mut reports = Vec::new();
    for paragraph in own.split("\n\n").filter(|paragraph| paragraph.trim_start().starts_with('<')).take(MOST) {
        let Some((address, why)) = paragraph.trim_start().trim_start_matches('<').split_once(">:") else { continue };
        let status = why.split_whitespace().find_map(enhanced_status);
        let permanent = is_permanent(status.as_deref(), why) || (status.is_none() && why.contains("permanent error"));
        let recipients = Email::parse(address.trim()).into_iter().collect();
        reports.push(Report { tokens: tokens.clone(), recipients, kind: Kind::Failed, status, permanent });
    }
    super::reports(reports)
}

fn is_permanent(status: Option<&str>, words: &str) -> bool {
    match status {
        Some(status) => status.starts_with('5'),
        None => reply_code(words).is_some_and(|reply| reply >= 500),
    }
}

/// Addresses in a letter, those of daemons left out.
fn addresses(text: &str) -> Vec<Email> {
    let words = text.split(|letter: char| letter.is_whitespace() || "<>()[]\"';,:".contains(letter));
    let mut found: Vec<Email> = Vec::new();
    for word in words.filter(|word| word.contains('@')).take(4 * MOST) {
        let Ok(address) = Email::parse(word.trim_end_matches('.')) else { continue };
        let exposed = address.expose().to_ascii_lowercase();
        let is_daemon = DAEMONS.iter().any(|daemon| exposed.starts_with(daemon));
        if !is_daemon && !found.contains(&address) && found.len() < MOST {
            found.push(address);
        }
    }
    found
}

fn is_from_a_daemon(message: &Message<'_>) -> bool {
    let nobody = message.header_raw("Return-Path").is_some_and(|path| path.trim() == "<>");
    let from = message.from().and_then(|from| from.first()).and_then(|from| from.address.as_deref());
    let from = from.unwrap_or_default().to_ascii_lowercase();
    // Whoever answers for a person answers to an empty return path as well (RFC 3834), but from her address.
    DAEMONS.iter().any(|daemon| from.starts_with(daemon)) || (nobody && from.is_empty())
}

/// RFC 3834, and what was there before it.
fn is_automatic(message: &Message<'_>) -> bool {
    let header = |name: &str| message.header_raw(name).map(|value| value.trim().to_ascii_lowercase());
    let submitted = header("Auto-Submitted").is_some_and(|value| !value.starts_with("no"));
    let named = ["X-Autoreply", "X-Autorespond", "X-Auto-Response-Suppress"].iter().any(|name| header(name).is_some());
    submitted || named || header("Precedence").is_some_and(|value| value == "auto_reply")
}
