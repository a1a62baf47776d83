//! Sockets as their callers see them, crowds included.
//!
//! A non-blocking connect(2) fails with EAGAIN while the backlog is full, where a blocking one waits for room.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

/// Connects, waiting at most that long for room in the backlog; then the error is `WouldBlock`.
pub fn connect_in_line(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let socket = socket(SocketFlags::empty())?;
    set_socket_timeout(&socket, Timeout::Send, Some(patience))?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    set_socket_timeout(&socket, Timeout::Send, None)?;
    Ok(socket.into())
}

/// Whether a process accepts connections there, or will: known without waiting.
pub fn is_served(path: &Path) -> bool {
    let ask = || connect(&socket(SocketFlags::NONBLOCK)?, &SocketAddrUnix::new(path)?);
    matches!(ask(), Ok(()) | Err(Errno::AGAIN))
}

/// Like std's `bind`, which lets only 128 connections wait: who comes when that many do loses a second.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    rustix::net::listen(&listener, 1024)?;
    Ok(listener)
}

/// Listens at a port of those loopback addresses that this machine has; port 0 is one that is free at all of them. It is the
/// same for both families: a program that is told `localhost` may take either, and a stranger must not have the other.
pub fn listen_on_loopback(addresses: &[IpAddr], port: u16) -> io::Result<Vec<TcpListener>> {
    listen_at_each(addresses, port, listen, |listener| Ok(listener.local_addr()?.port()))
}

fn listen_at_each<L>(
    addresses: &[IpAddr],
    port: u16,
    listen: impl Fn(SocketAddr) -> io::Result<L>,
    port_of: impl Fn(&L) -> io::Result<u16>,
) -> io::Result<Vec<L>> {
    loop {
        let mut listeners: Vec<L> = Vec::new();
        let mut failed = io::Error::from(ErrorKind::AddrNotAvailable);
        let mut is_taken = false;
        for ip in addresses {
            let port = listeners.first().map_or(Ok(port), &port_of)?;
            match listen(SocketAddr::new(*ip, port)) {
                Ok(listener) => listeners.push(listener),
                Err(error) => {
                    is_taken |= error.kind() == ErrorKind::AddrInUse;
                    failed = error;
                }
            }
        }
        match (is_taken, port) {
            // Another one may be free at all of them.
            (true, 0) if !listeners.is_empty() => {}
            (true, _) => return Err(ErrorKind::AddrInUse.into()),
            // A machine may have one family only.
            (false, _) if listeners.is_empty() => return Err(failed),
            (false, _) => return Ok(listeners),
        }
    }
}

fn socket(flags: SocketFlags) -> rustix::io::Result<OwnedFd> {
    socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | flags, None)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;
    use crate::platform::tcp_owner::LOOPBACK;

    /// Each row: the outcome of binding either loopback address, and the number of listeners or the error.
    #[test]
    fn a_port_is_had_at_each_address_that_the_machine_has() {
        use ErrorKind::{AddrInUse, AddrNotAvailable, PermissionDenied};
        type Row = (Option<ErrorKind>, Option<ErrorKind>, Result<usize, ErrorKind>);
        let rows: &[Row] = &[
            (None, None, Ok(2)),
            (None, Some(AddrNotAvailable), Ok(1)),
            (Some(AddrNotAvailable), None, Ok(1)),
            (Some(AddrInUse), None, Err(AddrInUse)),
            (None, Some(AddrInUse), Err(AddrInUse)),
            (Some(AddrNotAvailable), Some(AddrInUse), Err(AddrInUse)),
            (Some(AddrNotAvailable), Some(AddrNotAvailable), Err(AddrNotAvailable)),
            (Some(PermissionDenied), Some(PermissionDenied), Err(PermissionDenied)),
        ];
        for (v4, v6, expected) in rows {
            let listen = |address: SocketAddr| match if address.is_ipv4() { v4 } else { v6 } {
                Some(kind) => Err((*kind).into()),
                None => Ok(address.port()),
            };
            let found = listen_at_each(&LOOPBACK, 7, listen, |port| Ok(*port));
            let found = found.map(|listeners| listeners.len()).map_err(|error| error.kind());
            assert_eq!(found, *expected, "{v4:?} {v6:?}");
        }
    }

    #[test]
    fn any_port_is_one_that_is_free_at_both_addresses() {
        let tries = std::cell::Cell::new(40_000);
        let listen = |address: SocketAddr| match (address.port(), tries.get()) {
            (0, port) => {
                tries.set(port + 1);
                Ok(port)
            }
            (40_000, _) => Err(ErrorKind::AddrInUse.into()),
            (port, _) => Ok(port),
        };
        assert_eq!(listen_at_each(&LOOPBACK, 0, listen, |port| Ok(*port)).unwrap(), [40_001, 40_001]);
    }

    const LONG: Duration = Duration::from_mins(1);

    #[test]
    fn who_comes_when_the_backlog_is_full_waits_for_room() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let first = connect_in_line(&path, LONG).unwrap();
        let refused = connect_in_line(&path, Duration::from_millis(1)).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        assert!(is_served(&path));
        thread::scope(|threads| {
            let second = threads.spawn(|| connect_in_line(&path, LONG));
            listener.accept().unwrap();
            second.join().unwrap().unwrap();
        });
        drop((first, listener));
        assert!(!is_served(&path));
    }
}
