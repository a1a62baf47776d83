//! Between `ksb` and Keystone: a proxy that opens TLS with the stack's own certificate and can hold one request, before
//! Keystone sees it or after Keystone has done it. Whoever kills the agent then, kills it between two steps.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use reqwest::{Certificate, Client};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;

use super::front::stack;
use super::wait;
use super::wiretap::acceptor;

/// The gate, for as long as the test's process lives.
pub struct Gate {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    hold: Mutex<Option<Hold>>,
    news: Condvar,
}

/// The request that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    pub method: &'static str,
    /// What its path holds.
    pub path: &'static str,
    /// So many like it go through before.
    pub after: usize,
    pub when: When,
}

/// Where a request is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Keystone never sees it.
    Before,
    /// Keystone has done it, and nobody is told.
    Done,
}

impl Gate {
    pub fn start() -> Self {
        let ca = Certificate::from_pem(&std::fs::read(stack("CA")).unwrap()).unwrap();
        ring::default_provider().install_default().ok();
        let client =
            Client::builder().tls_certs_only([ca]).no_proxy().pool_max_idle_per_host(0).build().unwrap();
        let shared = Arc::new(Shared { client, hold: Mutex::default(), news: Condvar::new() });
        let (is_ready, ready) = mpsc::channel();
        let state = shared.clone();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                is_ready.send(listener.local_addr().unwrap()).unwrap();
                let tls = acceptor();
                while let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(serve(client, tls.clone(), state.clone()));
                }
            });
        });
        Self { address: ready.recv().unwrap(), shared }
    }

    /// What goes into `https_proxy`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Holds that request for good, once it comes.
    pub fn hold(&self, hold: Hold) {
        *self.shared.hold.lock().unwrap() = Some(hold);
    }

    /// Returns when the request is held.
    #[track_caller]
    pub fn is_held(&self) {
        let hold = self.shared.hold.lock().unwrap();
        let (hold, late) =
            self.shared.news.wait_timeout_while(hold, wait::LIMIT, |hold| hold.is_some()).unwrap();
        assert!(!late.timed_out(), "it never came: {hold:?}");
    }
}

/// Serves one `CONNECT host:port`.
async fn serve(mut client: TcpStream, tls: TlsAcceptor, shared: Arc<Shared>) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.ok()?);
    }
    let target = String::from_utf8(head).ok()?.strip_prefix("CONNECT ")?.split(' ').next()?.to_owned();
    client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await.ok()?;
    let stream = tls.accept(client).await.ok()?;
    let service = service_fn(move |request| {
        let (shared, target) = (shared.clone(), target.clone());
        async move { Ok::<_, Infallible>(shared.answer(&target, request).await) }
    });
    http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok()
}

impl Shared {
    async fn answer(&self, target: &str, request: hyper::Request<Incoming>) -> hyper::Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let held = self.is_due(parts.method.as_str(), parts.uri.path());
        if held == Some(When::Before) {
            return self.kept().await;
        }
        let mut there =
            self.client.request(parts.method, format!("https://{target}{}", parts.uri)).body(body);
        for (name, value) in
            parts.headers.iter().filter(|(name, _)| !["host", "content-length"].contains(&name.as_str()))
        {
            there = there.header(name, value);
        }
        let answer = there.send().await.unwrap();
        let mut response = hyper::Response::new(Full::default());
        *response.status_mut() = answer.status();
        *response.headers_mut() = answer.headers().clone();
        response.headers_mut().remove("transfer-encoding");
        *response.body_mut() = Full::new(answer.bytes().await.unwrap());
        if held == Some(When::Done) {
            return self.kept().await;
        }
        response
    }

    /// Where this request is to be held, if it is the one.
    fn is_due(&self, method: &str, path: &str) -> Option<When> {
        let mut hold = self.hold.lock().unwrap();
        let hold = hold.as_mut().filter(|hold| hold.method == method && path.contains(hold.path))?;
        if hold.after > 0 {
            hold.after -= 1;
            return None;
        }
        Some(hold.when)
    }

    /// Says that it is held, and never answers.
    async fn kept(&self) -> hyper::Response<Full<Bytes>> {
        *self.hold.lock().unwrap() = None;
        self.news.notify_all();
        std::future::pending().await
    }
}
