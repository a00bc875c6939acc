//! A receiver that does as it is told, down to the bytes.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};

/// What a receiver does with a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reply {
    /// Answers with this status, and these lines among the headers.
    Status(u16, &'static str),
    /// Takes it and never answers.
    Hang,
    /// Takes it and closes the connection.
    Cut,
    /// Answers 200 with a body that never ends, as fast as it can.
    Endless,
    /// Answers 200 with a body of which a byte comes now and then.
    Drip,
    /// Answers with something that is not HTTP.
    Nonsense,
}

pub(crate) const OK: Reply = Reply::Status(204, "");
pub(crate) const BROKEN: Reply = Reply::Status(500, "");

/// One request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) line: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn id(&self) -> &str {
        self.header("webhook-id").expect("an id")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    pub(crate) fn number(&self) -> u64 {
        self.json()["data"]["number"].as_u64().expect("a number")
    }
}

#[derive(Default)]
struct State {
    replies: Mutex<VecDeque<Reply>>,
    otherwise: Mutex<Option<Reply>>,
    received: Mutex<Vec<Received>>,
    connections: AtomicUsize,
    under_way: AtomicUsize,
    most_under_way: AtomicUsize,
}

/// A receiver on a free port of loopback.
pub(crate) struct Receiver {
    state: Arc<State>,
    pub(crate) at: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Receiver {
    /// Answers 204 unless told otherwise.
    pub(crate) async fn open() -> Self {
        Self::open_tls(None).await
    }

    pub(crate) async fn open_tls(tls: Option<tokio_rustls::TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a free port");
        let at = listener.local_addr().expect("bound");
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let (state, tls) = (Arc::clone(&shared), tls.clone());
                state.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    match tls {
                        None => talk(stream, &state).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                talk(stream, &state).await;
                            }
                        }
                    }
                });
            }
        });
        Self { state, at, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hooks/s3cret?key=s3cret", self.at)
    }

    /// The next requests are answered so, one each.
    pub(crate) fn reply(&self, replies: impl IntoIterator<Item = Reply>) {
        self.state.replies.lock().expect("not poisoned").extend(replies);
    }

    /// From now on.
    pub(crate) fn always(&self, reply: Reply) {
        *self.state.otherwise.lock().expect("not poisoned") = Some(reply);
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.state.received.lock().expect("not poisoned").clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.state.received.lock().expect("not poisoned").len()
    }

    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Most requests that were under way at once.
    pub(crate) fn most_under_way(&self) -> usize {
        self.state.most_under_way.load(Ordering::SeqCst)
    }
}

async fn talk(mut stream: impl AsyncRead + AsyncWrite + Unpin, state: &State) {
    while let Some(request) = read(&mut stream).await {
        let under_way = state.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        state.most_under_way.fetch_max(under_way, Ordering::SeqCst);
        state.received.lock().expect("not poisoned").push(request);
        let scripted = state.replies.lock().expect("not poisoned").pop_front();
        let reply = scripted.or(*state.otherwise.lock().expect("not poisoned")).unwrap_or(OK);
        let goes_on = answer(&mut stream, reply).await;
        state.under_way.fetch_sub(1, Ordering::SeqCst);
        if !goes_on {
            return;
        }
    }
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Received> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let mut lines = head.split("\r\n");
    let line = lines.next()?.to_owned();
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length")?.1.parse().ok()?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Received { line, headers, body })
}

/// Whether the connection lives on.
async fn answer(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), reply: Reply) -> bool {
    match reply {
        Reply::Status(status, headers) => {
            let body = if status == 204 { "" } else { "content-length: 3\r\n\r\nno\n" };
            let end = if status == 204 { "\r\n" } else { "" };
            let text = format!("HTTP/1.1 {status} As told\r\n{headers}{body}{end}");
            stream.write_all(text.as_bytes()).await.is_ok()
        }
        Reply::Hang => {
            // Until whoever asks goes away.
            let _ = stream.read_u8().await;
            false
        }
        Reply::Cut => false,
        Reply::Nonsense => {
            let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.9\r\n").await;
            false
        }
        Reply::Endless => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
            let chunk = [b"10000\r\n".to_vec(), vec![b'x'; 0x10000], b"\r\n".to_vec()].concat();
            while stream.write_all(&chunk).await.is_ok() {}
            false
        }
        Reply::Drip => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n").await;
            while stream.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            false
        }
    }
}
