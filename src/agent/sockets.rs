//! What the agent listens on: sockets that systemd holds for it (sd_listen_fds(3)), or its own.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{Seek, Write};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use listenfd::ListenFd;
use rustix::fs::Mode;
use rustix::process::umask;

use crate::config::Config;
use crate::error::{Code, Error, Result, reason};
use crate::platform::paths::{Paths, lock_of, make_private};
use crate::platform::socket::{is_served, listen_on_loopback};
use crate::platform::{current_exe, tcp_owner};

/// A stopping agent keeps its lock while it drains: wait a little longer than that.
const LOCK_PAUSE: Duration = Duration::from_millis(20);
const LOCK_TRIES: u32 = 400;

/// Bound for as long as an agent is reached there, whichever process it is.
pub(super) struct Sockets {
    pub(super) api: ApiSocket,
    /// The facade's, or why there is none.
    pub(super) facade: Result<Vec<TcpListener>, String>,
}

impl Sockets {
    /// Those that systemd has for us, and what is missing of our own.
    pub(super) async fn open(paths: &Paths, config: &Config) -> Result<Self> {
        let mut given = ListenFd::from_env();
        let reachable = paths.reachable_socket()?;
        let api = if let Some(listener) = take(&mut given, ListenFd::take_unix_listener).pop() {
            ApiSocket::given(listener, &paths.state).await?
        } else if reachable == paths.socket {
            ApiSocket::open(paths, None).await?
        } else {
            return Err(is_taken(reachable));
        };
        let ports = take(&mut given, ListenFd::take_tcp_listener);
        let facade = if ports.is_empty() { bind_facade(config) } else { Ok(ports) };
        Ok(Self { api, facade })
    }
}

/// The API's socket.
pub(super) struct ApiSocket {
    /// Makes this agent the only one there.
    pub(super) lock: File,
    pub(super) listener: UnixListener,
    /// Whether it was made by us, and is to be removed at the end.
    pub(super) is_ours: bool,
    /// Which file it was.
    file: Option<(u64, u64)>,
}

impl ApiSocket {
    /// A socket that is bound already.
    pub(super) fn new(lock: File, listener: UnixListener, is_ours: bool) -> Self {
        let mut socket = Self { lock, listener, is_ours, file: None };
        socket.file = fs::symlink_metadata(socket.path()).ok().as_ref().map(id);
        socket
    }

    /// The first of the paths where that can be. A lock that is `held` by us already serves there, too.
    pub(super) async fn open(paths: &Paths, held: Option<&File>) -> Result<Self> {
        let mut failed = Error::new(Code::Io, "there is no place for a socket");
        for path in paths.sockets() {
            match Self::open_at(path, &paths.state, held).await {
                Err(error) if error.code == Code::Io => {
                    tracing::info!(%error, "no socket there");
                    failed = error;
                }
                opened => return opened,
            }
        }
        Err(failed)
    }

    async fn open_at(path: &Path, state: &Path, held: Option<&File>) -> Result<Self> {
        make_private(path.parent().unwrap_or(Path::new(".")))?;
        let lock = lock(path, state, held).await?;
        Ok(Self::new(lock, bind(path)?, true))
    }

    async fn given(listener: UnixListener, state: &Path) -> Result<Self> {
        let path = path_of(&listener);
        make_private(path.parent().unwrap_or(Path::new(".")))?;
        Ok(Self::new(lock(&path, state, None).await?, listener, false))
    }

    /// Where it was bound.
    pub(super) fn path(&self) -> PathBuf {
        path_of(&self.listener)
    }

    /// The directory that it lies in.
    pub(super) fn directory(&self) -> PathBuf {
        self.path().parent().unwrap_or(Path::new(".")).to_owned()
    }

    /// Whether its path leads to it still.
    pub(super) fn has_its_name(&self) -> bool {
        self.file.is_some() && fs::symlink_metadata(self.path()).ok().as_ref().map(id) == self.file
    }

    /// Has commands find no socket, so that they start another agent.
    pub(super) fn remove(&self) {
        if self.is_ours && self.has_its_name() {
            fs::remove_file(self.path()).ok();
        }
    }
}

fn path_of(listener: &UnixListener) -> PathBuf {
    let address = listener.local_addr().ok();
    address.and_then(|address| address.as_pathname().map(Path::to_owned)).unwrap_or_default()
}

fn id(meta: &Metadata) -> (u64, u64) {
    (meta.dev(), meta.ino())
}

/// Held for as long as the process lives; the kernel lets go of it however the process ends.
async fn lock(socket: &Path, state: &Path, held: Option<&File>) -> Result<File> {
    let path = lock_of(socket);
    let failed = |error: std::io::Error| Error::io(path.display(), &error);
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(&path).map_err(failed)?;
    let there = id(&file.metadata().map_err(failed)?);
    if let Some(held) = held.filter(|held| held.metadata().is_ok_and(|meta| id(&meta) == there)) {
        return held.try_clone().map_err(failed);
    }
    let mut tries = 0;
    while file.try_lock().is_err() {
        // An agent that holds the lock without a socket is about to end or about to be ready.
        if is_served(socket) || tries == LOCK_TRIES {
            return Err(is_taken(socket));
        }
        tries += 1;
        #[expect(clippy::disallowed_methods, reason = "no process is told when another one's lock is free")]
        tokio::time::sleep(LOCK_PAUSE).await;
    }
    file.set_len(0).map_err(failed)?;
    file.rewind().map_err(failed)?;
    write!(file, "{}\n{}\n", std::process::id(), state.display()).map_err(failed)?;
    Ok(file)
}

fn is_taken(socket: &Path) -> Error {
    let agent = current_exe::agent_named_in(&lock_of(socket))
        .map_or(String::new(), |pid| format!(" (process {pid})"));
    let why = format!("an agent{agent} serves {} already", socket.display());
    Error::new(Code::AgentUnavailable, why).remedy("ksb status; or end it: ksb agent stop")
}

fn take<T>(
    given: &mut ListenFd,
    take_one: impl Fn(&mut ListenFd, usize) -> std::io::Result<Option<T>>,
) -> Vec<T> {
    // A descriptor of another kind stays for the next to ask.
    (0..given.len()).filter_map(|index| take_one(given, index).ok().flatten()).collect()
}

/// A port for each user, below those that the kernel gives to clients (32768) and Kubernetes to services (30000).
pub fn own_port() -> u16 {
    20_000 + u16::try_from(rustix::process::getuid().as_raw() % 10_000).unwrap_or_default()
}

/// The facade's port.
pub(super) fn bind_facade(config: &Config) -> Result<Vec<TcpListener>, String> {
    let port = config.facade_port.unwrap_or_else(own_port);
    listen_on_loopback(&tcp_owner::LOOPBACK, port).map_err(|error| {
        let holder = tcp_owner::holder_of(port).map_or(String::new(), |holder| format!(", held by {holder}"));
        format!("port {port} of the facade: {}{holder}", reason(&error))
    })
}

/// Binds the socket with its final mode from the first moment on. The lock is ours, so a socket that
/// lies there is the rest of an agent that died.
fn bind(path: &Path) -> Result<UnixListener> {
    let failed = |error: std::io::Error| Error::io(path.display(), &error);
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let before = umask(Mode::XUSR | Mode::RWXG | Mode::RWXO);
    let listener = UnixListener::bind(path);
    umask(before);
    listener.map_err(failed)
}
