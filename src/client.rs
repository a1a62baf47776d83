//! Finds the agent, starts it if none runs, speaks its API.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use axum::body::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::api::Problem;
use crate::error::{Code, Error, Result};
use crate::platform::paths::{Paths, private_folder};

/// A client of one agent.
pub struct Client {
    paths: Paths,
    /// Whether it starts the agent where none runs.
    starts: bool,
}

/// An answer that is not a problem.
pub struct Reply {
    /// HTTP status: tells 200 from 202.
    pub status: u16,
    body: Bytes,
}

impl Reply {
    /// Reads the body as the type that goes with the status.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| not_understood(&error.to_string()))
    }
}

fn not_understood(why: &str) -> Error {
    Error::new(Code::AgentUnavailable, format!("the agent's answer is not understood: {why}"))
        .remedy("if ksb was upgraded: ksb stop")
}

impl Client {
    /// For the agent of `paths`; connects with each request.
    pub fn new(paths: Paths) -> Self {
        Self { paths, starts: true }
    }

    /// For an agent that runs within this process: no other can take its place.
    pub fn of_this_process(paths: Paths) -> Self {
        Self { paths, starts: false }
    }

    /// Where the agent's files lie.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Whether an agent answers.
    pub async fn is_running(&self) -> bool {
        connect(&self.paths.socket).await.is_ok()
    }

    /// `GET`, from an agent that is started if none runs.
    pub async fn get(&self, path: &str) -> Result<Reply> {
        self.call(Method::GET, path, Vec::new()).await
    }

    /// `DELETE`.
    pub async fn delete(&self, path: &str) -> Result<Reply> {
        self.call(Method::DELETE, path, Vec::new()).await
    }

    /// `POST` with a JSON body.
    pub async fn post(&self, path: &str, body: &impl Serialize) -> Result<Reply> {
        let body = serde_json::to_vec(body).map_err(|error| Error::new(Code::Internal, error.to_string()))?;
        self.call(Method::POST, path, body).await
    }

    async fn call(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Reply> {
        let stream = match connect(&self.paths.socket).await {
            Ok(stream) => stream,
            Err(Unreachable::Refused(error)) => return Err(error),
            Err(Unreachable::NotRunning) if !self.starts => return Err(gone("it has ended")),
            Err(Unreachable::NotRunning) => {
                ensure(&self.paths)?;
                connect(&self.paths.socket).await.map_err(|_| gone("it started and ended again"))?
            }
        };
        exchange(stream, method, path, body).await
    }
}

enum Unreachable {
    NotRunning,
    Refused(Error),
}

async fn connect(socket: &Path) -> Result<UnixStream, Unreachable> {
    let stream = UnixStream::connect(socket).await.map_err(|error| match error.kind() {
        // Reset: it ended before it accepted us.
        ErrorKind::NotFound | ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => {
            Unreachable::NotRunning
        }
        _ => {
            Unreachable::Refused(Error::new(Code::AgentUnavailable, format!("{}: {error}", socket.display())))
        }
    })?;
    // What we send are clouds and what we get are tokens: only to and from a process of our own.
    let ours = rustix::process::getuid().as_raw();
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == ours => Ok(stream),
        _ => Err(Unreachable::Refused(
            Error::new(Code::AgentUnavailable, format!("{} belongs to another user", socket.display()))
                .remedy("unset KSB_SOCK, or set it to a socket of your own"),
        )),
    }
}

async fn exchange(stream: UnixStream, method: Method, path: &str, body: Vec<u8>) -> Result<Reply> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| lost(&error))?;
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("Host", "ksb")
        .header("Content-Type", "application/json")
        .body(Full::<Bytes>::from(body))
        .map_err(|error| Error::new(Code::Internal, error.to_string()))?;
    let response = sender.send_request(request).await.map_err(|error| lost(&error))?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.map_err(|error| lost(&error))?.to_bytes();
    if status >= 400 {
        let problem: Problem =
            serde_json::from_slice(&body).map_err(|_| not_understood(&format!("status {status}")))?;
        return Err(problem.into());
    }
    Ok(Reply { status, body })
}

fn lost(error: &hyper::Error) -> Error {
    gone(&format!("the connection ended: {error}"))
}

fn gone(why: &str) -> Error {
    Error::new(Code::AgentUnavailable, format!("the agent is gone: {why}"))
        .remedy("run your command again; the reason is in agent.log: ksb status")
}

/// Starts the agent unless one runs, and returns when it is ready. Of many callers one starts it:
/// the lock makes the others wait and then find it running.
pub fn ensure(paths: &Paths) -> Result<()> {
    let folder = paths.socket.parent().unwrap_or(Path::new("."));
    private_folder(folder)?;
    let lock = private_file(&folder.join("start.lock"))?;
    lock.lock().map_err(|error| Error::new(Code::Io, format!("{}: {error}", folder.display())))?;
    if std::os::unix::net::UnixStream::connect(&paths.socket).is_ok() {
        return Ok(());
    }
    spawn(paths)
}

fn spawn(paths: &Paths) -> Result<()> {
    private_folder(&paths.state)?;
    let log_path = paths.state.join("agent.log");
    let log = private_file(&log_path)?;
    let failed = |why: String| {
        Error::new(Code::AgentUnavailable, format!("the agent could not be started: {why}"))
            .remedy(format!("see {}, or run it in the foreground: ksb agent", log_path.display()))
    };
    let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
    // The agent outlives this command: it must not keep its environment, folder or terminal.
    let mut agent = Command::new(program)
        .args(["agent", "--detached"])
        .env_clear()
        .envs(std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_for_the_agent)))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let mut word = [0];
    let ready = agent.stdout.take().is_some_and(|mut pipe| pipe.read(&mut word).is_ok_and(|read| read == 1));
    // One that was started by hand at the same moment is as good.
    if ready || std::os::unix::net::UnixStream::connect(&paths.socket).is_ok() {
        return Ok(());
    }
    Err(failed("it ended at once".into()))
}

/// Proxies and CA files come with each request; the agent's own environment must not add to them.
fn is_for_the_agent(name: &str) -> bool {
    matches!(
        name,
        "HOME"
            | "USER"
            | "LOGNAME"
            | "PATH"
            | "LANG"
            | "TZ"
            | "TMPDIR"
            | "KSB_SOCK"
            | "KSB_LOG"
            | "KSB_PASSPHRASE_FILE"
            | "DBUS_SESSION_BUS_ADDRESS"
            | "RUST_BACKTRACE"
    ) || name.starts_with("XDG_")
        || name.starts_with("LC_")
}

fn private_file(path: &Path) -> Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| Error::new(Code::Io, format!("{}: {error}", path.display())))
}
