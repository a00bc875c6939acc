//! `[messaging.mail]`: the server that mail goes to, what it is signed with, and where reports of it come back.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use muneem_jobs::outbound::{DkimKey, Email};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::{email_unless_empty, is_loopback, path_unless_empty, secs, unless_empty};
use crate::outbound::{
    mail::{ReturnPath, Settings, Tls},
    mailbox,
};

/// Fewest characters of the secret in the webhook's address.
const SHORTEST_TOKEN: usize = 32;

/// The mail server, and what comes back from it.
#[derive(Clone, Debug, Deserialize)]
pub struct Mail {
    /// Its name; `None`: no mail is sent.
    #[serde(deserialize_with = "unless_empty")]
    pub host: Option<String>,
    /// Its port.
    pub port: u16,
    /// How the line is protected.
    pub tls: Tls,
    /// Whom to sign in as.
    #[serde(deserialize_with = "unless_empty")]
    pub user: Option<String>,
    /// The password that goes with it.
    #[serde(skip)]
    pub password: Option<SecretString>,
    /// Whom mail comes from.
    #[serde(deserialize_with = "email_unless_empty")]
    pub from: Option<Email>,
    /// The name beside it.
    pub from_name: String,
    /// Roots that the server is believed by; `None`: this machine's.
    #[serde(deserialize_with = "path_unless_empty")]
    pub tls_roots_file: Option<PathBuf>,
    /// Where reports come back.
    #[serde(deserialize_with = "unless_empty")]
    pub return_path: Option<String>,
    /// Domain of the installation's signature.
    #[serde(deserialize_with = "unless_empty")]
    pub dkim_domain: Option<String>,
    /// Which of the domain's keys.
    #[serde(deserialize_with = "unless_empty")]
    pub dkim_selector: Option<String>,
    /// The key.
    #[serde(skip)]
    pub dkim_key: Option<SecretString>,
    /// Conversations at once.
    pub connections: usize,
    /// Longest wait for one answer.
    #[serde(rename = "command_timeout_secs", deserialize_with = "secs")]
    pub command_timeout: Duration,
    /// Longest a conversation may take.
    #[serde(rename = "timeout_secs", deserialize_with = "secs")]
    pub timeout: Duration,
    /// Directory that reports are delivered into.
    #[serde(deserialize_with = "path_unless_empty")]
    pub maildir: Option<PathBuf>,
    /// How often reports are looked for.
    #[serde(rename = "poll_secs", deserialize_with = "secs")]
    pub poll: Duration,
    /// End of the webhook's address; `None`: there is none.
    #[serde(skip)]
    pub webhook_token: Option<SecretString>,
    /// Mailbox that reports are delivered into.
    pub imap: Imap,
}

/// A mailbox read by IMAP.
#[derive(Clone, Debug, Deserialize)]
pub struct Imap {
    /// Its server; `None`: none is read.
    #[serde(deserialize_with = "unless_empty")]
    pub host: Option<String>,
    /// Its port.
    pub port: u16,
    /// Whom to sign in as.
    pub user: String,
    /// The password that goes with it.
    #[serde(skip)]
    pub password: Option<SecretString>,
    /// Its name.
    pub mailbox: String,
    /// Where what was read goes.
    #[serde(deserialize_with = "unless_empty")]
    pub move_to: Option<String>,
    /// Roots that the server is believed by; `None`: this machine's.
    #[serde(deserialize_with = "path_unless_empty")]
    pub tls_roots_file: Option<PathBuf>,
    /// Longest one look may take.
    #[serde(rename = "timeout_secs", deserialize_with = "secs")]
    pub timeout: Duration,
}

/// What comes from files of its own or the environment.
pub(super) struct MailSecrets {
    pub(super) password: Option<SecretString>,
    pub(super) dkim_key: Option<SecretString>,
    pub(super) webhook_token: Option<SecretString>,
    pub(super) imap_password: Option<SecretString>,
}

impl Imap {
    /// How to reach the mailbox; `None`: none is read.
    ///
    /// # Errors
    /// A file of certificates cannot be read.
    pub fn settings(&self) -> anyhow::Result<Option<mailbox::Settings>> {
        let (Some(host), Some(password)) = (&self.host, &self.password) else { return Ok(None) };
        let roots = self.tls_roots_file.as_ref();
        let roots = roots.map(|file| {
            std::fs::read(file).with_context(|| format!("`messaging.mail.imap.tls_roots_file`: {}", file.display()))
        });
        Ok(Some(mailbox::Settings {
            host: host.clone(),
            port: self.port,
            user: self.user.clone(),
            password: password.clone(),
            mailbox: self.mailbox.clone(),
            move_to: self.move_to.clone(),
            tls_roots: roots.transpose()?,
            timeout: self.timeout,
        }))
    }
}

impl Mail {
    pub(super) fn with_secrets(self, secrets: MailSecrets) -> Self {
        Self {
            password: secrets.password,
            dkim_key: secrets.dkim_key,
            webhook_token: secrets.webhook_token,
            imap: Imap { password: secrets.imap_password, ..self.imap },
            ..self
        }
    }

    /// The mail client's settings; `None`: no mail is sent.
    ///
    /// # Errors
    /// A file of certificates cannot be read.
    pub fn settings(&self) -> anyhow::Result<Option<Settings>> {
        let (Some(host), Some(from)) = (&self.host, &self.from) else { return Ok(None) };
        let roots = self.tls_roots_file.as_ref();
        let roots = roots.map(|file| {
            std::fs::read(file).with_context(|| format!("`messaging.mail.tls_roots_file`: {}", file.display()))
        });
        Ok(Some(Settings {
            host: host.clone(),
            port: self.port,
            tls: self.tls,
            tls_roots: roots.transpose()?,
            user: self.user.clone(),
            password: self.password.clone(),
            from: from.clone(),
            from_name: self.from_name.clone(),
            return_path: self.return_path.as_deref().map(ReturnPath::parse).transpose()?,
            dkim: self.dkim()?.map(Arc::new),
            connections: self.connections,
            command_timeout: self.command_timeout,
            timeout: self.timeout,
        }))
    }

    /// The installation's signing key, if it has one.
    fn dkim(&self) -> anyhow::Result<Option<DkimKey>> {
        let (Some(domain), Some(selector), Some(pem)) = (&self.dkim_domain, &self.dkim_selector, &self.dkim_key) else {
            return Ok(None);
        };
        Ok(Some(DkimKey::read(domain, selector, pem)?))
    }

    /// Everything that is wrong with it.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = self.problems_coming_back();
        let Some(host) = &self.host else { return problems };
        let mut found = |wrong: bool, problem: &str| {
            if wrong {
                problems.push(problem.to_owned());
            }
        };
        found(self.from.is_none(), "`messaging.mail.from` is not set: name the address that mail comes from");
        found(
            self.tls == Tls::None && !is_loopback(&format!("http://{host}:{}", self.port)),
            "`messaging.mail.tls` may be \"none\" for a server on loopback alone: take \"starttls\" or \"implicit\"",
        );
        found(
            self.user.is_some() != self.password.is_some(),
            "`messaging.mail.user` and `messaging.mail.password_file` go together",
        );
        found(
            self.from_name.chars().any(char::is_control),
            "`messaging.mail.from_name` holds a line break or another control character",
        );
        found(
            self.return_path.as_deref().is_some_and(|path| ReturnPath::parse(path).is_err()),
            "`messaging.mail.return_path` is no address such as bounces+{token}@example.in",
        );
        let parts = [self.dkim_domain.is_some(), self.dkim_selector.is_some(), self.dkim_key.is_some()];
        found(
            parts.contains(&true) && parts.contains(&false),
            "`messaging.mail.dkim_domain`, `dkim_selector` and `dkim_key_file` go together",
        );
        match self.dkim() {
            Err(error) => problems.push(format!("`messaging.mail.dkim_key_file`: {error}")),
            Ok(Some(key)) if !self.from.as_ref().is_none_or(|from| key.is_aligned_with(from.domain())) => {
                problems.push("`messaging.mail.dkim_domain` must be the domain of `from`, or lie above it".to_owned());
            }
            Ok(_) => {}
        }
        problems
    }

    fn problems_coming_back(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let short = |token: &SecretString| {
            let token = token.expose_secret();
            token.len() < SHORTEST_TOKEN || !token.bytes().all(|byte| byte.is_ascii_alphanumeric())
        };
        if self.webhook_token.as_ref().is_some_and(short) {
            problems.push(format!(
                "`messaging.mail.webhook_token_file` must hold {SHORTEST_TOKEN} letters and digits or more: run \
                 `openssl rand -hex 32`"
            ));
        }
        if self.imap.host.is_some() && (self.imap.user.is_empty() || self.imap.password.is_none()) {
            problems.push("`messaging.mail.imap` needs `user` and `password_file`".to_owned());
        }
        let names = [Some(&self.imap.mailbox), self.imap.move_to.as_ref(), Some(&self.imap.user)];
        if names.into_iter().flatten().any(|name| name.chars().any(char::is_control)) {
            problems
                .push("`messaging.mail.imap` holds a control character in `user` or the name of a mailbox".to_owned());
        }
        problems
    }
}
