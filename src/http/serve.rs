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
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{Extensions, HeaderValue, Request, Response, StatusCode, header};
use hyper::body::{Body as _, Bytes, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tower_service::Service;

use super::seldom::Seldom;
use crate::platform::peer;
use crate::platform::program::Peer;
use crate::sync::locked;

/// Time for a request's headers to arrive.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// More than 200 clients at once are served; a flood of idle connections costs no more than this.
const MAX_CONNECTIONS: usize = 512;
/// The newest connections are not closed for the sake of others: they may be about to say what they want.
const NEWEST: u64 = 64;
const MAX_HEADERS: usize = 64;
/// The rest of a listener that has nothing to give up while the process is out of descriptors.
const BREATH: Duration = Duration::from_millis(100);

/// Who asks: how much a request may say before its body.
#[derive(Debug, Clone, Copy)]
pub enum Askers {
    /// All the cookies that a browser keeps for one host (180 of 4 KiB) find room. Cookies know no ports: any page of
    /// `localhost` could otherwise have the callback refuse what it likes by its size, such as the request that removes
    /// a service worker.
    Browsers,
    /// Ten times what any of them says. A head is read anew with each piece of it that comes.
    Programs,
}

impl Askers {
    fn room(self) -> usize {
        match self {
            Self::Browsers => 1 << 20,
            Self::Programs => 1 << 16,
        }
    }
}

/// Who is at the other end. Only the broker's own user ever gets this far.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The peer's uid.
    pub uid: u32,
    /// Its other end, for whoever asks which program that is.
    pub peer: Peer,
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
    /// What tells the program at the other end.
    fn peer_of(stream: &Self::Stream) -> Peer;
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<UnixStream> {
        UnixListener::accept(self).await.map(|(stream, _)| stream)
    }

    fn uid_of(stream: &UnixStream) -> Option<u32> {
        stream.peer_cred().ok().map(|peer| peer.uid())
    }

    fn peer_of(stream: &UnixStream) -> Peer {
        Peer::process(stream.peer_cred().ok().and_then(|peer| peer.pid()?.try_into().ok()))
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

    fn peer_of(stream: &TcpStream) -> Peer {
        match (stream.local_addr(), stream.peer_addr()) {
            (Ok(local), Ok(remote)) => Peer::Socket { local, remote },
            _ => Peer::Unknown,
        }
    }
}

/// A running listener. Dropping it stops accepting and lets requests in flight finish.
pub struct Server {
    phase: watch::Sender<Phase>,
}

/// How far a listener is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serving,
    /// Requests in flight are answered.
    Draining,
    /// Whoever still waits is told to come again.
    Late,
}

/// Time for who has just connected to ask.
const FIRST_REQUEST: Duration = Duration::from_secs(1);
/// Time for those who are told to come again to hear it.
const LAST_WORDS: Duration = Duration::from_secs(1);

impl Server {
    /// Stops accepting, and returns when the requests in flight are answered; what takes longer than `grace` is answered
    /// by a 503.
    pub async fn stop(self, grace: Duration) {
        for (phase, patience) in [(Phase::Draining, grace), (Phase::Late, LAST_WORDS)] {
            self.phase.send_replace(phase);
            if timeout(patience, self.phase.closed()).await.is_ok() {
                return;
            }
        }
    }
}

/// Tells who waits for news that this listener takes no requests any more.
#[derive(Debug, Clone)]
pub struct Parting(watch::Receiver<Phase>);

impl Parting {
    /// Returns when that is so.
    pub async fn begins(&mut self) {
        // A listener that is dropped tells nobody to leave.
        if self.0.wait_for(|phase| *phase != Phase::Serving).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Returns when it is too late for an answer.
async fn late(phase: &watch::Receiver<Phase>) {
    let mut phase = phase.clone();
    // A listener that is dropped lets its requests finish.
    if phase.wait_for(|phase| *phase == Phase::Late).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// A problem document (RFC 9457) of the API and an error document of Keystone's in one: the one who is told may be either's
/// client.
fn come_again() -> Response<Body> {
    const WHY: &str = "the agent makes room for a fresh one; ask again";
    let body = format!(
        r#"{{"type":"urn:ksb:problem:agent-leaving","status":503,"code":"agent-leaving","detail":"{WHY}","error":{{"code":503,"title":"Service Unavailable","message":"ksb: {WHY}"}}}}"#
    );
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    for (name, value) in [(header::CONTENT_TYPE, "application/problem+json"), (header::RETRY_AFTER, "1")] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Serves `router` on `listener` until the returned [`Server`] is dropped.
pub fn serve<L: Listener>(listener: L, askers: Askers, router: Router) -> Server {
    let (phase, seen) = watch::channel(Phase::Serving);
    tokio::spawn(accept_loop(listener, askers, router, seen));
    Server { phase }
}

async fn accept_loop<L: Listener>(
    listener: L,
    askers: Askers,
    router: Router,
    mut phase: watch::Receiver<Phase>,
) {
    let connections = Arc::new(Connections::default());
    let refused = Arc::new(Mutex::new(Seldom::default()));
    let mut failures = Seldom::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = phase.changed() => return,
        };
        match accepted {
            Ok(stream) => {
                let (place, router, phase) = (connections.place(), router.clone(), phase.clone());
                let refused = refused.clone();
                tokio::spawn(async move {
                    if let Some(caller) = admit::<L>(&stream, &refused) {
                        converse(stream, askers, router, &place, caller, phase).await;
                    }
                });
            }
            // Out of descriptors: give up the idle connection that is oldest and go on.
            Err(error) => {
                if let Some(left_out) = failures.say(Instant::now()) {
                    tracing::warn!(%error, left_out, "accept failed");
                }
                if connections.close_oldest() {
                    tokio::task::yield_now().await;
                } else if timeout(BREATH, phase.changed()).await.is_ok() {
                    return;
                }
            }
        }
    }
}

/// Another user of the machine gets nothing, not even an answer.
fn admit<L: Listener>(stream: &L::Stream, refused: &Mutex<Seldom>) -> Option<Caller> {
    let ours = rustix::process::getuid().as_raw();
    let uid = L::uid_of(stream);
    if uid == Some(ours) {
        return Some(Caller { uid: ours, peer: L::peer_of(stream), memory: Arc::default() });
    }
    let left_out = locked(refused).say(Instant::now())?;
    if let Some(uid) = uid {
        tracing::warn!(uid, left_out, "a connection of another user was refused");
    } else {
        tracing::warn!(left_out, "a connection was refused: its owner is not known");
    }
    None
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    askers: Askers,
    router: Router,
    place: &Place,
    caller: Caller,
    mut phase: watch::Receiver<Phase>,
) {
    let (connection, seen) = (place.connection.clone(), phase.clone());
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        let (mut router, caller, phase) = (router.clone(), caller.clone(), seen.clone());
        let busy = Busy::on(&connection);
        async move {
            request.extensions_mut().insert(caller);
            request.extensions_mut().insert(Parting(phase.clone()));
            let request = request.map(|body| Arriving::new(body, busy.clone()));
            let response: Result<Response<Body>, Infallible> = tokio::select! {
                biased;
                response = router.call(request) => response,
                () = late(&phase) => Ok(come_again()),
            };
            drop(busy);
            response
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(MAX_HEADERS)
        .max_buf_size(askers.room())
        .half_close(false)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        outcome = connection.as_mut() => {
            if let Err(error) = outcome { tracing::debug!(%error, "connection ended"); }
        }
        () = place.connection.evicted.notified() => {}
        _ = phase.changed() => {
            if !place.connection.was_used.load(Ordering::Relaxed) {
                // Who has just connected is about to ask; hyper would close on them.
                let asks = place.connection.used.notified();
                tokio::select! {
                    _ = connection.as_mut() => return,
                    _asked_or_silent = timeout(FIRST_REQUEST, asks) => {}
                }
            }
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
    /// Whether a request ever came, and word of the first one.
    was_used: AtomicBool,
    used: Notify,
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
            was_used: AtomicBool::new(false),
            used: Notify::new(),
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

    /// Whether there was one to close.
    fn close_oldest(&self) -> bool {
        let mut alive = locked(&self.alive);
        let newest = self.ticks.load(Ordering::Relaxed).saturating_sub(NEWEST);
        let living =
            alive.iter().enumerate().filter_map(|(at, connection)| Some((at, connection.upgrade()?)));
        let oldest = living.min_by_key(|(_, connection)| {
            // Idle ones first; among them the one that was used longest ago.
            let last_used = connection.last_used.load(Ordering::Relaxed);
            (last_used >= newest, connection.requests.load(Ordering::Relaxed) > 0, last_used)
        });
        let Some((at, oldest)) = oldest else { return false };
        // It is chosen once: until it has heard of it, others may come that need a place of their own.
        alive.swap_remove(at);
        oldest.evicted.notify_one();
        true
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
        if !connection.was_used.swap(true, Ordering::Relaxed) {
            connection.used.notify_one();
        }
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn of_those_who_come_in_one_burst_each_has_another_one_closed() {
        let connections = Arc::new(Connections::default());
        // Nobody hears of anything in between.
        let places: Vec<_> = (0..MAX_CONNECTIONS + 100).map(|_| connections.place()).collect();
        let evicted = places.iter().map(|place| place.connection.evicted.notified().now_or_never().is_some());
        let evicted: Vec<_> = evicted.collect();
        assert!(evicted[..100].iter().all(|evicted| *evicted), "the oldest");
        assert!(!evicted[100..].contains(&true), "and no others");
    }
}
