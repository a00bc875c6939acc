//! Mail over SMTP (RFC 5321), submitted to the mail server that the operator named.
//!
//! The conversation is led step by step, because the step at which it breaks decides what may be said of the mail:
//! before its last line is under way nobody can have taken it, afterwards only an answer tells. One conversation carries
//! one mail to one recipient at a time; its line is kept for the next.

mod line;
mod written;

use std::{error::Error as _, sync::Arc, time::Duration};

use async_trait::async_trait;
use lettre::{
    Address,
    transport::smtp::{
        commands::{Data, Mail as MailFrom, Rcpt},
        extension::{Extension, MailBodyParameter, MailParameter},
    },
};
use muneem_jobs::outbound::{Clock, DkimKey, Email, Mail, MailOutcome, Mailer, NotAnEmail, mailer::MailFailure};
use secrecy::SecretString;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use line::{Line, Lines, soon};
use written::{House, Unwritten, address};

/// How the line to the mail server is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tls {
    /// From the first byte (RFC 8314), usually port 465.
    Implicit,
    /// After STARTTLS (RFC 3207), usually port 587. A server that does not offer it is not spoken to.
    Starttls,
    /// Not at all: for a server on loopback alone.
    None,
}

/// Where what cannot be delivered comes back: an address, with `{token}` where each mail has its own
/// (`bounces+{token}@example.in`), so that a report says which mail it is about even if it returns nothing of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReturnPath(String);

/// Stands in [`ReturnPath`] where each mail has its own letters.
const TOKEN: &str = "{token}";

impl ReturnPath {
    /// Reads it.
    ///
    /// # Errors
    /// What comes out is no address.
    pub fn parse(text: &str) -> Result<Self, NotAnEmail> {
        let path = Self(text.trim().to_owned());
        // As long as any reference is.
        if path.0.matches(TOKEN).count() > 1 {
            return Err(NotAnEmail);
        }
        path.of(Some("abcdefghijklmnopqrstuvwxyz")).map(|_| path)
    }

    /// That of one mail; `None` as reference where it has none.
    fn of(&self, reference: Option<&str>) -> Result<Email, NotAnEmail> {
        Email::parse(&match reference {
            Some(reference) => self.0.replace(TOKEN, reference),
            None => self.0.replace(&format!("+{TOKEN}"), "").replace(TOKEN, "none"),
        })
    }
}

/// How to reach the mail server.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its name, which its certificate must hold.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the line is protected.
    pub tls: Tls,
    /// Certificates, as PEM, that vouch for the server in the place of this machine's own.
    pub tls_roots: Option<Vec<u8>>,
    /// Whom to sign in as, if at all.
    pub user: Option<String>,
    /// The password that goes with it.
    pub password: Option<SecretString>,
    /// The sender's address.
    pub from: Email,
    /// The name beside it.
    pub from_name: String,
    /// Where reports come back; `None`: to the sender's address.
    pub return_path: Option<ReturnPath>,
    /// Signs what brings no key of its own.
    pub dkim: Option<Arc<DkimKey>>,
    /// Most lines at once.
    pub connections: usize,
    /// Longest wait for the answer to one command.
    pub command_timeout: Duration,
    /// Longest a whole conversation may take.
    pub timeout: Duration,
}

impl Settings {
    /// With STARTTLS and all else as it is where nothing is configured.
    pub fn to(host: &str, from: Email) -> Self {
        Self {
            host: host.to_owned(),
            port: 587,
            tls: Tls::Starttls,
            tls_roots: None,
            user: None,
            password: None,
            from,
            from_name: "muneem".to_owned(),
            return_path: None,
            dkim: None,
            connections: 4,
            command_timeout: Duration::from_secs(15),
            timeout: Duration::from_secs(60),
        }
    }
}

/// Settings that no mail can be sent with.
#[derive(Debug, thiserror::Error)]
#[error("`messaging.mail` cannot be used: {0}")]
pub struct BadSettings(String);

/// The mail server, reached by SMTP.
pub struct Smtp {
    settings: Settings,
    house: House,
    lines: Lines,
    clock: Arc<dyn Clock>,
}

/// The envelope of one mail (RFC 5321 section 2.3.1), and whether it needs 8BITMIME.
struct Envelope {
    from: Address,
    to: Address,
    eight_bit: bool,
}

/// Why a line is of no use for this mail.
enum Stuck {
    /// The server said so, or the line went dead.
    Outcome(MailOutcome),
    /// A kept line was dead before anything was said: a new one may do.
    Stale,
}

impl Smtp {
    /// Prepares; nothing is connected yet.
    ///
    /// # Errors
    /// The host, the sender, the certificates or the signing key cannot be used.
    pub fn new(settings: Settings, clock: Arc<dyn Clock>) -> Result<Self, BadSettings> {
        if settings.from_name.chars().any(char::is_control) {
            return Err(BadSettings("`from_name` holds a control character".to_owned()));
        }
        address(&settings.from).map_err(|Unwritten(what)| BadSettings(format!("`from`: {what}")))?;
        if let Some(key) = &settings.dkim
            && !key.is_aligned_with(settings.from.domain())
        {
            return Err(BadSettings("`dkim_domain` must be the domain of `from`, or lie above it".to_owned()));
        }
        let house =
            House { from: settings.from.clone(), from_name: settings.from_name.clone(), dkim: settings.dkim.clone() };
        Ok(Self { house, lines: Lines::new(&settings)?, settings, clock })
    }

    fn envelope(&self, mail: &Mail, eight_bit: bool) -> Result<Envelope, Unwritten> {
        let path = match &self.settings.return_path {
            Some(path) => path.of(mail.reference()).map_err(|_| Unwritten("the return path is no address"))?,
            None => self.settings.from.clone(),
        };
        Ok(Envelope { from: address(&path)?, to: address(mail.to())?, eight_bit })
    }

    /// Everything up to the server's "go on" after DATA: whatever breaks here, it has not taken the mail.
    async fn hand_in(&self, line: &mut Line, envelope: &Envelope, deadline: Instant) -> Result<(), Stuck> {
        let stuck = |what| Stuck::Outcome(MailOutcome::NotSent(MailFailure::new(what)));
        let mut body = Vec::new();
        if envelope.eight_bit {
            if !line.smtp.server_info().supports_feature(Extension::EightBitMime) {
                return Err(stuck("the server takes ASCII only"));
            }
            body.push(MailParameter::Body(MailBodyParameter::EightBitMime));
        }
        let from = MailFrom::new(Some(envelope.from.clone()), body);
        match timeout_at(soon(deadline, &self.settings), line.smtp.command(from)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) if line.is_reused() && !error.is_permanent() => return Err(Stuck::Stale),
            Ok(Err(error)) => return Err(Stuck::Outcome(said_no("MAIL refused", &error))),
            Err(_) if line.is_reused() => return Err(Stuck::Stale),
            Err(_) => return Err(stuck("time-out after MAIL")),
        }
        let rcpt = Rcpt::new(envelope.to.clone(), Vec::new());
        match timeout_at(soon(deadline, &self.settings), line.smtp.command(rcpt)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(Stuck::Outcome(said_no("RCPT refused", &error))),
            Err(_) => return Err(stuck("time-out after RCPT")),
        }
        match timeout_at(soon(deadline, &self.settings), line.smtp.command(Data)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(Stuck::Outcome(said_no("DATA refused", &error))),
            Err(_) => Err(stuck("time-out after DATA")),
        }
    }

    /// A line on which the server waits for the mail itself.
    async fn ready(&self, envelope: &Envelope, deadline: Instant) -> Result<Line, MailOutcome> {
        let mut kept = self.lines.kept();
        loop {
            let mut line = match kept.take() {
                Some(line) => line,
                None => self.lines.open(&self.settings, deadline).await.map_err(MailOutcome::NotSent)?,
            };
            match self.hand_in(&mut line, envelope, deadline).await {
                Ok(()) => return Ok(line),
                Err(Stuck::Stale) => {}
                Err(Stuck::Outcome(outcome)) => {
                    if heard(&outcome) {
                        self.lines.keep(line, soon(deadline, &self.settings), true).await;
                    }
                    return Err(outcome);
                }
            }
        }
    }
}

#[async_trait]
impl Mailer for Smtp {
    async fn send(&self, mail: &Mail) -> MailOutcome {
        let refused = |Unwritten(what)| MailOutcome::Refused(MailFailure::new(what));
        let bytes = match self.house.write(mail, self.clock.now()) {
            Ok(bytes) => bytes,
            Err(unwritten) => return refused(unwritten),
        };
        let envelope = match self.envelope(mail, !bytes.is_ascii()) {
            Ok(envelope) => envelope,
            Err(unwritten) => return refused(unwritten),
        };
        let deadline = Instant::now() + self.settings.timeout;
        let _place = match self.lines.place(deadline).await {
            Ok(place) => place,
            Err(failure) => return MailOutcome::NotSent(failure),
        };
        let mut line = match self.ready(&envelope, deadline).await {
            Ok(line) => line,
            Err(outcome) => return outcome,
        };
        // The answer to the last line may take long (RFC 5321 section 4.5.3.2.6): the whole of the time that is left.
        let outcome = match timeout_at(deadline, line.smtp.message(&bytes)).await {
            Ok(Ok(_)) => MailOutcome::Accepted,
            Ok(Err(error)) if error.is_permanent() || error.is_transient() => said_no("mail refused", &error),
            Ok(Err(error)) => MailOutcome::Unknown(failure("the line went dead after the mail", &error)),
            Err(_) => MailOutcome::Unknown(MailFailure::new("time-out after the mail")),
        };
        if outcome == MailOutcome::Accepted || heard(&outcome) {
            self.lines.keep(line, soon(deadline, &self.settings), false).await;
        }
        outcome
    }
}

/// Whether the server answered, and stays on the line.
fn heard(outcome: &MailOutcome) -> bool {
    match outcome {
        MailOutcome::Refused(failure) | MailOutcome::NotSent(failure) => {
            failure.reply.is_some_and(|reply| reply != 421)
        }
        MailOutcome::Accepted | MailOutcome::Unknown(_) => false,
    }
}

/// 5yz is a no for good, unless it is said to us rather than to this mail (530, 535: sign in first; RFC 4954 section 6);
/// anything else at this step is a no for now.
fn said_no(what: &'static str, error: &lettre::transport::smtp::Error) -> MailOutcome {
    let failure = failure(what, error);
    if error.is_permanent() && !matches!(failure.reply, Some(530 | 535)) {
        MailOutcome::Refused(failure)
    } else {
        MailOutcome::NotSent(failure)
    }
}
fn failure(what: &'static str, error: &lettre::transport::smtp::Error) -> MailFailure {
    let words = error.source().map(ToString::to_string).unwrap_or_default();
    MailFailure { what, reply: error.status().map(u16::from), status: enhanced_status(&words) }
}

/// `5.1.1` at the head of a reply's words (RFC 2034); the words themselves may name a person and stay behind.
fn enhanced_status(words: &str) -> Option<String> {
    let first = words.split_whitespace().next()?;
    let mut parts = first.split('.');
    let numbers = parts.by_ref().take(3).filter(|part| part.len() <= 3 && part.parse::<u16>().is_ok()).count();
    (numbers == 3 && parts.next().is_none()).then(|| first.to_owned())
}

/// Stands where no mail server is configured: mail waits, and says why.
pub struct NotConfigured;

#[async_trait]
impl Mailer for NotConfigured {
    async fn send(&self, _: &Mail) -> MailOutcome {
        MailOutcome::NotSent(MailFailure::new("no mail server is configured: set `messaging.mail.host`"))
    }

    fn is_configured(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_status_of_a_reply_is_kept() {
        assert_eq!(enhanced_status("5.1.1 <asha@example.in> unknown"), Some("5.1.1".to_owned()));
        assert_eq!(enhanced_status("4.7.1"), Some("4.7.1".to_owned()));
        for none in ["", "asha@example.in", "5.1", "5.1.1.1 x", "mailbox asha full", "5.x.1"] {
            assert_eq!(enhanced_status(none), None, "{none}");
        }
    }

    #[test]
    fn a_return_path_has_a_place_for_one_token_at_most() {
        let of = |text: &str, token| {
            ReturnPath::parse(text).and_then(|path| path.of(token)).map(|email| email.expose()).ok()
        };
        let verp = "bounces+{token}@example.in";
        assert_eq!(of(verp, Some("abcd")).as_deref(), Some("bounces+abcd@example.in"));
        assert_eq!(of(verp, None).as_deref(), Some("bounces@example.in"));
        assert_eq!(of("bounces@example.in", Some("abcd")).as_deref(), Some("bounces@example.in"));
        for bad in ["bounces", "a{token}{token}@example.in", "{tok}", "b@{token}", "a b@example.in"] {
            assert_eq!(of(bad, Some("abcd")), None, "{bad}");
        }
    }
}
