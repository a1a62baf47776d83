//! A network that can be cut: an HTTP proxy (`CONNECT` alone) between `ksb` and Keystone.
//!
//! Not a port in Keystone's place, because the identity provider sends browsers back to the registered ports only.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// A proxy on a port of its own.
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    cut: AtomicBool,
    connections: Mutex<Vec<TcpStream>>,
}

impl Relay {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = Self { address: listener.local_addr().unwrap(), shared: Arc::default() };
        relay.serve(listener);
        relay
    }

    fn serve(&self, listener: TcpListener) {
        let state = self.shared.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                if state.cut.load(Ordering::SeqCst) {
                    return;
                }
                let (client, state) = (client.unwrap(), state.clone());
                thread::spawn(move || relay(client, &state));
            }
        });
    }

    /// Takes connections again.
    pub fn restore(&self) {
        self.shared.cut.store(false, Ordering::SeqCst);
        self.serve(TcpListener::bind(self.address).unwrap());
    }

    /// What goes into `https_proxy`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends every connection and takes no more.
    pub fn cut(&self) {
        self.shared.cut.store(true, Ordering::SeqCst);
        for connection in self.shared.connections.lock().unwrap().drain(..) {
            connection.shutdown(Shutdown::Both).ok();
        }
        // Wakes the listener, which then ends; waits until the port is closed.
        drop(TcpStream::connect(self.address));
        super::wait::until("the relay's end", || TcpStream::connect(self.address).err());
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if !self.shared.cut.load(Ordering::SeqCst) {
            self.cut();
        }
    }
}

/// Serves one `CONNECT host:port`, until either side has had enough.
fn relay(mut client: TcpStream, shared: &Shared) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let target = head.strip_prefix("CONNECT ")?.split(' ').next()?;
    let server = TcpStream::connect(target).ok()?;
    client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").ok()?;
    shared.connections.lock().unwrap().extend([client.try_clone().ok()?, server.try_clone().ok()?]);
    let back = (server.try_clone().ok()?, client.try_clone().ok()?);
    thread::spawn(move || pump(back));
    pump((client, server));
    Some(())
}

fn pump((mut from, mut to): (TcpStream, TcpStream)) {
    io::copy(&mut from, &mut to).ok();
    to.shutdown(Shutdown::Both).ok();
}
