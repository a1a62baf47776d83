//! Sockets as their callers see them, crowds included.
//!
//! A non-blocking connect(2) fails with EAGAIN while the backlog is full, where a blocking one waits for room.

use std::io;
use std::net::{SocketAddr, TcpListener};
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

fn socket(flags: SocketFlags) -> rustix::io::Result<OwnedFd> {
    socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | flags, None)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

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
