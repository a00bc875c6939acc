//! Mail over SMTP (RFC 5321), one connection a mail.
//!
//! The conversation is led step by step rather than by one call, because the step at which it breaks decides what may
//! be said of the mail: before its last line is under way nobody can have taken it, afterwards only an answer tells.

use std::{error::Error as _, sync::Arc, time::Duration};

use async_trait::async_trait;
use lettre::{
    Address, Message,
    message::{
        Mailbox, MultiPart, SinglePart,
        header::{HeaderName, HeaderValue},
    },
    transport::smtp::{
        authentication::{Credentials, Mechanism},
        client::{AsyncSmtpConnection, TlsParameters},
        commands::{Data, Mail as MailFrom, Rcpt},
        extension::{ClientId, Extension, MailBodyParameter, MailParameter},
    },
};
use muneem_jobs::outbound::{Clock, Email, Mail, MailOutcome, Mailer, mailer::MailFailure};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

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

/// How to reach the mail server.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its name, which its certificate must hold.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the line is protected.
    pub tls: Tls,
    /// Whom to sign in as, if at all.
    pub user: Option<String>,
    /// The password that goes with it.
    pub password: Option<SecretString>,
    /// The sender's address.
    pub from: Email,
    /// The name beside it.
    pub from_name: String,
    /// Longest a whole conversation may take.
    pub timeout: Duration,
}

/// Settings that no mail can be sent with.
#[derive(Debug, thiserror::Error)]
#[error("`messaging.mail` cannot be used: {0}")]
pub struct BadSettings(String);

/// The mail server, reached by SMTP.
pub struct Smtp {
    settings: Settings,
    sender: Mailbox,
    tls: Option<TlsParameters>,
    hello: ClientId,
    clock: Arc<dyn Clock>,
}

impl Smtp {
    /// Prepares; nothing is connected yet.
    ///
    /// # Errors
    /// The host, the sender or this machine's certificates cannot be used.
    pub fn new(settings: Settings, clock: Arc<dyn Clock>) -> Result<Self, BadSettings> {
        let bad = |what: &str, error: &dyn std::error::Error| BadSettings(format!("{what}: {error}"));
        if settings.from_name.chars().any(char::is_control) {
            return Err(BadSettings("`from_name` holds a control character".to_owned()));
        }
        let sender = address(&settings.from).map_err(|error| bad("`from`", &error))?;
        let name = Some(settings.from_name.clone()).filter(|name| !name.is_empty());
        let tls = match settings.tls {
            Tls::None => None,
            Tls::Implicit | Tls::Starttls => {
                Some(TlsParameters::new_rustls(settings.host.clone()).map_err(|error| bad("TLS", &error))?)
            }
        };
        let hello = ClientId::Domain(settings.from.domain().to_owned());
        Ok(Self { sender: Mailbox::new(name, sender), settings, tls, hello, clock })
    }

    /// The bytes that go over the line.
    fn written(&self, mail: &Mail, to: &Address) -> Result<Vec<u8>, lettre::error::Error> {
        let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
        let builder = Message::builder()
            .from(self.sender.clone())
            .to(Mailbox::new(None, to.clone()))
            .subject(mail.subject())
            .date(self.clock.now().into())
            .message_id(Some(format!("<{}@{}>", mail.id(), self.settings.from.domain())))
            // RFC 3834: nobody's holiday notice should answer this.
            .raw_header(HeaderValue::new(automatic, "auto-generated".to_owned()));
        let message = match mail.html() {
            Some(html) => builder.multipart(MultiPart::alternative_plain_html(mail.text().to_owned(), html.to_owned())),
            None => builder.singlepart(SinglePart::plain(mail.text().to_owned())),
        };
        message.map(|message| message.formatted())
    }

    /// Everything up to the server's "go on" after DATA: whatever breaks here, it has not taken the mail.
    async fn hand_in(&self, to: &Address, eight_bit: bool) -> Result<AsyncSmtpConnection, MailOutcome> {
        let settings = &self.settings;
        let implicit = self.tls.clone().filter(|_| settings.tls == Tls::Implicit);
        let server = (settings.host.as_str(), settings.port);
        let mut line = AsyncSmtpConnection::connect_tokio1(server, None, &self.hello, implicit, None)
            .await
            .map_err(|error| MailOutcome::NotSent(failure("no connection", &error)))?;
        if let Some(tls) = self.tls.clone().filter(|_| settings.tls == Tls::Starttls) {
            line.starttls(tls, &self.hello).await.map_err(|error| MailOutcome::NotSent(failure("no TLS", &error)))?;
        }
        if let (Some(user), Some(password)) = (&settings.user, &settings.password) {
            let credentials = Credentials::new(user.clone(), password.expose_secret().to_owned());
            line.auth(&[Mechanism::Plain, Mechanism::Login], &credentials)
                .await
                .map_err(|error| MailOutcome::NotSent(failure("sign-in refused", &error)))?;
        }
        let body = if eight_bit {
            if !line.server_info().supports_feature(Extension::EightBitMime) {
                return Err(MailOutcome::NotSent(MailFailure::new("the server takes ASCII only")));
            }
            vec![MailParameter::Body(MailBodyParameter::EightBitMime)]
        } else {
            Vec::new()
        };
        let from = MailFrom::new(Some(self.sender.email.clone()), body);
        line.command(from).await.map_err(|error| said_no("MAIL refused", &error))?;
        line.command(Rcpt::new(to.clone(), Vec::new())).await.map_err(|error| said_no("RCPT refused", &error))?;
        line.command(Data).await.map_err(|error| said_no("DATA refused", &error))?;
        Ok(line)
    }
}

#[async_trait]
impl Mailer for Smtp {
    async fn send(&self, mail: &Mail) -> MailOutcome {
        let Ok(to) = address(mail.to()) else {
            return MailOutcome::Refused(MailFailure::new("the address cannot be written"));
        };
        let Ok(bytes) = self.written(mail, &to) else {
            return MailOutcome::Refused(MailFailure::new("the mail cannot be written"));
        };
        let deadline = Instant::now() + self.settings.timeout;
        let mut line = match timeout_at(deadline, self.hand_in(&to, !bytes.is_ascii())).await {
            Ok(Ok(line)) => line,
            Ok(Err(outcome)) => return outcome,
            Err(_) => return MailOutcome::NotSent(MailFailure::new("time-out before the mail was under way")),
        };
        let outcome = match timeout_at(deadline, line.message(&bytes)).await {
            Ok(Ok(_)) => MailOutcome::Accepted,
            Ok(Err(error)) if error.is_permanent() || error.is_transient() => said_no("mail refused", &error),
            Ok(Err(error)) => MailOutcome::Unknown(failure("the line went dead after the mail", &error)),
            Err(_) => MailOutcome::Unknown(MailFailure::new("time-out after the mail")),
        };
        // The answer counts; a goodbye that is not heard changes nothing.
        let _ = timeout_at(deadline, line.quit()).await;
        outcome
    }
}

fn address(email: &Email) -> Result<Address, lettre::address::AddressError> {
    email.expose().parse()
}

/// 5yz is a no for good; anything else at this step is a no for now.
fn said_no(what: &'static str, error: &lettre::transport::smtp::Error) -> MailOutcome {
    let failure = failure(what, error);
    if error.is_permanent() { MailOutcome::Refused(failure) } else { MailOutcome::NotSent(failure) }
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
}
