//! Reads what comes back: reports of delivery (RFC 3464, RFC 6533), complaints (RFC 5965), and the letters that some
//! servers write instead. No I/O, no belief: who may be believed is decided by the token that a report brings.
//!
//! Anybody may send anything to the address where reports come back. A report is at most what it says; it is looked at
//! no further than [`LARGEST`] bytes, and what cannot be read is no report.

mod fields;
mod letter;
#[cfg(test)]
mod tests;

use mail_parser::{Message, MessageParser, MessagePart, MimeHeaders, PartType};

use super::token::MailToken;
use crate::outbound::{Email, mailer::Fault};

use fields::{Fields, enhanced_status, reply_code};

/// So much of a mail is looked at. What a server says comes first; behind it, it may return all that it was given.
pub const LARGEST: usize = 256 * 1024;
/// Recipients or tokens of one report that are looked at; ours have one.
const MOST: usize = 16;

/// What one mail that came back turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// Reports, one for each recipient that they name.
    Reports(Vec<Report>),
    /// A machine answered for a person: a holiday notice, a receipt of reading. Nothing became of the mail.
    AutoReply,
    /// Something else: a person's answer, advertising.
    NoReport,
    /// Not even a mail.
    Unreadable,
}

/// What somebody says became of a mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Which mail it may be about; the surest first.
    pub tokens: Vec<MailToken>,
    /// Whom it names as the recipient, in each form.
    pub recipients: Vec<Email>,
    /// What it says.
    pub kind: Kind,
    /// Enhanced status code (RFC 3463): `5.1.1`.
    pub status: Option<String>,
    /// Whether it says that the same mail will never arrive.
    pub permanent: bool,
}

impl Report {
    /// Whose fault it is, by its status.
    pub fn fault(&self) -> Fault {
        self.status.as_deref().map_or(Fault::Other, Fault::of_status)
    }
}

/// What a report says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Kind {
    /// It did not arrive, and nobody tries any more.
    Failed,
    /// It has not arrived yet; somebody still tries.
    Delayed,
    /// It lies in her mailbox.
    Delivered,
    /// It went on to a server that reports nothing, or to a list.
    Relayed,
    /// She said that she does not want it, or calls it spam.
    Complaint,
}

impl Kind {
    /// As it stands in rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Delayed => "delayed",
            Self::Delivered => "delivered",
            Self::Relayed => "relayed",
            Self::Complaint => "complaint",
        }
    }
}

/// Reads one mail that came back.
pub fn read(raw: &[u8]) -> Read {
    let raw = &raw[..raw.len().min(LARGEST)];
    // A mail that the parser trips over would be brought again and again, and each time end whoever reads the mailbox.
    std::panic::catch_unwind(|| understood(raw)).unwrap_or(Read::Unreadable)
}

fn understood(raw: &[u8]) -> Read {
    let Some(message) = MessageParser::default().parse(raw) else { return Read::Unreadable };
    if message.headers().is_empty() {
        return Read::Unreadable;
    }
    if let Some(status) = part_of(&message, &["delivery-status", "global-delivery-status"]) {
        return reports(delivery_status(&message, &Fields::blocks(status.contents())));
    }
    if let Some(feedback) = part_of(&message, &["feedback-report"]) {
        let fields = Fields::blocks(feedback.contents()).into_iter().next().unwrap_or_default();
        return match complaint(&message, &fields) {
            Some(report) => Read::Reports(vec![report]),
            None => Read::NoReport,
        };
    }
    if part_of(&message, &["disposition-notification"]).is_some() {
        return Read::AutoReply;
    }
    letter::read(&message)
}

/// A status code, if this is one alone.
pub(super) fn status_of(text: &str) -> Option<String> {
    enhanced_status(text.trim())
}

fn reports(reports: Vec<Report>) -> Read {
    if reports.is_empty() { Read::NoReport } else { Read::Reports(reports) }
}

/// The first part `message/<one of these>`.
fn part_of<'a, 'x>(message: &'a Message<'x>, subtypes: &[&str]) -> Option<&'a MessagePart<'x>> {
    message.parts.iter().find(|part| {
        part.content_type().is_some_and(|kind| {
            let subtype = kind.subtype().unwrap_or_default();
            kind.ctype().eq_ignore_ascii_case("message") && subtypes.iter().any(|one| subtype.eq_ignore_ascii_case(one))
        })
    })
}

/// RFC 3464: a block about the mail, then one for each recipient.
fn delivery_status(message: &Message<'_>, blocks: &[Fields]) -> Vec<Report> {
    let mut tokens = Vec::new();
    if let Some(about) = blocks.first().and_then(|block| block.get("original-envelope-id")) {
        tokens.extend(MailToken::all_in(about));
    }
    tokens.extend(returned_tokens(message));
    tokens.extend(envelope_tokens(message));
    let tokens = once(tokens);
    let about_recipients = blocks.iter().filter(|block| block.get("action").is_some()).take(MOST);
    about_recipients.filter_map(|block| of_recipient(block, &tokens)).collect()
}

fn of_recipient(block: &Fields, tokens: &[MailToken]) -> Option<Report> {
    let said = block.get("status").and_then(enhanced_status);
    let diagnostic = block.get("diagnostic-code");
    // `5.0.0` says nothing; what the other server answered often does.
    let vague = said.as_deref().is_none_or(|status| status.ends_with(".0.0"));
    let closer = diagnostic.filter(|_| vague).and_then(|text| text.split([' ', ';']).find_map(enhanced_status));
    let agrees =
        |closer: &String| said.as_ref().is_none_or(|said| said.as_bytes().first() == closer.as_bytes().first());
    let status = closer.filter(agrees).or(said);
    let permanent_status = match (&status, diagnostic.and_then(reply_code)) {
        (Some(status), _) => status.starts_with('5'),
        (None, reply) => reply.is_some_and(|reply| (500..600).contains(&reply)),
    };
    let kind = match block.get("action")?.trim().to_ascii_lowercase().as_str() {
        "failed" => Kind::Failed,
        "delayed" => Kind::Delayed,
        "delivered" => Kind::Delivered,
        "relayed" | "expanded" => Kind::Relayed,
        _ => return None,
    };
    let named = ["original-recipient", "final-recipient"].into_iter().filter_map(|name| block.get(name));
    let recipients = named.flat_map(recipient).collect();
    Some(Report {
        tokens: tokens.to_vec(),
        recipients,
        kind,
        status,
        permanent: kind == Kind::Failed && permanent_status,
    })
}

/// `rfc822; asha@example.in`, also as xtext (RFC 3461 section 4).
fn recipient(field: &str) -> Vec<Email> {
    let address = field.split_once(';').map_or(field, |(_, address)| address);
    let address = address.trim().trim_start_matches('<').trim_end_matches('>');
    let decoded = address.replace("+2B", "+").replace("+2b", "+").replace("+3D", "=").replace("+3d", "=");
    let mut found: Vec<Email> = [address, &decoded].into_iter().filter_map(|one| Email::parse(one).ok()).collect();
    found.dedup();
    found
}

/// RFC 5965 section 3.
fn complaint(message: &Message<'_>, fields: &Fields) -> Option<Report> {
    let kind = fields.get("feedback-type")?.trim().to_ascii_lowercase();
    // The last two praise a mail or speak of its signature.
    if matches!(kind.as_str(), "not-spam" | "auth-failure" | "dmarc") {
        return None;
    }
    let named = ["original-envelope-id", "original-mail-from"].into_iter().filter_map(|name| fields.get(name));
    let mut tokens: Vec<MailToken> = named.flat_map(MailToken::all_in).collect();
    tokens.extend(returned_tokens(message));
    tokens.extend(envelope_tokens(message));
    let recipients = fields.all("original-rcpt-to").flat_map(recipient).take(MOST).collect();
    Some(Report { tokens: once(tokens), recipients, kind: Kind::Complaint, status: None, permanent: false })
}

/// What the returned mail, or its headers alone, say of themselves.
fn returned_tokens(message: &Message<'_>) -> Vec<MailToken> {
    let mut tokens = Vec::new();
    for part in message.parts.iter().take(64) {
        if let PartType::Message(returned) = &part.body {
            tokens.extend(own_tokens(returned));
            continue;
        }
        let headers_alone = part.content_type().is_some_and(|kind| {
            matches!(kind.subtype(), Some(subtype) if subtype.eq_ignore_ascii_case("rfc822-headers")
                || subtype.eq_ignore_ascii_case("global-headers") || subtype.eq_ignore_ascii_case("rfc822"))
        });
        if headers_alone && let Some(returned) = MessageParser::default().parse_headers(part.contents()) {
            tokens.extend(own_tokens(&returned));
        }
    }
    tokens
}

fn own_tokens(returned: &Message<'_>) -> Vec<MailToken> {
    ["Message-ID", "Return-Path"]
        .into_iter()
        .filter_map(|name| returned.header_raw(name))
        .flat_map(MailToken::all_in)
        .collect()
}

/// The address that the report itself came to.
fn envelope_tokens(message: &Message<'_>) -> Vec<MailToken> {
    let names = ["Delivered-To", "X-Original-To", "Envelope-To", "X-Envelope-To", "To"];
    names.into_iter().filter_map(|name| message.header_raw(name)).flat_map(MailToken::all_in).collect()
}

fn once(tokens: Vec<MailToken>) -> Vec<MailToken> {
    let mut once: Vec<MailToken> = Vec::new();
    for token in tokens {
        if !once.contains(&token) && once.len() < MOST {
            once.push(token);
        }
    }
    once
}
