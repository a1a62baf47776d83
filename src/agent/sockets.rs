//! What the agent listens on: sockets that systemd holds for it (sd_listen_fds(3)), or its own.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;

use listenfd::ListenFd;
use rustix::fs::Mode;
use rustix::process::umask;

use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::platform::paths::Paths;
use crate::platform::peer;
use crate::platform::socket::listen;

/// Bound for as long as an agent has this place, whichever process it is.
pub(super) struct Sockets {
    /// Makes it the only one here.
    pub(super) lock: File,
    pub(super) api: UnixListener,
    /// The facade's, or why there is none.
    pub(super) facade: Result<Vec<TcpListener>, String>,
    /// Whether the API's socket was made by us, and is to be removed at the end.
    pub(super) is_ours: bool,
}

impl Sockets {
    /// Those that systemd has for us, and what is missing of our own.
    pub(super) fn open(paths: &Paths, config: &Config, lock: File) -> Result<Self> {
        let mut given = ListenFd::from_env();
        let api = take(&mut given, ListenFd::take_unix_listener).pop();
        let is_ours = api.is_none();
        let api = api.map_or_else(|| bind(&paths.socket), Ok)?;
        let ports = take(&mut given, ListenFd::take_tcp_listener);
        let facade = if ports.is_empty() { bind_facade(config) } else { Ok(ports) };
        Ok(Self { lock, api, facade, is_ours })
    }
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

/// Both loopback addresses, where the machine has both: tools that are told `localhost` may take either, and a stranger
/// must not have the other.
pub(super) fn bind_facade(config: &Config) -> Result<Vec<TcpListener>, String> {
    let port = config.facade_port.unwrap_or_else(own_port);
    let held = |error: std::io::Error| {
        let holder = peer::holder_of(port).map_or(String::new(), |holder| format!(", held by {holder}"));
        format!("port {port} of the facade: {error}{holder}")
    };
    let [v4, v6] = peer::LOOPBACK;
    let first = listen(SocketAddr::new(v4, port)).map_err(held)?;
    let port = first.local_addr().map_err(held)?.port();
    match listen(SocketAddr::new(v6, port)) {
        Ok(second) => Ok(vec![first, second]),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Err(held(error)),
        Err(_) => Ok(vec![first]),
    }
}

/// Binds the socket with its final mode from the first moment on. The lock is ours, so a socket that
/// lies there is the rest of an agent that died.
fn bind(path: &Path) -> Result<UnixListener> {
    let failed = |error: std::io::Error| Error::new(Code::Io, format!("{}: {error}", path.display()));
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let before = umask(Mode::XUSR | Mode::RWXG | Mode::RWXO);
    let listener = UnixListener::bind(path);
    umask(before);
    listener.map_err(failed)
}
