//! The conversation (RFC 5321), as much of it as a submitting client needs, with its limits.

use std::{io, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpListener,
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;

use super::{super::Inner, MailFault, Step, Taken};
use crate::mime;

/// Longest line, its end included (RFC 5321 section 4.5.3.1.6).
const LONGEST_LINE: u64 = 1_000;
/// Largest mail.
const LARGEST: usize = 10 * 1024 * 1024;
/// Most recipients of one mail.
const RECIPIENTS: usize = 100;
/// Longest silence before the line is put down.
const PATIENCE: Duration = Duration::from_secs(60);
/// Conversations at once.
const LINES: usize = 64;

/// Takes mail until `end`.
pub(in crate::sandbox) async fn serve(inner: Arc<Inner>, listener: TcpListener, end: CancellationToken) {
    let places = Arc::new(Semaphore::new(LINES));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = end.cancelled() => return,
        };
        let Ok((stream, _)) = accepted else {
            // Out of descriptors: those in use come back.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (inner, end) = (Arc::clone(&inner), end.clone());
        tokio::spawn(async move {
            let talk = Talk::new(inner, stream).lead();
            if let Some(Err(error)) = end.run_until_cancelled(talk).await {
                tracing::debug!(%error, "a conversation with the mail sink ended early");
            }
            drop(place);
        });
    }
}

struct Talk<S> {
    inner: Arc<Inner>,
    line: BufReader<S>,
    user: Option<String>,
    from: Option<String>,
    to: Vec<String>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Talk<S> {
    fn new(inner: Arc<Inner>, stream: S) -> Self {
        Self { inner, line: BufReader::new(stream), user: None, from: None, to: Vec::new() }
    }

    async fn lead(mut self) -> io::Result<()> {
        let fault = self.inner.mail().fault(Step::Greeting);
        if let Some(fault) = fault {
            return self.misbehave(&fault).await.map(drop);
        }
        self.say("220 sandbox.invalid ESMTP, nothing leaves this machine").await?;
        while let Some(line) = self.hear().await? {
            let text = String::from_utf8_lossy(&line);
            let (verb, rest) = text.split_once(' ').unwrap_or((&text, ""));
            let go_on = match verb.to_ascii_uppercase().as_str() {
                "EHLO" => {
                    let size = format!("250-SIZE {LARGEST}");
                    self.say_all(&[
                        "250-sandbox.invalid",
                        "250-8BITMIME",
                        &size,
                        "250-ENHANCEDSTATUSCODES",
                        "250 AUTH PLAIN",
                    ])
                    .await?
                }
                "HELO" => self.say("250 sandbox.invalid").await?,
                "AUTH" => self.sign_in(rest).await?,
                "MAIL" => self.mail(rest).await?,
                "RCPT" => self.rcpt(rest).await?,
                "DATA" => self.data().await?,
                "RSET" => {
                    self.forget();
                    self.say("250 2.0.0 forgotten").await?
                }
                "NOOP" => self.say("250 2.0.0 nothing done").await?,
                "VRFY" => self.say("252 2.5.0 try it").await?,
                "QUIT" => return self.say("221 2.0.0 bye").await.map(drop),
                _ => self.say("502 5.5.1 no such command here").await?,
            };
            if !go_on {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn sign_in(&mut self, rest: &str) -> io::Result<bool> {
        let Some(initial) = rest.strip_prefix("PLAIN ") else {
            return self.say("504 5.5.4 AUTH PLAIN with an initial response").await;
        };
        // RFC 4616: authorisation identity NUL user NUL password.
        let plain = STANDARD.decode(initial.trim()).unwrap_or_default();
        let mut parts = plain.split(|&byte| byte == 0).skip(1);
        let (user, password) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if user == b"sandbox" && password == b"sandbox-mail-password" {
            self.user = Some("sandbox".to_owned());
            self.say("235 2.7.0 welcome").await
        } else {
            self.say("535 5.7.8 wrong user or password").await
        }
    }

    async fn mail(&mut self, rest: &str) -> io::Result<bool> {
        if let Some(go_on) = self.scripted(Step::Mail).await? {
            return Ok(go_on);
        }
        match path(rest, "FROM:") {
            Some(from) => {
                self.forget();
                self.from = Some(from);
                self.say("250 2.1.0 ok").await
            }
            None => self.say("501 5.5.4 MAIL FROM:<address>").await,
        }
    }

    async fn rcpt(&mut self, rest: &str) -> io::Result<bool> {
        if let Some(go_on) = self.scripted(Step::Rcpt).await? {
            return Ok(go_on);
        }
        if self.from.is_none() {
            return self.say("503 5.5.1 MAIL first").await;
        }
        if self.to.len() >= RECIPIENTS {
            return self.say("452 4.5.3 too many recipients").await;
        }
        match path(rest, "TO:").filter(|to| to.contains('@')) {
            Some(to) => {
                self.to.push(to);
                self.say("250 2.1.5 ok").await
            }
            None => self.say("501 5.1.3 RCPT TO:<address>").await,
        }
    }

    async fn data(&mut self) -> io::Result<bool> {
        if let Some(go_on) = self.scripted(Step::Data).await? {
            return Ok(go_on);
        }
        if self.to.is_empty() {
            return self.say("503 5.5.1 RCPT first").await;
        }
        self.say("354 go on, a single dot ends it").await?;
        let mut body = Vec::new();
        loop {
            let Some(line) = self.hear().await? else { return Ok(false) };
            if line == b"." {
                break;
            }
            // A dot at the head of a line was doubled (RFC 5321 section 4.5.2).
            body.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
            body.extend_from_slice(b"\r\n");
            if body.len() > LARGEST {
                self.say("552 5.3.4 too large").await?;
                return Ok(false);
            }
        }
        let fault = self.inner.mail().fault(Step::End);
        let refused = fault.as_ref().and_then(|fault| fault.reply.as_deref()).is_some_and(|reply| reply >= "4");
        if !refused {
            self.keep(&body);
        }
        self.forget();
        match fault {
            Some(fault) => self.misbehave(&fault).await,
            None => self.say("250 2.0.0 taken").await,
        }
    }

    fn keep(&mut self, body: &[u8]) {
        let parsed = mime::read(body);
        let taken = Taken {
            id: 0,
            from: self.from.clone().unwrap_or_default(),
            to: self.to.clone(),
            message_id: parsed.message_id,
            subject: parsed.subject,
            text: parsed.text,
            raw: String::from_utf8_lossy(body).into_owned(),
            user: self.user.clone(),
            received_at: self.inner.now(),
        };
        self.inner.mail().keep(taken);
    }

    fn forget(&mut self) {
        self.from = None;
        self.to.clear();
    }

    /// Plays a fault of this step, if one is scripted. Says whether the conversation goes on.
    async fn scripted(&mut self, step: Step) -> io::Result<Option<bool>> {
        let fault = self.inner.mail().fault(step);
        match fault {
            Some(fault) => self.misbehave(&fault).await.map(Some),
            None => Ok(None),
        }
    }

    async fn misbehave(&mut self, fault: &MailFault) -> io::Result<bool> {
        match &fault.reply {
            Some(reply) => self.say(reply).await,
            None => Ok(false),
        }
    }

    async fn say(&mut self, reply: &str) -> io::Result<bool> {
        self.say_all(&[reply]).await
    }

    async fn say_all(&mut self, replies: &[&str]) -> io::Result<bool> {
        let text = replies.iter().fold(String::new(), |text, reply| text + reply + "\r\n");
        self.line.get_mut().write_all(text.as_bytes()).await?;
        Ok(true)
    }

    /// The next line without its end; nothing when the client has gone.
    async fn hear(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.line).take(LONGEST_LINE);
        let read = tokio::time::timeout(PATIENCE, bounded.read_until(b'\n', &mut line));
        read.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        // A lone line feed ends nothing: two servers that read a mail differently are how mails are smuggled.
        let Some(line) = line.strip_suffix(b"\r\n") else { return Ok(None) };
        Ok(Some(line.to_vec()))
    }
}

/// `FROM:<address> SIZE=…` → the address.
fn path(rest: &str, keyword: &str) -> Option<String> {
    let (head, tail) = rest.split_at_checked(keyword.len())?;
    let inside = tail.trim_start().strip_prefix('<')?;
    let (address, _) = inside.split_once('>')?;
    head.eq_ignore_ascii_case(keyword).then(|| address.to_owned())
}
