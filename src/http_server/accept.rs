//! The one accept loop, over unix and TCP sockets.
//!
//! axum's own `serve` has no time-out for request headers and no limit of connections. At the limit new connections wait
//! in the listen backlog until one ends; a connection that sends no request ends after `HEADER_TIMEOUT`.

use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{Extensions, HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::timeout;
use tower_service::Service;

use super::log_throttle::Seldom;
use crate::platform::peer_program::Peer;
use crate::platform::tcp_owner;
use crate::sync::lock_unpoisoned;

/// Time for a request's headers to arrive, and for an idle connection's next request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Of one listener.
const MAX_CONNECTIONS: usize = 512;
const MAX_HEADERS: usize = 64;
/// Pause before `accept` is tried again when the process is out of file descriptors.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

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
pub trait Listener: Send + Sync + 'static {
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
        tcp_owner::uid_of(stream.local_addr().ok()?, stream.peer_addr().ok()?)
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
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let refused = Arc::new(Mutex::new(Seldom::default()));
    let mut failures = Seldom::default();
    loop {
        let accepted = async {
            let place = room.clone().acquire_owned().await.map_err(io::Error::other)?;
            Ok::<_, io::Error>((listener.accept().await?, place))
        };
        let accepted = tokio::select! {
            accepted = accepted => accepted,
            _ = phase.changed() => return,
        };
        match accepted {
            Ok((stream, place)) => {
                let (router, phase, refused) = (router.clone(), phase.clone(), refused.clone());
                tokio::spawn(async move {
                    if let Some(caller) = admit::<L>(&stream, &refused) {
                        converse(stream, askers, router, caller, phase).await;
                    }
                    drop(place);
                });
            }
            Err(error) => {
                if let Some(left_out) = failures.say(Instant::now()) {
                    tracing::warn!(%error, left_out, "accept failed");
                }
                if timeout(ACCEPT_RETRY_DELAY, phase.changed()).await.is_ok() {
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
    let left_out = lock_unpoisoned(refused).say(Instant::now())?;
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
    caller: Caller,
    mut phase: watch::Receiver<Phase>,
) {
    let first = Arc::new(FirstRequest::default());
    let (asked, seen) = (first.clone(), phase.clone());
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        let (mut router, caller, phase) = (router.clone(), caller.clone(), seen.clone());
        asked.came();
        async move {
            request.extensions_mut().insert(caller);
            request.extensions_mut().insert(Parting(phase.clone()));
            let response: Result<Response<Body>, Infallible> = tokio::select! {
                biased;
                response = router.call(request) => response,
                () = late(&phase) => Ok(come_again()),
            };
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
        _ = phase.changed() => {
            if !first.has_come.load(Ordering::Relaxed) {
                // A client that has just connected is about to send a request; hyper would close its connection.
                tokio::select! {
                    _ = connection.as_mut() => return,
                    _asked_or_silent = timeout(FIRST_REQUEST, first.comes.notified()) => {}
                }
            }
            connection.as_mut().graceful_shutdown();
            let _done = connection.await;
        }
    }
}

/// The first request of a connection.
#[derive(Default)]
struct FirstRequest {
    has_come: AtomicBool,
    comes: Notify,
}

impl FirstRequest {
    fn came(&self) {
        if !self.has_come.swap(true, Ordering::Relaxed) {
            self.comes.notify_one();
        }
    }
}
