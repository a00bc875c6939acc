//! Lines to the mail server: opened, kept a while, and used again.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use lettre::transport::smtp::{
    authentication::{Credentials, Mechanism},
    client::{AsyncSmtpConnection, Certificate, CertificateStore, TlsParameters},
    commands::Rset,
    extension::ClientId,
};
use muneem_jobs::outbound::mailer::MailFailure;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use secrecy::ExposeSecret;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout_at},
};

use super::{BadSettings, Settings, Tls, failure};

/// A line that nobody used for so long is put down: servers drop idle ones, after five minutes at the earliest
/// (RFC 5321 section 4.5.3.2.7) when they keep to it.
const IDLE: Duration = Duration::from_secs(30);
/// Mails over one line; servers that count allow a hundred or more.
const MAILS_A_LINE: u32 = 50;

/// The lines of one mail server.
pub(super) struct Lines {
    idle: Mutex<Vec<Line>>,
    places: Semaphore,
    tls: Option<TlsParameters>,
    hello: ClientId,
}

/// One open line, and the place it takes among those allowed.
pub(super) struct Line {
    pub(super) smtp: AsyncSmtpConnection,
    used: u32,
    since: Instant,
}

impl Line {
    /// Whether a mail went over it before.
    pub(super) fn is_reused(&self) -> bool {
        self.used > 0
    }
}

/// No later than the whole conversation, and no longer than one command may take.
pub(super) fn soon(deadline: Instant, settings: &Settings) -> Instant {
    deadline.min(Instant::now() + settings.command_timeout)
}

impl Lines {
    pub(super) fn new(settings: &Settings) -> Result<Self, BadSettings> {
        let tls = match settings.tls {
            Tls::None => None,
            Tls::Implicit | Tls::Starttls => {
                let mut tls = TlsParameters::builder(settings.host.clone());
                if let Some(roots) = &settings.tls_roots {
                    let bad = |why: String| BadSettings(format!("`tls_roots_file`: {why}"));
                    if CertificateDer::pem_slice_iter(roots).next().is_none() {
                        return Err(bad("it holds no certificate".to_owned()));
                    }
                    let roots = Certificate::from_pem(roots).map_err(|error| bad(error.to_string()))?;
                    tls = tls.certificate_store(CertificateStore::None).add_root_certificate(roots);
                }
                Some(tls.build_rustls().map_err(|error| BadSettings(format!("TLS: {error}")))?)
            }
        };
        let hello = ClientId::Domain(settings.from.domain().to_owned());
        let places = Semaphore::new(settings.connections.max(1));
        Ok(Self { idle: Mutex::new(Vec::new()), places, tls, hello })
    }

    /// Waits until fewer lines are in use than are allowed.
    pub(super) async fn place(&self, deadline: Instant) -> Result<SemaphorePermit<'_>, MailFailure> {
        let busy = || MailFailure::new("time-out waiting for a line");
        timeout_at(deadline, self.places.acquire()).await.map_err(|_| busy())?.map_err(|_| busy())
    }

    /// A line that is open already and not too old.
    pub(super) fn kept(&self) -> Option<Line> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|line| line.since.elapsed() < IDLE);
        idle.pop()
    }

    /// Keeps a line on which a mail was taken or plainly refused.
    pub(super) async fn keep(&self, mut line: Line, deadline: Instant, in_the_middle: bool) {
        line.used += 1;
        if line.used >= MAILS_A_LINE {
            let _ = timeout_at(deadline, line.smtp.quit()).await;
            return;
        }
        if in_the_middle && !matches!(timeout_at(deadline, line.smtp.command(Rset)).await, Ok(Ok(_))) {
            return;
        }
        line.since = Instant::now();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    /// A new line: connected, under TLS and signed in as the settings say.
    pub(super) async fn open(&self, settings: &Settings, deadline: Instant) -> Result<Line, MailFailure> {
        let implicit = self.tls.clone().filter(|_| settings.tls == Tls::Implicit);
        let server = (settings.host.as_str(), settings.port);
        let connected = AsyncSmtpConnection::connect_tokio1(server, None, &self.hello, implicit, None);
        let connected = timeout_at(soon(deadline, settings), connected).await;
        let connected = connected.map_err(|_| MailFailure::new("time-out connecting"))?;
        let mut smtp = connected.map_err(|error| failure("no connection", &error))?;
        if let Some(tls) = self.tls.clone().filter(|_| settings.tls == Tls::Starttls) {
            let secured = timeout_at(soon(deadline, settings), smtp.starttls(tls, &self.hello)).await;
            secured.map_err(|_| MailFailure::new("time-out in TLS"))?.map_err(|error| failure("no TLS", &error))?;
        }
        if let (Some(user), Some(password)) = (&settings.user, &settings.password) {
            let credentials = Credentials::new(user.clone(), password.expose_secret().to_owned());
            let mechanisms = [Mechanism::Plain, Mechanism::Login];
            let signed_in = timeout_at(soon(deadline, settings), smtp.auth(&mechanisms, &credentials)).await;
            signed_in
                .map_err(|_| MailFailure::new("time-out signing in"))?
                .map_err(|error| failure("sign-in refused", &error))?;
        }
        Ok(Line { smtp, used: 0, since: Instant::now() })
    }
}
