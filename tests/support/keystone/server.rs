//! The double's socket: takes requests, logs them, lets the rules have their way.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::identity::{Answer, Ask};
use super::{Fault, Hold, Logged, Shared, When};
use crate::support::spawn;

/// The thread that serves.
pub struct Server {
    orders: tokio::sync::mpsc::UnboundedSender<(Order, mpsc::Sender<()>)>,
    thread: Option<JoinHandle<()>>,
}

#[derive(PartialEq)]
enum Order {
    Listen,
    Close,
    End,
}

impl Server {
    pub fn start(port: u16, tls: Option<TlsAcceptor>, shared: Arc<Shared>) -> Self {
        let (orders, heard) = tokio::sync::mpsc::unbounded_channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(serve(port, tls, shared, heard));
        });
        let server = Self { orders, thread: Some(thread) };
        server.listen(true);
        server
    }

    /// Opens the port, or closes it and every connection; returns when that is done.
    pub fn listen(&self, open: bool) {
        spawn::undisturbed(|| self.order(if open { Order::Listen } else { Order::Close }));
    }

    fn order(&self, order: Order) {
        let (done, wait) = mpsc::channel();
        self.orders.send((order, done)).ok();
        wait.recv().ok();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.order(Order::End);
        self.thread.take().map(JoinHandle::join);
    }
}

async fn serve(
    port: u16,
    tls: Option<TlsAcceptor>,
    shared: Arc<Shared>,
    mut orders: tokio::sync::mpsc::UnboundedReceiver<(Order, mpsc::Sender<()>)>,
) {
    let mut listener: Option<TcpListener> = None;
    let mut connections = JoinSet::new();
    loop {
        let accept = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            order = orders.recv() => {
                let Some((order, done)) = order else { return };
                connections.shutdown().await;
                listener = match order {
                    Order::Listen => Some(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.unwrap()),
                    Order::Close | Order::End => None,
                };
                done.send(()).ok();
                if order == Order::End { return }
            }
            Ok((stream, _)) = accept => {
                stream.set_nodelay(true).ok();
                let (tls, shared) = (tls.clone(), shared.clone());
                connections.spawn(async move {
                    match tls {
                        None => converse(stream, shared).await,
                        // A client that does not like the certificate leaves.
                        Some(tls) => if let Ok(stream) = tls.accept(stream).await { converse(stream, shared).await },
                    }
                });
            }
        }
    }
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, shared: Arc<Shared>) {
    let service = service_fn(|request| answer(shared.clone(), request));
    // An error is a connection that a rule cut, or that the other side left.
    http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
}

/// `Err` cuts the connection.
async fn answer(
    shared: Arc<Shared>,
    request: hyper::Request<Incoming>,
) -> Result<hyper::Response<Full<Bytes>>, std::io::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    let ask = Ask {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
        body,
    };
    shared.hear(&ask);
    let held = is_held(&shared, &ask);
    if held == Some(When::Before) {
        std::future::pending::<()>().await;
    }
    let (place, fault) = arrive(&shared, format!("{} {}", ask.method, ask.path));
    let answer = match fault {
        Some(Fault::Hangs) => return Err(std::io::Error::other("a rule")),
        Some(Fault::Status(status)) => Answer::error(status, "Something went wrong, says the rule."),
        Some(Fault::Says(status, text)) => Answer::plain(status, text),
        Some(Fault::Heads(status, headers)) => Answer { status, headers, body: String::new() },
        Some(Fault::WaitsFor(mut gate)) => {
            gate.changed().await.ok();
            proper(&shared, &ask)
        }
        Some(Fault::Waits) | None => proper(&shared, &ask),
    };
    shared.state().log[place].status = Some(answer.status);
    if held == Some(When::Done) {
        std::future::pending::<()>().await;
    }
    let date = {
        let now = shared.clock.now() + shared.state().skew;
        jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&now).unwrap()
    };
    let mut response = hyper::Response::builder().status(answer.status).header("Date", date);
    for (name, value) in &answer.headers {
        response = response.header(*name, value);
    }
    Ok::<_, Infallible>(response.body(Full::from(answer.body)).unwrap()).map_err(|never| match never {})
}

fn proper(shared: &Shared, ask: &Ask) -> Answer {
    let mut state = shared.state();
    let now = shared.clock.now() + state.skew;
    state.identity.answer(now, ask)
}

/// Whether it is the request of the agent's that is to be held.
fn is_held(shared: &Shared, ask: &Ask) -> Option<When> {
    let is_the_agents = ask.header("User-Agent").starts_with("keystone-broker/");
    let mut state = shared.state();
    let Hold::Coming(after, when) = &mut state.hold else { return None };
    if !is_the_agents {
        return None;
    }
    if *after > 0 {
        *after -= 1;
        return None;
    }
    let when = *when;
    state.hold = Hold::Held(format!("{} {}", ask.method, ask.path));
    Some(when)
}

/// Logs a request and finds the newest rule for it.
fn arrive(shared: &Shared, request: String) -> (usize, Option<Fault>) {
    let mut state = shared.state();
    let fault = state.rules.iter().rev().find(|(_, of, _)| *of == request).map(|(_, _, fault)| fault.clone());
    state.log.push(Logged { request, status: None });
    shared.logged.notify_all();
    (state.log.len() - 1, fault)
}
