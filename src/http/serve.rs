//! The one accept loop, over unix and TCP sockets.
//!
//! axum's own `serve` has no time-out for request headers and no limit of connections. Browsers open
//! speculative connections and leave them idle; none of them may delay a sign-in, so the loop never
//! stops accepting: at the cap the connection that has been idle longest is closed. One whose request has not come to its
//! end counts as idle, however long it is at it.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Extensions, Request, Response};
use hyper::body::{Body as _, Bytes, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Notify, watch};
use tower_service::Service;

use crate::platform::peer;
use crate::sync::locked;

/// Time for a request's headers to arrive.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// More than 200 clients at once are served; a flood of idle connections costs no more than this.
const MAX_CONNECTIONS: usize = 512;
/// The newest connections are not closed for the sake of others: they may be about to say what they want.
const NEWEST: u64 = 64;
const MAX_HEADERS: usize = 64;
/// All the cookies that a browser keeps for one host (180 of 4 KiB) find room in a request. Cookies know no ports: any
/// page of `localhost` could otherwise have the callback refuse what it likes by its size, such as the request that
/// removes a service worker.
const BUFFER: usize = 1 << 20;

/// Who is at the other end. Only the broker's own user ever gets this far.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The peer's uid.
    pub uid: u32,
    /// The peer's process, where the system knows it.
    pub pid: Option<u32>,
    /// What a handler remembers for as long as the connection lasts.
    pub memory: Arc<Mutex<Extensions>>,
}

/// A listening socket that can tell whose the other end is.
pub trait Listener: Send + 'static {
    /// An accepted connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// Waits for the next connection.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
    /// The uid at the other end, where the system knows it.
    fn uid_of(stream: &Self::Stream) -> Option<u32>;
    /// The process at the other end, where the system knows it.
    fn pid_of(_stream: &Self::Stream) -> Option<u32> {
        None
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<UnixStream> {
        UnixListener::accept(self).await.map(|(stream, _)| stream)
    }

    fn uid_of(stream: &UnixStream) -> Option<u32> {
        stream.peer_cred().ok().map(|peer| peer.uid())
    }

    fn pid_of(stream: &UnixStream) -> Option<u32> {
        stream.peer_cred().ok()?.pid()?.try_into().ok()
    }
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        let (stream, _) = TcpListener::accept(self).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    fn uid_of(stream: &TcpStream) -> Option<u32> {
        peer::uid_of(stream.local_addr().ok()?, stream.peer_addr().ok()?)
    }
}

/// A running listener. Dropping it stops accepting and lets requests in flight finish.
pub struct Server {
    running: watch::Sender<()>,
}

impl Server {
    /// Stops accepting and returns when the requests in flight are answered.
    pub async fn stop(self) {
        self.running.send_replace(());
        self.running.closed().await;
    }
}

/// Serves `router` on `listener` until the returned [`Server`] is dropped.
pub fn serve<L: Listener>(listener: L, router: Router) -> Server {
    let (running, stopped) = watch::channel(());
    tokio::spawn(accept_loop(listener, router, stopped));
    Server { running }
}

async fn accept_loop<L: Listener>(listener: L, router: Router, mut stopped: watch::Receiver<()>) {
    let connections = Arc::new(Connections::default());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.changed() => return,
        };
        match accepted {
            Ok(stream) => {
                let (place, router, stopped) = (connections.place(), router.clone(), stopped.clone());
                tokio::spawn(async move {
                    if let Some(caller) = admit::<L>(&stream) {
                        converse(stream, router, &place, caller, stopped).await;
                    }
                });
            }
            // Out of descriptors: give up the idle connection that is oldest and go on.
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                connections.close_oldest();
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Another user of the machine gets nothing, not even an answer.
fn admit<L: Listener>(stream: &L::Stream) -> Option<Caller> {
    let ours = rustix::process::getuid().as_raw();
    match L::uid_of(stream) {
        Some(uid) if uid == ours => Some(Caller { uid, pid: L::pid_of(stream), memory: Arc::default() }),
        Some(uid) => {
            tracing::warn!(uid, "a connection of another user was refused");
            None
        }
        None => {
            tracing::warn!("a connection was refused: its owner is not known");
            None
        }
    }
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    place: &Place,
    caller: Caller,
    mut stopped: watch::Receiver<()>,
) {
    let connection = place.connection.clone();
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        let (mut router, busy, caller) = (router.clone(), Busy::on(&connection), caller.clone());
        async move {
            request.extensions_mut().insert(caller);
            let request = request.map(|body| Arriving::new(body, busy.clone()));
            let response: Result<Response<Body>, Infallible> = router.call(request).await;
            drop(busy);
            response
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(MAX_HEADERS)
        .max_buf_size(BUFFER)
        .half_close(false)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        outcome = connection.as_mut() => {
            if let Err(error) = outcome { tracing::debug!(%error, "connection ended"); }
        }
        () = place.connection.evicted.notified() => {}
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            let _done = connection.await;
        }
    }
}

/// The living connections of one listener.
#[derive(Default)]
struct Connections {
    alive: Mutex<Vec<Weak<Connection>>>,
    ticks: AtomicU64,
}

/// One connection: how many requests it has under way and when the last one began or ended.
struct Connection {
    requests: AtomicUsize,
    last_used: AtomicU64,
    evicted: Notify,
    all: Weak<Connections>,
}

/// A place among the living connections; given up when dropped.
struct Place {
    connection: Arc<Connection>,
}

impl Connections {
    fn place(self: &Arc<Self>) -> Place {
        let connection = Arc::new(Connection {
            requests: AtomicUsize::new(0),
            last_used: AtomicU64::new(self.tick()),
            evicted: Notify::new(),
            all: Arc::downgrade(self),
        });
        let full = {
            let mut alive = locked(&self.alive);
            alive.retain(|connection| connection.strong_count() > 0);
            alive.push(Arc::downgrade(&connection));
            alive.len() > MAX_CONNECTIONS
        };
        if full {
            self.close_oldest();
        }
        Place { connection }
    }

    fn close_oldest(&self) {
        let alive = locked(&self.alive);
        let newest = self.ticks.load(Ordering::Relaxed).saturating_sub(NEWEST);
        let oldest = alive.iter().filter_map(Weak::upgrade).min_by_key(|connection| {
            // Idle ones first; among them the one that was used longest ago.
            let last_used = connection.last_used.load(Ordering::Relaxed);
            (last_used >= newest, connection.requests.load(Ordering::Relaxed) > 0, last_used)
        });
        if let Some(oldest) = oldest {
            oldest.evicted.notify_one();
        }
    }

    fn tick(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::Relaxed)
    }
}

impl Connection {
    fn touch(&self) {
        if let Some(all) = self.all.upgrade() {
            self.last_used.store(all.tick(), Ordering::Relaxed);
        }
    }
}

/// A request under way, once it is there as a whole.
struct Busy {
    connection: Arc<Connection>,
    is_whole: AtomicBool,
}

impl Busy {
    fn on(connection: &Arc<Connection>) -> Arc<Self> {
        connection.touch();
        Arc::new(Self { connection: connection.clone(), is_whole: AtomicBool::new(false) })
    }

    fn is_whole(&self) {
        if !self.is_whole.swap(true, Ordering::Relaxed) {
            self.connection.requests.fetch_add(1, Ordering::Relaxed);
            self.connection.touch();
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if *self.is_whole.get_mut() {
            self.connection.requests.fetch_sub(1, Ordering::Relaxed);
        }
        self.connection.touch();
    }
}

/// A body that tells when it has come to its end.
struct Arriving {
    body: Incoming,
    busy: Arc<Busy>,
}

impl Arriving {
    fn new(body: Incoming, busy: Arc<Busy>) -> Self {
        if body.is_end_stream() {
            busy.is_whole();
        }
        Self { body, busy }
    }
}

impl hyper::body::Body for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if self.body.is_end_stream() {
            self.busy.is_whole();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
