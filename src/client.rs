//! Finds the agent, starts it if none runs, speaks its API.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use axum::body::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use crate::api::{Problem, VERSION_HEADER, WAITER_HEADER};
use crate::error::{Code, Error, Result, reason};
use crate::model::random_hex;
use crate::platform::paths::{Homeless, Paths, make_private, named_socket};
use crate::platform::socket::{connect_in_line, is_served};
use crate::platform::{current_exe, daemon};

/// A client of one agent.
pub struct Client {
    paths: Paths,
    /// Whether it starts the agent where none runs.
    starts: bool,
    /// Names us where we wait for a sign-in at a terminal.
    waiter: Option<String>,
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
        .remedy("if ksb was upgraded: ksb agent stop")
}

impl Client {
    /// For the agent of `paths`; connects with each request.
    pub fn new(paths: Paths) -> Self {
        Self { paths, starts: true, waiter: None }
    }

    /// For an agent that runs already: none is started in its place.
    pub fn of_the_one_that_runs(paths: Paths) -> Self {
        Self { paths, starts: false, waiter: None }
    }

    /// The same for a caller at a terminal, which can open a browser again, and be asked.
    #[must_use]
    pub fn at_a_terminal(self) -> Self {
        Self { waiter: Some(random_hex::<16>()), ..self }
    }

    /// Where the agent listens.
    pub fn socket(&self) -> &Path {
        self.paths.reachable_socket().unwrap_or(&self.paths.socket)
    }

    /// Where the agent's files lie.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Whether an agent answers.
    pub async fn is_running(&self) -> bool {
        connect(self.socket()).await.is_ok()
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

    /// Asks for something that makes the agent leave, and returns when it takes no requests any more.
    pub async fn post_and_part(&self, path: &str, body: &impl Serialize) -> Result<Reply> {
        let presence = self.presence().await;
        let reply = self.post(path, body).await?;
        presence.end().await;
        Ok(reply)
    }

    /// Notices when the agent that answers now leaves.
    pub async fn presence(&self) -> Presence {
        let idle = async { begin(connect(self.socket()).await.ok()?).await.ok() }.await;
        let Some((mut sender, connection)) = idle else { return Presence(None) };
        ask(&mut sender, Method::GET, "/v1/status", Bytes::new(), None).await.ok();
        Presence(Some((sender, connection)))
    }

    /// Asks, and asks again where an agent left before it answered: the one that comes after it does. An older one is
    /// asked to make room for the program that was installed over its own.
    async fn call(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Reply> {
        let body = Bytes::from(body);
        let mut asked_to_leave = false;
        let mut tries = 0;
        loop {
            tries += 1;
            let answer = match self.once(&method, path, body.clone()).await {
                // Who only waits for news of an agent has no use for another one.
                Err(Lost::Left(error)) if self.starts && method != Method::GET && tries < TRIES => {
                    tracing::debug!(%error, "asking again");
                    continue;
                }
                Err(Lost::Left(error) | Lost::Failed(error)) => return Err(error),
                Ok(answer) => answer,
            };
            if asked_to_leave || !self.starts || !is_older(answer.version.as_deref()) {
                return answer.into_reply();
            }
            // What it answered is good; what it refused, a newer one may know.
            asked_to_leave = true;
            let handover = self.once(&Method::POST, "/v1/handover", Bytes::new()).await;
            let made_room = handover.is_ok_and(|answer| answer.status == 204);
            if !made_room || answer.status < 400 {
                return answer.into_reply();
            }
        }
    }

    async fn once(&self, method: &Method, path: &str, body: Bytes) -> Result<Answer, Lost> {
        let socket = self.paths.reachable_socket().map_err(Lost::Failed)?;
        let stream = match connect(socket).await {
            Ok(stream) => stream,
            Err(Unreachable::Refused(error)) => return Err(Lost::Failed(error)),
            Err(Unreachable::NotRunning) if !self.starts => return Err(Lost::Failed(gone("it has ended"))),
            Err(Unreachable::NotRunning) => {
                ensure(&self.paths).map_err(Lost::Failed)?;
                let socket = self.paths.reachable_socket().map_err(Lost::Failed)?;
                connect(socket).await.map_err(|_| Lost::Left(gone("it started and ended again")))?
            }
        };
        let answer = exchange(stream, method.clone(), path, body, self.waiter.as_deref()).await?;
        match (answer.status == 503).then(|| answer.problem()) {
            Some(error) if error.code == Code::AgentLeaving => Err(Lost::Left(error)),
            _ => Ok(answer),
        }
    }
}

/// What was asked before is answered meanwhile, and what must not be cut off is finished.
const PARTING: Duration = Duration::from_secs(70);
/// Time for an agent to accept whoever came before us.
const IN_LINE: Duration = Duration::from_secs(10);
/// How often an agent may leave while it is asked.
const TRIES: u32 = 5;

/// Why there is no answer.
enum Lost {
    /// The agent left: another one may answer.
    Left(Error),
    Failed(Error),
}

/// An answer, whatever it says.
struct Answer {
    status: u16,
    version: Option<String>,
    body: Bytes,
}

impl Answer {
    fn into_reply(self) -> Result<Reply> {
        if self.status >= 400 {
            return Err(self.problem());
        }
        Ok(Reply { status: self.status, body: self.body })
    }

    fn problem(&self) -> Error {
        let problem = serde_json::from_slice::<Problem>(&self.body);
        problem.map_or_else(|_| not_understood(&format!("status {}", self.status)), Error::from)
    }
}

/// Whether an agent of this version came before us.
pub fn is_older(version: Option<&str>) -> bool {
    let numbers = |version: &str| {
        let mut parts = version.split(['.', '-', '+']).map(|part| part.parse::<u64>().unwrap_or_default());
        [(); 3].map(|()| parts.next().unwrap_or_default())
    };
    version.is_some_and(|version| numbers(version) < numbers(env!("CARGO_PKG_VERSION")))
}

enum Unreachable {
    NotRunning,
    Refused(Error),
}

async fn connect(socket: &Path) -> Result<UnixStream, Unreachable> {
    let stream = reach(socket).await.map_err(|error| match error.kind() {
        // Reset: it ended before it accepted us.
        ErrorKind::NotFound | ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => {
            Unreachable::NotRunning
        }
        ErrorKind::WouldBlock => {
            let busy = format!("{}: too many ask the agent at once", socket.display());
            Unreachable::Refused(
                Error::new(Code::AgentUnavailable, busy).remedy("try again; see who asks: ksb audit"),
            )
        }
        _ => Unreachable::Refused(Error::new(
            Code::AgentUnavailable,
            format!("{}: {}", socket.display(), reason(&error)),
        )),
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

async fn reach(socket: &Path) -> std::io::Result<UnixStream> {
    let socket = socket.to_owned();
    match UnixStream::connect(&socket).await {
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            let stream = spawn_blocking(move || connect_in_line(&socket, IN_LINE)).await??;
            stream.set_nonblocking(true)?;
            UnixStream::from_std(stream)
        }
        other => other,
    }
}

async fn exchange(
    stream: UnixStream,
    method: Method,
    path: &str,
    body: Bytes,
    waiter: Option<&str>,
) -> Result<Answer, Lost> {
    let (mut sender, _connection) = begin(stream).await?;
    ask(&mut sender, method, path, body, waiter).await
}

type Sender = SendRequest<Full<Bytes>>;

/// A connection on which nothing more is asked: it ends when the agent begins to leave.
pub struct Presence(Option<(Sender, JoinHandle<hyper::Result<()>>)>);

impl Presence {
    /// Returns when the agent takes no requests any more.
    pub async fn end(self) {
        if let Some((_sender, connection)) = self.0 {
            timeout(PARTING, connection).await.ok();
        }
    }
}

/// The connection lives as long as the sender, at most.
async fn begin(stream: UnixStream) -> Result<(Sender, JoinHandle<hyper::Result<()>>), Lost> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| lost(&error))?;
    Ok((sender, tokio::spawn(connection)))
}

fn lost(error: &hyper::Error) -> Lost {
    Lost::Left(gone(&format!("the connection ended: {}", reason(error))))
}

async fn ask(
    sender: &mut Sender,
    method: Method,
    path: &str,
    body: Bytes,
    waiter: Option<&str>,
) -> Result<Answer, Lost> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("Host", "ksb")
        .header("Content-Type", "application/json");
    if let Some(waiter) = waiter {
        request = request.header(WAITER_HEADER, waiter);
    }
    let request = request
        .body(Full::new(body))
        .map_err(|error| Lost::Failed(Error::new(Code::Internal, error.to_string())))?;
    let response = sender.send_request(request).await.map_err(|error| lost(&error))?;
    let status = response.status().as_u16();
    let version = response.headers().get(VERSION_HEADER).and_then(|version| version.to_str().ok());
    let version = version.map(str::to_owned);
    let body = response.into_body().collect().await.map_err(|error| lost(&error))?.to_bytes();
    Ok(Answer { status, version, body })
}

fn gone(why: &str) -> Error {
    Error::new(Code::AgentUnavailable, format!("the agent is gone: {why}"))
        .remedy("run your command again; the reason is in the agent's log: ksb status")
}

/// Starts the agent unless one runs, and returns when it is ready. Of many callers one starts it:
/// the lock makes the others wait and then find it running.
pub fn ensure(paths: &Paths) -> Result<()> {
    let _turn = start_lock(paths)?;
    if is_served(paths.reachable_socket()?) {
        return Ok(());
    }
    spawn(paths)
}

/// Held by the one command that starts an agent, in the first directory where that can be.
fn start_lock(paths: &Paths) -> Result<File> {
    let lock_beside = |socket: &Path| {
        let directory = socket.parent().unwrap_or(Path::new("."));
        make_private(directory)?;
        let lock = private_file(&directory.join("start.lock"))?;
        let failed = |error: std::io::Error| Error::io(directory.display(), &error);
        lock.lock().map_err(failed)?;
        Ok::<_, Error>(lock)
    };
    let mut failed = Error::new(Code::Io, "there is no directory for a socket");
    for socket in paths.sockets() {
        match lock_beside(socket) {
            Ok(lock) => return Ok(lock),
            Err(error) if error.code == Code::Io => failed = error,
            Err(error) => return Err(error),
        }
    }
    let variable = if named_socket().is_some() { "KSB_SOCK to a socket in" } else { "XDG_RUNTIME_DIR to" };
    Err(failed.remedy(format!("set {variable} a private directory of yours")))
}

fn spawn(paths: &Paths) -> Result<()> {
    make_private(&paths.state).map_err(|error| match error.code {
        Code::Io => error.remedy("set XDG_STATE_HOME to a directory of yours that has room"),
        _ => error,
    })?;
    let log_path = paths.agent_log();
    let log = private_file(&log_path).map_or_else(|_| Stdio::null(), Stdio::from);
    let failed = |why: String| {
        Error::new(Code::AgentUnavailable, format!("the agent could not be started: {why}"))
            .remedy(format!("see {}, or run it in the foreground: ksb agent run", log_path.display()))
    };
    // The agent outlives this command: it must not keep its environment, directory or terminal.
    let named = named_socket().map(|socket| ("KSB_SOCK", socket));
    let mut starter = daemon::command(&["agent", "--detached"])
        .and_then(|mut starter| {
            starter
                .env_clear()
                .envs(current_exe::environment_of_an_agent())
                .envs(named)
                .current_dir("/")
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(log)
                .spawn()
        })
        .map_err(|error| failed(reason(&error)))?;
    let mut word = [0];
    let ready =
        starter.stdout.take().is_some_and(|mut pipe| pipe.read(&mut word).is_ok_and(|read| read == 1));
    starter.wait().ok();
    // One that was started by hand at the same moment is as good.
    if ready || is_served(paths.reachable_socket()?) {
        if let Some(Homeless { why, remedy }) = &paths.homeless {
            eprintln!(
                "ksb: {why}: sign-ins are kept in memory, until the agent ends. To keep them: {remedy}"
            );
        }
        return Ok(());
    }
    Err(failed("it ended at once".into()))
}

fn private_file(path: &Path) -> Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| Error::io(path.display(), &error))
}
