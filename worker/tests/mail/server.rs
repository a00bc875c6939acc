//! A mail server that does as it is told: with TLS or without, taking mail, hanging up or falling silent at a step.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use muneem::outbound::mail::Tls;
use rustls::ServerConfig;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

/// A step of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Greeting,
    Hello,
    Starttls,
    Auth,
    Mail,
    Rcpt,
    Data,
    End,
}

/// What it does there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    HangUp,
    FallSilent,
    /// Says this, and hangs up.
    Say(&'static str),
}

/// One mail as it came over the line.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    pub(crate) envelope: (String, String),
    pub(crate) raw: Vec<u8>,
}

#[derive(Default)]
struct Room {
    plan: Vec<(Step, Act)>,
    taken: Vec<Taken>,
    lines: usize,
}

/// A running server.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    room: Arc<Mutex<Room>>,
}

impl Server {
    pub(crate) async fn open(tls: Tls, config: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let (address, room) = (listener.local_addr().expect("an address"), Arc::new(Mutex::new(Room::default())));
        let server = Self { address, room: Arc::clone(&room) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                room.lock().expect("not poisoned").lines += 1;
                let (room, acceptor) = (Arc::clone(&room), config.clone().map(TlsAcceptor::from));
                tokio::spawn(async move {
                    let mut talk = Talk { room };
                    let ended = match (tls, acceptor) {
                        (Tls::Implicit, Some(acceptor)) => match acceptor.accept(stream).await {
                            Ok(stream) => talk.lead(stream, true).await.map(drop),
                            Err(error) => Err(error),
                        },
                        (Tls::Starttls, Some(acceptor)) => match talk.lead(stream, false).await {
                            Ok(Some(stream)) => match acceptor.accept(stream).await {
                                Ok(stream) => talk.serve(stream, false, false).await.map(drop),
                                Err(error) => Err(error),
                            },
                            ended => ended.map(drop),
                        },
                        _ => talk.lead(stream, true).await.map(drop),
                    };
                    // A client that refuses the certificate or hangs up is what the tests are about.
                    drop(ended);
                });
            }
        });
        server
    }

    /// The next conversation that reaches `step` goes like this.
    pub(crate) fn plan(&self, step: Step, act: Act) {
        self.room.lock().expect("not poisoned").plan.push((step, act));
    }

    pub(crate) fn taken(&self) -> Vec<Taken> {
        self.room.lock().expect("not poisoned").taken.clone()
    }

    /// How often somebody connected.
    pub(crate) fn lines(&self) -> usize {
        self.room.lock().expect("not poisoned").lines
    }
}

struct Talk {
    room: Arc<Mutex<Room>>,
}

impl Talk {
    async fn lead<S: AsyncRead + AsyncWrite + Unpin>(&mut self, mut stream: S, secure: bool) -> io::Result<Option<S>> {
        if !self.go_on(&mut stream, Step::Greeting).await? {
            return Ok(None);
        }
        stream.write_all(b"220 mx.test ESMTP\r\n").await?;
        self.serve(stream, true, secure).await
    }

    /// Whether nothing is planned for this step. Falling silent lasts until the client hangs up.
    async fn go_on<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: &mut S, step: Step) -> io::Result<bool> {
        let planned = {
            let mut room = self.room.lock().expect("not poisoned");
            let found = room.plan.iter().position(|(at, _)| *at == step);
            found.map(|found| room.plan.remove(found).1)
        };
        match planned {
            None => return Ok(true),
            Some(Act::HangUp) => {}
            Some(Act::Say(words)) => stream.write_all(format!("{words}\r\n").as_bytes()).await?,
            Some(Act::FallSilent) => {
                tokio::io::copy(stream, &mut tokio::io::sink()).await?;
            }
        }
        stream.shutdown().await?;
        Ok(false)
    }

    /// Until QUIT. A stream comes back where TLS is to follow.
    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        stream: S,
        first: bool,
        secure: bool,
    ) -> io::Result<Option<S>> {
        let mut line = BufReader::new(stream);
        let mut envelope = (String::new(), String::new());
        loop {
            let mut text = Vec::new();
            if line.read_until(b'\n', &mut text).await? == 0 {
                return Ok(None);
            }
            let text = String::from_utf8_lossy(&text).trim_end().to_owned();
            let verb = text.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
            let step = match verb.as_str() {
                "EHLO" => Step::Hello,
                "STARTTLS" => Step::Starttls,
                "AUTH" => Step::Auth,
                "MAIL" => Step::Mail,
                "RCPT" => Step::Rcpt,
                "DATA" => Step::Data,
                "QUIT" => return Ok(None),
                _ => {
                    line.write_all(b"250 2.0.0 fine\r\n").await?;
                    continue;
                }
            };
            if !self.go_on(&mut line, step).await? {
                return Ok(None);
            }
            let offer = if first && !secure { "250 STARTTLS\r\n" } else { "250 AUTH PLAIN\r\n" };
            match step {
                Step::Hello => line.write_all(format!("250-mx.test\r\n250-8BITMIME\r\n{offer}").as_bytes()).await?,
                Step::Starttls => {
                    line.write_all(b"220 2.0.0 go on\r\n").await?;
                    return Ok(Some(line.into_inner()));
                }
                Step::Auth => line.write_all(b"235 2.7.0 welcome\r\n").await?,
                Step::Data => {
                    line.write_all(b"354 go on\r\n").await?;
                    let mut raw: Vec<u8> = Vec::new();
                    while !raw.ends_with(b"\r\n.\r\n") {
                        if line.read_until(b'\n', &mut raw).await? == 0 {
                            return Ok(None);
                        }
                    }
                    raw.truncate(raw.len() - 3);
                    let raw = unstuffed(&raw);
                    self.room.lock().expect("not poisoned").taken.push(Taken { envelope: envelope.clone(), raw });
                    if !self.go_on(&mut line, Step::End).await? {
                        return Ok(None);
                    }
                    line.write_all(b"250 2.0.0 taken\r\n").await?;
                }
                Step::Mail | Step::Rcpt => {
                    let address = text.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
                    let address = address.map(|(address, _)| address.to_owned()).unwrap_or_default();
                    if step == Step::Mail {
                        envelope.0 = address;
                    } else {
                        envelope.1 = address;
                    }
                    line.write_all(b"250 2.1.0 fine\r\n").await?;
                }
                Step::Greeting | Step::End => {}
            }
        }
    }
}

/// RFC 5321 section 4.5.2.
fn unstuffed(raw: &[u8]) -> Vec<u8> {
    let lines = raw.split_inclusive(|byte| *byte == b'\n');
    lines.flat_map(|line| line.strip_prefix(b".").unwrap_or(line).iter().copied()).collect()
}
