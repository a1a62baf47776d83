//! What the agent listens on: sockets that systemd holds for it (sd_listen_fds(3)), or its own.

use std::fs;
use std::path::Path;

use listenfd::ListenFd;
use rustix::fs::Mode;
use rustix::process::umask;
use tokio::net::{TcpListener, UnixListener};

use crate::error::{Code, Error, Result};
use crate::platform::peer;

/// The API's socket, where systemd has it.
pub(super) fn given_socket(given: &mut ListenFd) -> Result<Option<UnixListener>> {
    let found = (0..given.len()).find_map(|index| given.take_unix_listener(index).ok().flatten());
    let taken =
        found.map(|listener| listener.set_nonblocking(true).and_then(|()| UnixListener::from_std(listener)));
    taken.transpose().map_err(|error| unusable(&error))
}

/// The facade's port, where systemd has it.
pub(super) fn given_port(given: &mut ListenFd) -> Result<Option<TcpListener>> {
    let found = (0..given.len()).find_map(|index| given.take_tcp_listener(index).ok().flatten());
    let taken =
        found.map(|listener| listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener)));
    taken.transpose().map_err(|error| unusable(&error))
}

fn unusable(error: &std::io::Error) -> Error {
    Error::new(Code::Io, format!("the socket that systemd gave us: {error}"))
}

/// A port for each user, below those that the kernel gives to clients (32768) and Kubernetes to services (30000).
pub(super) fn own_port() -> u16 {
    20_000 + u16::try_from(rustix::process::getuid().as_raw() % 10_000).unwrap_or_default()
}

/// Both loopback addresses, where the machine has both: tools that are told `localhost` may take either, and a stranger
/// must not have the other.
pub(super) async fn bind_facade(port: u16) -> Result<Vec<TcpListener>, String> {
    let held = |error: std::io::Error| {
        let holder = peer::holder_of(port).map_or(String::new(), |holder| format!(", held by {holder}"));
        format!("port {port} of the facade: {error}{holder}")
    };
    let [v4, v6] = peer::LOOPBACK;
    let first = TcpListener::bind((v4, port)).await.map_err(held)?;
    let port = first.local_addr().map_err(held)?.port();
    match TcpListener::bind((v6, port)).await {
        Ok(second) => Ok(vec![first, second]),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Err(held(error)),
        Err(_) => Ok(vec![first]),
    }
}

/// Binds the socket with its final mode from the first moment on. The lock is ours, so a socket that
/// lies there is the rest of an agent that died.
pub(super) fn bind(path: &Path) -> Result<UnixListener> {
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
