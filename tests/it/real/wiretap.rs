//! Between `ksb` and Keycloak: a proxy that opens TLS with the stack's own certificate, hears what is said, and may
//! answer in Keycloak's place. Everything else passes through it unopened.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use reqwest::{Certificate, Client};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::front::stack;
use super::wait;

/// The wiretap, for as long as the test's process lives.
pub struct Wiretap {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    heard: Mutex<Vec<Heard>>,
    trouble: watch::Sender<Option<Trouble>>,
}

/// A request to Keycloak, with its answer once that is there.
#[derive(Debug, Clone)]
pub struct Heard {
    pub path: String,
    /// The form that was sent.
    pub form: Vec<(String, String)>,
    pub answer: Option<(u16, Value)>,
}

/// What happens at the token endpoint instead of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// This status and `Retry-After`.
    Says(u16, Option<&'static str>),
    /// Nothing, until the trouble is over.
    Waits,
}

impl Heard {
    /// A field of the form.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.form.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

impl Wiretap {
    pub fn start() -> Self {
        let ca = Certificate::from_pem(&std::fs::read(stack("CA")).unwrap()).unwrap();
        ring::default_provider().install_default().ok();
        let client =
            Client::builder().tls_certs_only([ca]).no_proxy().pool_max_idle_per_host(0).build().unwrap();
        let trouble = watch::Sender::new(None);
        let shared = Arc::new(Shared { client, heard: Mutex::default(), trouble });
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

    /// Puts a trouble in force, or ends it.
    pub fn trouble(&self, trouble: Option<Trouble>) {
        self.shared.trouble.send_replace(trouble);
    }

    /// Everything that was heard.
    pub fn heard(&self) -> Vec<Heard> {
        self.shared.heard.lock().unwrap().clone()
    }

    /// The refresh tokens that came to the token endpoint, in this order.
    pub fn refreshes(&self) -> Vec<String> {
        self.heard().iter().filter_map(|heard| heard.field("refresh_token").map(str::to_owned)).collect()
    }

    /// Returns when this many refresh tokens have come.
    #[track_caller]
    pub fn wait_for_refreshes(&self, times: usize) {
        wait::until("a refresh", || (self.refreshes().len() >= times).then_some(()));
    }
}

pub(super) fn acceptor() -> TlsAcceptor {
    let folder = stack("TLS");
    let certificates = CertificateDer::pem_file_iter(Path::new(&folder).join("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(Path::new(&folder).join("server.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certificates.map(Result::unwrap).collect(), key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// Serves one `CONNECT host:port`.
async fn serve(mut client: TcpStream, tls: TlsAcceptor, shared: Arc<Shared>) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let target = head.strip_prefix("CONNECT ")?.split(' ').next()?;
    if !stack("IDP").ends_with(target) {
        let mut server = TcpStream::connect(target).await.ok()?;
        client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await.ok()?;
        copy_bidirectional(&mut client, &mut server).await.ok()?;
        return Some(());
    }
    client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await.ok()?;
    let stream = tls.accept(client).await.ok()?;
    let service = service_fn(move |request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(shared.answer(request).await) }
    });
    http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok()
}

impl Shared {
    async fn answer(&self, request: hyper::Request<Incoming>) -> hyper::Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let path = parts.uri.path().to_owned();
        let form = url::form_urlencoded::parse(&body).into_owned().collect();
        let mut trouble = self.trouble.subscribe();
        let now = trouble.borrow_and_update().filter(|_| path.ends_with("/token"));
        let place = {
            let mut heard = self.heard.lock().unwrap();
            heard.push(Heard { path, form, answer: None });
            heard.len() - 1
        };
        match now {
            Some(Trouble::Says(status, after)) => {
                let mut answer = hyper::Response::builder().status(status);
                if let Some(after) = after {
                    answer = answer.header("Retry-After", after);
                }
                return answer.body(Full::new("<h1>Not now</h1>".into())).unwrap();
            }
            Some(Trouble::Waits) => {
                trouble.wait_for(|trouble| *trouble != Some(Trouble::Waits)).await.ok();
            }
            None => {}
        }
        let url = format!("{}{}", stack("IDP"), parts.uri.path_and_query().unwrap());
        let mut there = self.client.request(parts.method, url).body(body);
        for (name, value) in
            parts.headers.iter().filter(|(name, _)| !["host", "content-length"].contains(&name.as_str()))
        {
            there = there.header(name, value);
        }
        let answer = there.send().await.unwrap();
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = answer.bytes().await.unwrap();
        let json = serde_json::from_slice(&body).unwrap_or_default();
        self.heard.lock().unwrap()[place].answer = Some((status.as_u16(), json));
        let mut response = hyper::Response::new(Full::new(body));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response.headers_mut().remove("transfer-encoding");
        response
    }
}
