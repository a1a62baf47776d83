//! How fast servers answer one and the same HTTP request, taking turns within one run.
//!
//! `load PLAN.json` does what the plan says and prints one JSON object. Started by `tests/bench/run`.

#![expect(clippy::print_stdout, reason = "its output is its result")]

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio_rustls::TlsConnector;

#[derive(Deserialize)]
struct Plan {
    /// A socket for the yardstick to listen on, where it is one of the servers.
    hello: Option<PathBuf>,
    /// How many clients ask at once.
    clients: Vec<usize>,
    /// How often each server has its turn, after one that does not count.
    turns: usize,
    /// How long a turn is; who has asked by then is waited for.
    seconds: f64,
    servers: Vec<Server>,
}

/// A server, and what it is asked.
#[derive(Deserialize)]
struct Server {
    name: String,
    /// `/a/socket` or `host:port`.
    at: String,
    /// The authority of its TLS, if it has any.
    ca: Option<PathBuf>,
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
    body: String,
    /// Whether a client keeps its connection; otherwise it makes one for each request, as a new process does, and that
    /// counts.
    keeps: bool,
}

/// What a server's clients share.
struct Target {
    place: Place,
    request: Request<Full<Bytes>>,
    keeps: bool,
}

enum Place {
    Unix(PathBuf),
    Tcp(SocketAddr),
    Tls(SocketAddr, ServerName<'static>, TlsConnector),
}

type Sender = SendRequest<Full<Bytes>>;

fn main() {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let first = args.next().expect("load PLAN.json");
    if first == "--hello" {
        return hello(Path::new(&args.next().expect("--hello SOCKET")));
    }
    let text = std::fs::read(first).expect("the plan can be read");
    let plan: Plan = serde_json::from_slice(&text).expect("the plan is one");
    let yardstick = plan.hello.as_deref().map(beside);
    let rows = runtime().block_on(measure(&plan));
    let resident = yardstick.as_ref().and_then(|server| resident(server.0.id()));
    println!("{}", json!({"rows": rows, "hello_resident_kib": resident}));
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// The yardstick: axum as it comes, current-thread like the agent.
fn hello(socket: &Path) {
    runtime().block_on(async {
        let listener = UnixListener::bind(socket).expect("the socket is free");
        let router = Router::new().route("/", post(|_body: Bytes| async { "hello" }));
        axum::serve(listener, router).await.expect("it serves");
    });
}

/// A process of this program that ends when dropped.
struct Beside(Child);

impl Beside {
    fn start(what: &str, how: impl AsRef<std::ffi::OsStr>) -> Self {
        let program = std::env::current_exe().expect("this program");
        Self(Command::new(program).arg(what).arg(how).spawn().expect("it starts"))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).expect("it ends");
    }
}

/// The yardstick in a process of its own.
fn beside(socket: &Path) -> Beside {
    let server = Beside::start("--hello", socket);
    while !socket.exists() {
        std::thread::yield_now();
    }
    server
}

async fn measure(plan: &Plan) -> Vec<Value> {
    let targets: Vec<_> = plan.servers.iter().map(|server| Arc::new(server.target())).collect();
    let mut rows = Vec::new();
    for &clients in &plan.clients {
        let mut taken = vec![Taken::default(); targets.len()];
        for turn in 0..=plan.turns {
            for (target, taken) in targets.iter().zip(&mut taken) {
                let more = load(target, clients, Duration::from_secs_f64(plan.seconds)).await;
                if turn > 0 {
                    taken.add(more);
                }
            }
        }
        for (server, taken) in plan.servers.iter().zip(taken) {
            let figures = taken.figures();
            rows.push(json!({"server": server.name, "clients": clients, "figures": figures}));
        }
    }
    rows
}

/// `clients` that each send one request after the other.
async fn load(target: &Arc<Target>, clients: usize, turn: Duration) -> Taken {
    let mut kept = Vec::new();
    for _ in 0..clients {
        kept.push(if target.keeps { Some(target.place.connect().await) } else { None });
    }
    let began = Instant::now();
    let ask_on = |mut kept: Option<Sender>| {
        let target = target.clone();
        async move {
            let mut each = Vec::new();
            while began.elapsed() < turn {
                let sent = Instant::now();
                match &mut kept {
                    Some(sender) => ask(sender, target.request.clone()).await,
                    None => ask(&mut target.place.connect().await, target.request.clone()).await,
                }
                each.push(sent.elapsed());
            }
            each
        }
    };
    let tasks: Vec<_> = kept.into_iter().map(|sender| tokio::spawn(ask_on(sender))).collect();
    let mut taken = Taken::default();
    for task in tasks {
        taken.each.extend(task.await.expect("a client ends"));
    }
    taken.all = began.elapsed();
    taken
}

async fn ask(sender: &mut Sender, request: Request<Full<Bytes>>) {
    let response = sender.send_request(request).await.expect("an answer");
    assert!(response.status().is_success(), "{}", response.status());
    response.into_body().collect().await.expect("a whole answer");
}

/// How long requests took, and all of them together.
#[derive(Clone, Default)]
struct Taken {
    each: Vec<Duration>,
    all: Duration,
}

impl Taken {
    fn add(&mut self, more: Self) {
        self.each.extend(more.each);
        self.all += more.all;
    }

    fn figures(mut self) -> Value {
        self.each.sort();
        let micros = |percent: usize| self.each[self.each.len() * percent / 100].as_micros();
        let per_second = self.each.len() as u128 * 1_000_000 / self.all.as_micros();
        json!({
            "p50_us": micros(50), "p99_us": micros(99), "per_second": per_second, "requests": self.each.len(),
        })
    }
}

impl Server {
    fn target(&self) -> Target {
        let place =
            if self.at.starts_with('/') { Place::Unix(self.at.clone().into()) } else { self.remote() };
        let mut request = Request::builder().method(self.method.as_str()).uri(&self.path);
        request = request.header("Host", if self.at.starts_with('/') { "bench" } else { &self.at });
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(self.body.clone().into())).expect("a request");
        Target { place, request, keeps: self.keeps }
    }

    fn remote(&self) -> Place {
        let address = self.at.to_socket_addrs().expect("an address").next().expect("an address");
        let Some(ca) = &self.ca else { return Place::Tcp(address) };
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(
            CertificateDer::pem_file_iter(ca).expect("an authority").map(|each| each.expect("a certificate")),
        );
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("TLS")
            .with_root_certificates(roots)
            .with_no_client_auth();
        // A new process has no session to resume.
        config.resumption = Resumption::disabled();
        let host = self.at.split(':').next().unwrap_or_default().to_owned();
        let name = ServerName::try_from(host).expect("a host name");
        Place::Tls(address, name, Arc::new(config).into())
    }
}

impl Place {
    async fn connect(&self) -> Sender {
        match self {
            Self::Unix(socket) => speak(unix(socket).expect("the server answers")).await,
            Self::Tcp(address) => speak(tcp(*address).await).await,
            Self::Tls(address, name, tls) => {
                let stream = tls.connect(name.clone(), tcp(*address).await).await;
                speak(stream.expect("TLS")).await
            }
        }
    }
}

/// Waits for room in the backlog, which a non-blocking connect(2) does not.
fn unix(socket: &Path) -> std::io::Result<UnixStream> {
    let stream = std::os::unix::net::UnixStream::connect(socket)?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

async fn tcp(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).await.expect("the server answers");
    stream.set_nodelay(true).expect("a TCP connection");
    stream
}

async fn speak(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Sender {
    let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    sender
}

fn resident(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}
