//! How fast the agent's socket serves a cached token, beside a bare axum "hello" on the same kind of
//! socket in the same run.
//!
//! `socket SOCKET REQUEST.json`: the agent's socket, and the body of `POST /v1/tokens` that is answered
//! from its cache. Prints one JSON object. Started by `tests/bench/run`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{UnixListener, UnixStream};

const WARM_UP: usize = 2_000;
const REQUESTS: usize = 20_000;

fn main() {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let first = args.next().expect("socket SOCKET REQUEST.json");
    let second = args.next().expect("socket SOCKET REQUEST.json");
    if first == "--hello" {
        return hello(Path::new(&second));
    }
    let (agent, body) = (PathBuf::from(first), std::fs::read(second).expect("the request can be read"));
    let folder = tempfile::tempdir().expect("a folder for the socket");
    let bare = folder.path().join("hello.sock");
    let program = std::env::current_exe().expect("this program");
    let mut server =
        std::process::Command::new(program).arg("--hello").arg(&bare).spawn().expect("the bare server");
    while !bare.exists() {
        std::thread::yield_now();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let report = runtime.block_on(async {
        // The two take turns, so that neither has the quieter machine.
        let mut rows = Vec::new();
        for clients in [1, 64] {
            for (name, socket, path) in [("bare axum", &bare, "/"), ("ksb agent", &agent, "/v1/tokens")] {
                load(socket, path, &body, clients, WARM_UP).await;
                let row = load(socket, path, &body, clients, REQUESTS).await;
                rows.push(json!({"server": name, "clients": clients, "figures": row}));
            }
        }
        json!({"sockets": rows, "bare_resident_kib": resident(server.id())})
    });
    println!("{report}");
    server.kill().and_then(|()| server.wait()).expect("the bare server ends");
}

/// The yardstick: axum as it comes, current-thread like the agent.
fn hello(socket: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = UnixListener::bind(socket).expect("the socket is free");
        let router = Router::new().route("/", post(|_body: Bytes| async { "hello" }));
        axum::serve(listener, router).await.expect("it serves");
    });
}

/// `clients` connections that each send their share of `requests`, one after the other.
async fn load(socket: &Path, path: &'static str, body: &[u8], clients: usize, requests: usize) -> Value {
    let body = Bytes::copy_from_slice(body);
    let began = Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..clients {
        let mut sender = connect(socket).await;
        let body = body.clone();
        tasks.push(tokio::spawn(async move {
            let mut taken = Vec::with_capacity(requests / clients);
            for _ in 0..requests / clients {
                let sent = Instant::now();
                ask(&mut sender, path, body.clone()).await;
                taken.push(sent.elapsed());
            }
            taken
        }));
    }
    let mut taken = Vec::with_capacity(requests);
    for task in tasks {
        taken.extend(task.await.expect("a client ends"));
    }
    let all = began.elapsed();
    taken.sort();
    let micros = |percent: usize| taken[taken.len() * percent / 100].as_micros();
    let per_second = taken.len() as u128 * 1_000_000 / all.as_micros();
    json!({"p50_us": micros(50), "p99_us": micros(99), "per_second": per_second})
}

async fn connect(socket: &Path) -> SendRequest<Full<Bytes>> {
    let stream = UnixStream::connect(socket).await.expect("the server answers");
    let (sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    sender
}

async fn ask(sender: &mut SendRequest<Full<Bytes>>, path: &str, body: Bytes) {
    let request = Request::post(path)
        .header("Host", "bench")
        .header("Content-Type", "application/json")
        .body(Full::new(body))
        .expect("a request");
    let response = sender.send_request(request).await.expect("an answer");
    assert_eq!(response.status(), 200);
    response.into_body().collect().await.expect("a whole answer");
}

fn resident(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}
