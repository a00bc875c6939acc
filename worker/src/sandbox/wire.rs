//! A listener whose connections can be cut by the handler that serves them, as networks do.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::Notify,
};

/// Accepts connections that can be cut.
pub(super) struct Wire {
    /// None while nobody listens.
    listener: Option<TcpListener>,
    address: SocketAddr,
    door: Door,
}

/// Closes the address for a while: who calls then is refused, as when a machine is gone.
#[derive(Clone, Debug, Default)]
pub(super) struct Door(Arc<(Mutex<Option<Duration>>, Notify)>);

impl Door {
    pub(super) fn close(&self, time: Duration) {
        *self.wish() = Some(time);
        self.0.1.notify_one();
    }

    fn wish(&self) -> MutexGuard<'_, Option<Duration>> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn closing(&self) -> Duration {
        loop {
            let rung = self.0.1.notified();
            if let Some(time) = self.wish().take() {
                return time;
            }
            rung.await;
        }
    }
}

impl Wire {
    pub(super) fn new(listener: TcpListener, address: SocketAddr, door: Door) -> Self {
        Self { listener: Some(listener), address, door }
    }

    /// The next connection; none when the door was closed meanwhile, and opened again.
    async fn next(&mut self) -> Option<(TcpStream, SocketAddr)> {
        let Some(listener) = &mut self.listener else {
            match TcpListener::bind(self.address).await {
                Ok(listener) => self.listener = Some(listener),
                // Somebody else has the address for a moment.
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
            return None;
        };
        tokio::select! {
            accepted = Listener::accept(listener) => Some(accepted),
            time = self.door.closing() => {
                self.listener = None;
                tokio::time::sleep(time).await;
                None
            }
        }
    }
}

/// One connection.
pub(super) struct Line {
    stream: TcpStream,
    cut: Scissors,
}

/// Cuts one connection: nothing more is written to it.
#[derive(Clone, Debug, Default)]
pub(super) struct Scissors(Arc<AtomicBool>);

impl Scissors {
    pub(super) fn cut(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn check(&self) -> io::Result<()> {
        if self.0.load(Ordering::Acquire) { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }
}

impl Connected<IncomingStream<'_, Wire>> for Scissors {
    fn connect_info(stream: IncomingStream<'_, Wire>) -> Self {
        stream.io().cut.clone()
    }
}

impl Listener for Wire {
    type Io = Line;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Line, SocketAddr) {
        loop {
            if let Some((stream, from)) = self.next().await {
                // Answers are small and single; waiting to fill a packet only delays them.
                let _ = stream.set_nodelay(true);
                return (Line { stream, cut: Scissors::default() }, from);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

impl AsyncRead for Line {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.cut.check()?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.cut.check()?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.cut.check()?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
