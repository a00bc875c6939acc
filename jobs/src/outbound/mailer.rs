//! Mail, one message to one person at a time.
//!
//! A Message-ID is chosen before the attempt and kept with it, so that a bounce or a doubt can be matched to what was
//! sent. Nothing in a [`Mail`] can break out of its header: lines and control characters are refused when it is made.

use std::fmt;

use async_trait::async_trait;
use uuid::Uuid;

/// Longest subject, in characters: more is cut or hidden by most readers.
const LONGEST_SUBJECT: usize = 200;
/// Longest body, in bytes. What is longer is a file behind a link.
const LARGEST_BODY: usize = 256 * 1024;

/// Sends mail.
#[async_trait]
pub trait Mailer: Send + Sync + 'static {
    /// Hands one mail to the mail server. Whoever calls it has recorded the attempt before.
    async fn send(&self, mail: &Mail) -> MailOutcome;

    /// Whether there is a mail server at all; without one no mail is planned.
    fn is_configured(&self) -> bool {
        true
    }
}

/// What came of handing one mail over (RFC 5321 section 4.2.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MailOutcome {
    /// The server took it and answers for it from here. It may still come back as a bounce.
    Accepted,
    /// The server said no for good (5yz): the same mail will not be taken later.
    Refused(MailFailure),
    /// The server certainly has not taken it: it was not reached, or said no for now (4yz), or to us rather than to
    /// this mail. It may be sent again.
    NotSent(MailFailure),
    /// The whole mail was under way when the line went dead: it may have been taken. Sending again may repeat it.
    Unknown(MailFailure),
}

/// Why a mail was not taken, free of personal data: servers quote addresses, so their words are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailFailure {
    /// Where in the conversation, and what: `RCPT refused`, `no connection`.
    pub what: &'static str,
    /// The reply code, such as 550.
    pub reply: Option<u16>,
    /// The enhanced status code (RFC 3463), such as `5.1.1`.
    pub status: Option<String>,
}

impl MailFailure {
    /// A failure without a reply.
    pub fn new(what: &'static str) -> Self {
        Self { what, reply: None, status: None }
    }
}

impl fmt::Display for MailFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)?;
        if let Some(reply) = self.reply {
            write!(f, " ({reply}")?;
            if let Some(status) = &self.status {
                write!(f, " {status}")?;
            }
            f.write_str(")")?;
        }
        Ok(())
    }
}

/// One mail to one person.
#[derive(Clone)]
pub struct Mail {
    id: Uuid,
    to: Email,
    subject: String,
    text: String,
    html: Option<String>,
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
}

impl Mail {
    /// A mail in plain text. Its Message-ID is `<id@domain>`, the domain being that of the sender's address.
    ///
    /// # Errors
    /// The subject or the body cannot be sent: [`BadMail`] says why.
    pub fn new(id: Uuid, to: Email, subject: &str, text: &str) -> Result<Self, BadMail> {
        if subject.chars().any(|character| character.is_control() || matches!(character, '\u{2028}' | '\u{2029}')) {
            return Err(BadMail::SubjectControl);
        }
        if subject.trim().is_empty() || subject.chars().count() > LONGEST_SUBJECT {
            return Err(BadMail::SubjectLength);
        }
        checked_body(text)?;
        Ok(Self { id, to, subject: subject.to_owned(), text: text.to_owned(), html: None })
    }

    /// The same mail with its HTML beside the plain text.
    ///
    /// # Errors
    /// The HTML is empty, too large or holds a NUL.
    pub fn with_html(mut self, html: &str) -> Result<Self, BadMail> {
        checked_body(html)?;
        self.html = Some(html.to_owned());
        Ok(self)
    }

    /// The left half of its Message-ID.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Whom it is for.
    pub fn to(&self) -> &Email {
        &self.to
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
}

impl fmt::Debug for Mail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mail").field("id", &self.id).finish_non_exhaustive()
    }
}

fn checked_body(text: &str) -> Result<(), BadMail> {
    if text.trim().is_empty() || text.len() > LARGEST_BODY {
        return Err(BadMail::BodyLength);
    }
    if text.contains('\0') { Err(BadMail::BodyNul) } else { Ok(()) }
}

/// An e-mail address, personal data: it shows itself to nobody but the mail server.
///
/// Taken are dot-atoms of ASCII before the `@` (RFC 5321 section 4.1.2) and host names with a dot after it; quoted
/// local parts, comments and address literals are not, since no person writes them and much else stumbles over them.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Email {
    local: String,
    domain: String,
}

/// Not an e-mail address as people have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no e-mail address: write it like asha@example.in")]
pub struct NotAnEmail;

impl Email {
    /// Reads an address. The domain becomes lower case; the part before the `@` stays as it is, since it is the
    /// receiving server's business.
    ///
    /// # Errors
    /// [`NotAnEmail`]
    pub fn parse(text: &str) -> Result<Self, NotAnEmail> {
        let (local, domain) = text.split_once('@').ok_or(NotAnEmail)?;
        let domain = domain.to_ascii_lowercase();
        let atoms = local.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(is_atom));
        let labels = domain.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        });
        // A top-level domain of digits would be an IPv4 address.
        let top = domain.rsplit('.').next().is_some_and(|top| top.bytes().any(|byte| byte.is_ascii_alphabetic()));
        if local.len() <= 64 && domain.len() <= 189 && domain.contains('.') && atoms && labels && top {
            Ok(Self { local: local.to_owned(), domain })
        } else {
            Err(NotAnEmail)
        }
    }

    /// The address, for the mail server and the vault.
    pub fn expose(&self) -> String {
        format!("{}@{}", self.local, self.domain)
    }

    /// What stands behind the `@`, in lower case.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Enough for its owner to recognise it, too little for anybody else: `a…@example.in`.
    pub fn hint(&self) -> String {
        format!("{}…@{}", self.local.chars().next().unwrap_or('…'), self.domain)
    }
}

impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Email(…)")
    }
}

/// `atext` of RFC 5322 section 3.2.3.
fn is_atom(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte)
}

/// Takes every mail and keeps it.
#[cfg(test)]
#[derive(Default)]
pub(crate) struct KeptMail(std::sync::Mutex<Vec<Mail>>);

#[cfg(test)]
impl KeptMail {
    /// What was handed over so far.
    pub(crate) fn kept(&self) -> Vec<Mail> {
        self.0.lock().expect("not poisoned").clone()
    }
}

#[cfg(test)]
#[async_trait]
impl Mailer for KeptMail {
    async fn send(&self, mail: &Mail) -> MailOutcome {
        self.0.lock().expect("not poisoned").push(mail.clone());
        MailOutcome::Accepted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asha() -> Email {
        Email::parse("asha.verma+till@Example.IN").expect("an address")
    }

    #[test]
    fn addresses_are_read_as_people_write_them_and_shown_to_nobody() {
        assert_eq!(asha().expose(), "asha.verma+till@example.in");
        assert_eq!(asha().hint(), "a…@example.in");
        assert_eq!(format!("{:?}", asha()), "Email(…)");
        let long = format!("{}@example.in", "a".repeat(65));
        for bad in [
            "",
            "asha",
            "@example.in",
            "asha@",
            "asha@example",
            "asha@@example.in",
            "a sha@example.in",
            "asha@exam_ple.in",
            "asha@-example.in",
            ".asha@example.in",
            "asha..v@example.in",
            "asha@10.0.0.1",
            "asha@[10.0.0.1]",
            "\"asha\"@example.in",
            "asha@example.in\r\nBcc: b@example.in",
            "asha@example.in,b@c.in",
            "<asha@example.in>",
            "आशा@example.in",
            "asha@example..in",
            &long,
        ] {
            assert_eq!(Email::parse(bad), Err(NotAnEmail), "{bad}");
        }
    }

    #[test]
    fn a_subject_cannot_begin_another_header() {
        let with =
            |subject: &str| Mail::new(Uuid::nil(), asha(), subject, "words").map(|mail| mail.subject().to_owned());
        assert_eq!(with("आपका कोड").as_deref(), Ok("आपका कोड"));
        for injected in ["Hi\r\nBcc: everybody@example.in", "Hi\nX: y", "Hi\rX", "Hi\0", "Hi\u{85}X", "Hi\u{2028}X"] {
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
    }

    #[test]
    fn a_failure_reads_like_one_and_a_mail_shows_only_its_id() {
        let failure = MailFailure { what: "RCPT refused", reply: Some(550), status: Some("5.1.1".to_owned()) };
        assert_eq!(failure.to_string(), "RCPT refused (550 5.1.1)");
        assert_eq!(MailFailure::new("no connection").to_string(), "no connection");
        let mail = Mail::new(Uuid::nil(), asha(), "Your code 123456", "123456").expect("a mail");
        assert_eq!(format!("{mail:?}"), "Mail { id: 00000000-0000-0000-0000-000000000000, .. }");
    }
}
