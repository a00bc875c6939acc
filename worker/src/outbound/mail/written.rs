//! A mail as bytes: headers, parts and signature.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use lettre::{
    Address, Message,
    message::{
        Attachment, Body, Mailbox, MultiPart, SinglePart,
        header::{ContentTransferEncoding, ContentType, HeaderName, HeaderValue},
    },
};
use muneem_jobs::outbound::{DkimKey, Email, Mail};

/// Why a mail cannot be written, free of personal data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unwritten(pub(super) &'static str);

/// Whom mail comes from unless it says otherwise.
pub(super) struct House {
    pub(super) from: Email,
    pub(super) from_name: String,
    /// Signs what brings no key of its own.
    pub(super) dkim: Option<Arc<DkimKey>>,
}

/// An address as lettre has it.
pub(super) fn address(email: &Email) -> Result<Address, Unwritten> {
    email.expose().parse().map_err(|_| Unwritten("an address cannot be written"))
}

impl House {
    /// The bytes that go over the line.
    pub(super) fn write(&self, mail: &Mail, now: DateTime<Utc>) -> Result<Vec<u8>, Unwritten> {
        let from = mail.from().and_then(|sender| sender.address.as_ref()).unwrap_or(&self.from);
        let name = mail.from().map_or(&self.from_name, |sender| &sender.name);
        let name = Some(name.clone()).filter(|name| !name.is_empty());
        let mut builder = Message::builder()
            .from(Mailbox::new(name, address(from)?))
            .to(Mailbox::new(None, address(mail.to())?))
            .subject(mail.subject())
            .date(now.into())
            .message_id(Some(format!("<{}@{}>", mail.message_id_left(), from.domain())))
            // RFC 3834: nobody's holiday notice should answer this.
            .raw_header(header("Auto-Submitted", "auto-generated"));
        if let Some(reply_to) = mail.reply_to() {
            builder = builder.reply_to(Mailbox::new(None, address(reply_to)?));
        }
        if let Some(language) = mail.language() {
            builder = builder.raw_header(header("Content-Language", language));
        }
        if let Some(url) = mail.unsubscribe() {
            // As it stands: an encoded or folded address would be another one. It is one line of plain characters.
            let url = format!("<{url}>");
            let leave = HeaderName::new_from_ascii_str("List-Unsubscribe");
            builder = builder
                .raw_header(HeaderValue::dangerous_new_pre_encoded(leave, url.clone(), url))
                .raw_header(header("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"));
        }
        let message = match (mail.html(), mail.attachments()) {
            (None, []) => builder.singlepart(SinglePart::plain(mail.text().to_owned())),
            (Some(html), []) => builder.multipart(alternatives(mail, html)),
            (html, files) => {
                let mixed = MultiPart::mixed();
                let mut mixed = match html {
                    Some(html) => mixed.multipart(alternatives(mail, html)),
                    None => mixed.singlepart(SinglePart::plain(mail.text().to_owned())),
                };
                for file in files {
                    let kind = ContentType::parse(file.content_type()).map_err(|_| Unwritten("a file's type"))?;
                    // Whatever a file holds, on the line it is plain lines: no bare line feed, no dot of its own.
                    let body = Body::new_with_encoding(file.bytes().to_vec(), ContentTransferEncoding::Base64);
                    let body = body.map_err(|_| Unwritten("a file cannot be written"))?;
                    let part = Attachment::new(file.filename().to_owned()).body(body, kind);
                    mixed = mixed.singlepart(part);
                }
                builder.multipart(mixed)
            }
        };
        let bytes = message.map_err(|_| Unwritten("the mail cannot be written"))?.formatted();
        let own = mail.from().is_some_and(|sender| sender.address.is_some());
        // The installation's key says nothing of an address of somebody else's domain.
        let house = self.dkim.as_deref().filter(|key| !own || key.is_aligned_with(from.domain()));
        let Some(key) = mail.dkim().or(house) else { return Ok(bytes) };
        let signature = key.sign(&bytes, now).map_err(|_| Unwritten("the mail cannot be signed"))?;
        Ok([signature.as_bytes(), &bytes].concat())
    }
}

fn alternatives(mail: &Mail, html: &str) -> MultiPart {
    MultiPart::alternative_plain_html(mail.text().to_owned(), html.to_owned())
}

fn header(name: &'static str, value: &str) -> HeaderValue {
    HeaderValue::new(HeaderName::new_from_ascii_str(name), value.to_owned())
}
