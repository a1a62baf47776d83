//! Where a browser gets in: by TCP ports of this computer or, from the other end of an SSH session, by unix sockets of
//! one's own that `ssh -L` reaches. A socket lies in a private directory and belongs to one user, so that two users of a
//! server never meet on a port; sshd forwards as the user, which is what the peer's credentials must say.

use std::fmt;
use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, UnixListener};

use crate::error::{Code, Error, Result};
use crate::platform::paths::make_private;
use crate::platform::socket::{self, is_served};
use crate::platform::tcp_owner::LOOPBACK;

/// Where a sign-in's browser is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Door {
    /// On this computer.
    Ports,
    /// At the other end of an SSH session.
    Sockets,
}

/// A unix socket that goes when this is dropped.
pub(super) struct OwnSocket {
    path: PathBuf,
}

impl OwnSocket {
    /// Binds `path`, which nobody else may serve.
    pub(super) fn bind(path: &Path) -> Result<(UnixListener, Self)> {
        let failed = |error: std::io::Error| Error::io(path.display(), &error);
        make_private(path.parent().unwrap_or(Path::new("/")))?;
        if is_served(path) {
            let why = format!("{} is served by another agent of yours", path.display());
            return Err(Error::new(Code::PortBusy, why).remedy("end the other agent: ksb agent stop"));
        }
        // What lies there is the rest of an agent that died.
        match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        // The directory keeps everybody else away until the mode does.
        let listener = UnixListener::bind(path).map_err(failed)?;
        fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed)?;
        Ok((listener, Self { path: path.to_owned() }))
    }
}

impl Drop for OwnSocket {
    fn drop(&mut self) {
        fs::remove_file(&self.path).ok();
    }
}

/// An option of `ssh` that leads a port of the user's own machine to one of our sockets.
pub(super) struct Forward<'a> {
    pub(super) port: u16,
    pub(super) socket: &'a OwnSocket,
}

impl fmt::Display for Forward<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.socket.path.to_string_lossy();
        write!(f, "-L {}:{}", self.port, shlex::try_quote(&path).unwrap_or_default())
    }
}

/// Listens at a port of the addresses that `host` may mean: a browser may try either family first. Port 0 is any.
pub(super) fn listen(host: &str, port: u16) -> std::io::Result<(Vec<TcpListener>, u16)> {
    let addresses = match host {
        "127.0.0.1" => &LOOPBACK[..1],
        "[::1]" => &LOOPBACK[1..],
        _ => &LOOPBACK,
    };
    // A port that is named has to be ours at both addresses, or a stranger receives what is meant for us.
    let addresses = if port == 0 { addresses } else { &LOOPBACK };
    let listeners = socket::listen_on_loopback(addresses, port)?;
    let port = listeners
        .first()
        .map_or(Ok(port), |listener| Ok::<_, std::io::Error>(listener.local_addr()?.port()))?;
    let listen = |listener: std::net::TcpListener| {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    };
    Ok((listeners.into_iter().map(listen).collect::<std::io::Result<_>>()?, port))
}
