//! One mail to one person: its parts, and what may stand in them.
//!
//! Its Message-ID is chosen before the attempt and kept with it, so that a bounce or a doubt can be matched to what was
//! sent. Nothing in a [`Mail`] can break out of its header: lines and control characters are refused when it is made.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use uuid::Uuid;

use super::{DkimKey, Email};

/// Longest subject, in characters: more is cut or hidden by most readers.
const LONGEST_SUBJECT: usize = 200;
/// Longest name beside an address, in characters.
const LONGEST_NAME: usize = 120;
/// Longest body, in bytes. What is longer is a file behind a link.
const LARGEST_BODY: usize = 256 * 1024;
/// All attachments of one mail together, in bytes: base64 makes a third more of them, and many servers stop at 10 MiB.
pub const LARGEST_ATTACHMENTS: usize = 7 * 1024 * 1024;
/// Longest name of a file, in characters.
const LONGEST_FILENAME: usize = 150;
/// Longest address of a page to leave by: its header is one line, and lines end at 998 bytes (RFC 5322 section 2.1.1).
const LONGEST_LINK: usize = 900;

/// One mail to one person. It says of itself that a machine wrote it (`Auto-Submitted: auto-generated`, RFC 3834), so
/// that no holiday notice answers it.
#[derive(Clone)]
pub struct Mail {
    id: Uuid,
    reference: Option<String>,
    to: Email,
    from: Option<MailSender>,
    reply_to: Option<Email>,
    subject: String,
    text: String,
    html: Option<String>,
    language: Option<&'static str>,
    attachments: Vec<Attachment>,
    unsubscribe: Option<String>,
    dkim: Option<Arc<DkimKey>>,
}

/// Whom a mail comes from, as its reader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailSender {
    /// The name: `Sharma Mobiles`.
    pub name: String,
    /// The address; `None`: that of the installation.
    pub address: Option<Email>,
}

/// A file that goes with a mail.
#[derive(Clone)]
pub struct Attachment {
    filename: String,
    content_type: &'static str,
    bytes: Bytes,
}

/// A mail that cannot be sent as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMail {
    /// It would end the header and begin another.
    #[error("the subject holds a line break or another control character")]
    SubjectControl,
    /// Nothing to read, or more than anybody sees.
    #[error("the subject is empty or longer than {LONGEST_SUBJECT} characters")]
    SubjectLength,
    /// Nothing to read, or more than a mail should be.
    #[error("the body is empty or larger than {LARGEST_BODY} bytes")]
    BodyLength,
    /// NUL has no place in a text.
    #[error("the body holds a NUL")]
    BodyNul,
    /// It would end the header, or is too long for one.
    #[error("the sender's name holds a control character or is longer than {LONGEST_NAME} characters")]
    SenderName,
    /// A file's name that its reader's machine could stumble over.
    #[error(
        "a file's name is empty, longer than {LONGEST_FILENAME} characters, or holds a path, a quote or a control character"
    )]
    Filename,
    /// A type that is none of ours.
    #[error(
        "a file's type is none of: application/pdf, text/csv, text/plain, application/json, application/zip, image/png"
    )]
    FileType,
    /// No server would take it.
    #[error("the files are empty or together larger than {LARGEST_ATTACHMENTS} bytes")]
    FileSize,
    /// RFC 8058 section 3 asks for HTTPS; anything else could break out of its header.
    #[error("the page to leave by is no https:// address of at most {LONGEST_LINK} plain characters")]
    Unsubscribe,
    /// It would stand in a header and in an address.
    #[error("the reference is not 16 to 64 letters and digits")]
    Reference,
}

/// Types that a file may have: what is listed here opens without running anything.
const FILE_TYPES: [&str; 7] =
    ["application/pdf", "text/csv", "text/plain", "application/json", "application/zip", "image/png", "image/jpeg"];

impl Mail {
    /// A mail in plain text. Its Message-ID is `<id@domain>`, the domain being that of the sender's address.
    ///
    /// # Errors
    /// The subject or the body cannot be sent: [`BadMail`] says why.
    pub fn new(id: Uuid, to: Email, subject: &str, text: &str) -> Result<Self, BadMail> {
        if subject.chars().any(breaks_a_header) {
            return Err(BadMail::SubjectControl);
        }
        if subject.trim().is_empty() || subject.chars().count() > LONGEST_SUBJECT {
            return Err(BadMail::SubjectLength);
        }
        checked_body(text)?;
        Ok(Self {
            id,
            reference: None,
            to,
            from: None,
            reply_to: None,
            subject: subject.to_owned(),
            text: with_plain_line_ends(text),
            html: None,
            language: None,
            attachments: Vec::new(),
            unsubscribe: None,
            dkim: None,
        })
    }

    /// The same mail with its HTML beside the plain text (multipart/alternative).
    ///
    /// # Errors
    /// The HTML is empty, too large or holds a NUL.
    pub fn with_html(mut self, html: &str) -> Result<Self, BadMail> {
        checked_body(html)?;
        self.html = Some(with_plain_line_ends(html));
        Ok(self)
    }

    /// From somebody else than the installation.
    ///
    /// # Errors
    /// [`BadMail::SenderName`]
    pub fn with_sender(mut self, sender: MailSender) -> Result<Self, BadMail> {
        if sender.name.chars().any(breaks_a_header) || sender.name.chars().count() > LONGEST_NAME {
            return Err(BadMail::SenderName);
        }
        self.from = Some(sender);
        Ok(self)
    }

    /// Where answers go.
    #[must_use]
    pub fn with_reply_to(mut self, address: Email) -> Self {
        self.reply_to = Some(address);
        self
    }

    /// What cannot be guessed, in the place of the id: it stands in the Message-ID and in the return path, and comes back
    /// with whatever is reported of this mail.
    ///
    /// # Errors
    /// [`BadMail::Reference`]
    pub fn with_reference(mut self, reference: &str) -> Result<Self, BadMail> {
        if !(16..=64).contains(&reference.len()) || !reference.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(BadMail::Reference);
        }
        self.reference = Some(reference.to_owned());
        Ok(self)
    }

    /// Its language as a BCP 47 tag (`Content-Language`, RFC 3282).
    #[must_use]
    pub fn in_language(mut self, language: &'static str) -> Self {
        self.language = Some(language);
        self
    }

    /// With a file (multipart/mixed).
    ///
    /// # Errors
    /// [`BadMail::FileSize`]: all files together are too large.
    pub fn with_attachment(mut self, attachment: Attachment) -> Result<Self, BadMail> {
        let together = self.attachments.iter().chain([&attachment]).map(|one| one.bytes.len()).sum::<usize>();
        if together > LARGEST_ATTACHMENTS {
            return Err(BadMail::FileSize);
        }
        self.attachments.push(attachment);
        Ok(self)
    }

    /// With the page by which its reader leaves with one click: a POST to it with the body
    /// `List-Unsubscribe=One-Click` must be enough (RFC 8058).
    ///
    /// # Errors
    /// [`BadMail::Unsubscribe`]
    pub fn with_unsubscribe(mut self, url: &str) -> Result<Self, BadMail> {
        let plain = url.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>,\"\\".contains(&byte));
        let host = url.strip_prefix("https://").is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'));
        if !plain || !host || url.len() > LONGEST_LINK {
            return Err(BadMail::Unsubscribe);
        }
        self.unsubscribe = Some(url.to_owned());
        Ok(self)
    }

    /// Signed with this key in the place of the installation's.
    #[must_use]
    pub fn with_dkim(mut self, key: Arc<DkimKey>) -> Self {
        self.dkim = Some(key);
        self
    }

    /// Its id.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// The left half of its Message-ID: its reference, or else its id.
    pub fn message_id_left(&self) -> String {
        self.reference.clone().unwrap_or_else(|| self.id.to_string())
    }

    /// What cannot be guessed of it, for the return path.
    pub fn reference(&self) -> Option<&str> {
        self.reference.as_deref()
    }

    /// Whom it is for.
    pub fn to(&self) -> &Email {
        &self.to
    }

    /// Whom it is from; `None`: the installation.
    pub fn from(&self) -> Option<&MailSender> {
        self.from.as_ref()
    }

    /// Where answers go, if elsewhere than to the sender.
    pub fn reply_to(&self) -> Option<&Email> {
        self.reply_to.as_ref()
    }

    /// One line.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The plain text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The HTML, if there is one.
    pub fn html(&self) -> Option<&str> {
        self.html.as_deref()
    }

    /// BCP 47.
    pub fn language(&self) -> Option<&'static str> {
        self.language
    }

    /// Its files.
    pub fn attachments(&self) -> &[Attachment] {
        &self.attachments
    }

    /// The page to leave by.
    pub fn unsubscribe(&self) -> Option<&str> {
        self.unsubscribe.as_deref()
    }

    /// What it is signed with; `None`: the installation's key, if that has one.
    pub fn dkim(&self) -> Option<&DkimKey> {
        self.dkim.as_deref()
    }
}

impl fmt::Debug for Mail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mail").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Attachment {
    /// A file under a name in any script.
    ///
    /// # Errors
    /// The name, the type or the size will not do: [`BadMail`] says which.
    pub fn new(filename: &str, content_type: &str, bytes: Bytes) -> Result<Self, BadMail> {
        let plain = |character: char| !breaks_a_header(character) && !matches!(character, '/' | '\\' | '"');
        let length = filename.chars().count();
        if filename.trim().is_empty() || filename.starts_with('.') || length > LONGEST_FILENAME {
            return Err(BadMail::Filename);
        }
        if !filename.chars().all(plain) {
            return Err(BadMail::Filename);
        }
        let content_type = FILE_TYPES.into_iter().find(|known| *known == content_type).ok_or(BadMail::FileType)?;
        if bytes.is_empty() || bytes.len() > LARGEST_ATTACHMENTS {
            return Err(BadMail::FileSize);
        }
        Ok(Self { filename: filename.to_owned(), content_type, bytes })
    }

    /// As its reader saves it.
    pub fn filename(&self) -> &str {
        &self.filename
    }

    /// `application/pdf`
    pub fn content_type(&self) -> &'static str {
        self.content_type
    }

    /// The file itself.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachment").field("size_bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}

/// Ends a line, or turns the direction of writing so that a name or a subject reads as another one.
pub(crate) fn breaks_a_header(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A lone CR or LF on the line ends a line for one server and not for the next, which is how a second mail is hidden in
/// a first. Here every end is LF, and becomes CRLF where the mail is written.
fn with_plain_line_ends(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n")
}

fn checked_body(text: &str) -> Result<(), BadMail> {
    if text.trim().is_empty() || text.len() > LARGEST_BODY {
        return Err(BadMail::BodyLength);
    }
    if text.contains('\0') { Err(BadMail::BodyNul) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asha() -> Email {
        Email::parse("asha@example.in").expect("an address")
    }

    fn mail() -> Mail {
        Mail::new(Uuid::nil(), asha(), "Hi", "words").expect("a mail")
    }

    #[test]
    fn atk_032_a_subject_cannot_begin_another_header() {
        let with =
            |subject: &str| Mail::new(Uuid::nil(), asha(), subject, "words").map(|mail| mail.subject().to_owned());
        assert_eq!(with("आपका कोड").as_deref(), Ok("आपका कोड"));
        for injected in
            ["Hi\r\nBcc: everybody@example.in", "Hi\nX: y", "Hi\rX", "Hi\0", "Hi\u{85}X", "Hi\u{2028}X", "Hi\u{202e}X"]
        {
            assert_eq!(with(injected), Err(BadMail::SubjectControl), "{injected:?}");
        }
        assert_eq!(with(" "), Err(BadMail::SubjectLength));
        assert_eq!(with(&"a".repeat(201)), Err(BadMail::SubjectLength));
    }

    #[test]
    fn a_body_is_there_and_not_endless() {
        let with = |text: &str| Mail::new(Uuid::nil(), asha(), "Hi", text).err();
        assert_eq!(with("two\nlines"), None);
        assert_eq!(with(" \n"), Some(BadMail::BodyLength));
        assert_eq!(with(&"a".repeat(LARGEST_BODY + 1)), Some(BadMail::BodyLength));
        assert_eq!(with("a\0b"), Some(BadMail::BodyNul));
        let smuggled = Mail::new(Uuid::nil(), asha(), "Hi", "a\r.\rMAIL FROM:<x>\r\nb").expect("a mail");
        assert_eq!(smuggled.text(), "a\n.\nMAIL FROM:<x>\nb");
    }

    #[test]
    fn atk_032_no_part_of_a_header_can_end_it() {
        let sender = |name: &str| mail().with_sender(MailSender { name: name.to_owned(), address: None }).err();
        assert_eq!(sender("शर्मा \"Mobiles\" <till@x.in>"), None, "it is quoted or encoded where it is written");
        assert_eq!(sender("Sharma\r\nBcc: b@example.in"), Some(BadMail::SenderName));
        assert_eq!(sender(&"a".repeat(121)), Some(BadMail::SenderName));
        for bad in [
            "http://shop.example.in/leave",
            "https:///leave",
            "https://",
            "mailto:leave@example.in",
            "https://shop.example.in/a b",
            "https://shop.example.in/>\r\nBcc:",
            "https://shop.example.in/>,<mailto:x@y.in",
            "https://दुकान.भारत/",
        ] {
            assert_eq!(mail().with_unsubscribe(bad).err(), Some(BadMail::Unsubscribe), "{bad:?}");
        }
        assert!(mail().with_unsubscribe("https://shop.example.in/r/u?x=1&y=2").is_ok());
        for bad in ["", "short", "has-a-dash-in-the-middle", &"a".repeat(65)] {
            assert_eq!(mail().with_reference(bad).err(), Some(BadMail::Reference), "{bad}");
        }
    }

    #[test]
    fn a_file_has_a_harmless_name_a_known_type_and_a_size() {
        let file = |name: &str, kind: &str, size: usize| Attachment::new(name, kind, vec![7; size].into()).err();
        assert_eq!(file("बिल INV-1042.pdf", "application/pdf", 9), None);
        for bad in ["", " ", ".profile", "a/b.pdf", "a\\b.pdf", "a\"b.pdf", "a\r\nX: y.pdf", "cod\u{202e}fdp.exe"] {
            assert_eq!(file(bad, "application/pdf", 9), Some(BadMail::Filename), "{bad:?}");
        }
        assert_eq!(file("a.exe", "application/x-msdownload", 9), Some(BadMail::FileType));
        assert_eq!(file("a.pdf", "application/pdf\r\nX: y", 9), Some(BadMail::FileType));
        assert_eq!(file("a.pdf", "application/pdf", 0), Some(BadMail::FileSize));
        let half = Attachment::new("a.pdf", "application/pdf", vec![7; LARGEST_ATTACHMENTS / 2 + 1].into());
        let half = half.expect("half");
        let one = mail().with_attachment(half.clone()).expect("one fits");
        assert_eq!(one.with_attachment(half).err(), Some(BadMail::FileSize));
    }

    #[test]
    fn a_mail_shows_only_its_id() {
        let mail = Mail::new(Uuid::nil(), asha(), "Your code 123456", "123456").expect("a mail");
        assert_eq!(format!("{mail:?}"), "Mail { id: 00000000-0000-0000-0000-000000000000, .. }");
    }
}
