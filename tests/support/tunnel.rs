//! What `ssh -N -L …` does on the machine in front of the user: listens on its ports and leads each connection to a
//! socket of the broker's. Here without SSH in between; `real::ssh` has it.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// A port there, and the socket here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    pub port: u16,
    pub socket: PathBuf,
}

/// The forwards of a sign-in's `tunnel`.
#[track_caller]
pub fn forwards(command: &str) -> Vec<Forward> {
    let words = command.strip_prefix("ssh -N ").unwrap().split(' ').collect::<Vec<_>>();
    words
        .chunks(2)
        .map(|option| {
            assert_eq!(option[0], "-L", "{command}");
            let (port, socket) = option[1].split_once(':').unwrap();
            Forward { port: port.parse().unwrap(), socket: socket.into() }
        })
        .collect()
}

/// The tunnel; ends when dropped.
pub struct Tunnel {
    forwards: Vec<Forward>,
    over: Arc<AtomicBool>,
}

impl Tunnel {
    #[track_caller]
    pub fn open(command: &str) -> Self {
        let tunnel = Self { forwards: forwards(command), over: Arc::default() };
        for Forward { port, socket } in tunnel.forwards.clone() {
            let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
            let over = tunnel.over.clone();
            thread::spawn(move || {
                for stream in listener.incoming() {
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    if let (Ok(here), Ok(there)) = (stream, UnixStream::connect(&socket)) {
                        relay(here, there);
                    }
                }
            });
        }
        tunnel
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for forward in &self.forwards {
            TcpStream::connect(("127.0.0.1", forward.port)).ok();
        }
    }
}

fn relay(browser: TcpStream, broker: UnixStream) {
    let (mut from, mut to) = (browser.try_clone().unwrap(), broker.try_clone().unwrap());
    thread::spawn(move || {
        io::copy(&mut from, &mut to).ok();
        to.shutdown(Shutdown::Both).ok();
    });
    let (mut from, mut to) = (broker, browser);
    thread::spawn(move || {
        io::copy(&mut from, &mut to).ok();
        to.shutdown(Shutdown::Both).ok();
    });
}
