//! Who hands mail over, one message to one person at a time, and what the mail server said to it.

use std::fmt;

use async_trait::async_trait;

use super::Mail;

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

impl MailFailure {
    /// What a refusal says of the address.
    pub fn fault(&self) -> Fault {
        match (&self.status, self.reply) {
            (Some(status), _) => Fault::of_status(status),
            // RFC 5321 section 4.2.3: the mailbox is unavailable or its name is not allowed.
            (None, Some(550 | 551 | 553)) if self.what.starts_with("RCPT") => Fault::Address,
            _ => Fault::Other,
        }
    }
}

/// Whose fault a refusal is, by its enhanced status code (RFC 3463 section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// There is no such mailbox, or it is closed: nothing will ever arrive there. Whoever writes again harms the name
    /// of the sender.
    Address,
    /// The mailbox is full, the mail too large, the server busy: another mail may arrive.
    Passing,
    /// The sender or the words were refused: a matter for whoever runs the sender's domain.
    Policy,
    /// It does not say.
    Other,
}

impl Fault {
    /// Reads `5.1.1`. A code of class 4 is passing whatever it is about.
    pub fn of_status(status: &str) -> Self {
        let mut parts = status.split('.').map(|part| part.parse::<u16>().ok());
        match (parts.next().flatten(), parts.next().flatten(), parts.next().flatten()) {
            (Some(4), ..) => Self::Passing,
            // No such mailbox or host, bad syntax, moved, null MX; disabled.
            (Some(5), Some(1), Some(1 | 2 | 3 | 6 | 10)) | (Some(5), Some(2), Some(1)) => Self::Address,
            (Some(5), Some(2 | 3), _) => Self::Passing,
            (Some(5), Some(7), _) => Self::Policy,
            _ => Self::Other,
        }
    }
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

    #[test]
    fn a_failure_reads_like_one_and_says_whose_fault_it_is() {
        let failure = MailFailure { what: "RCPT refused", reply: Some(550), status: Some("5.1.1".to_owned()) };
        assert_eq!(failure.to_string(), "RCPT refused (550 5.1.1)");
        assert_eq!(failure.fault(), Fault::Address);
        assert_eq!(MailFailure::new("no connection").to_string(), "no connection");
        assert_eq!(MailFailure::new("no connection").fault(), Fault::Other);
        assert_eq!(MailFailure { what: "RCPT refused", reply: Some(550), status: None }.fault(), Fault::Address);
        assert_eq!(MailFailure { what: "mail refused", reply: Some(550), status: None }.fault(), Fault::Other);
        for (status, fault) in [
            ("5.1.1", Fault::Address),
            ("5.1.10", Fault::Address),
            ("5.2.1", Fault::Address),
            ("5.2.2", Fault::Passing),
            ("4.1.1", Fault::Passing),
            ("5.3.4", Fault::Passing),
            ("5.7.26", Fault::Policy),
            ("5.0.0", Fault::Other),
            ("5.1", Fault::Other),
            ("x", Fault::Other),
        ] {
            assert_eq!(Fault::of_status(status), fault, "{status}");
        }
    }
}
