//! A proxy that is in the way: whatever is asked of it, it says the same.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// The proxy; nobody listens any more when it is dropped.
pub struct Proxy {
    address: SocketAddr,
    gone: Arc<AtomicBool>,
}

impl Proxy {
    /// One that answers every request with this status line and page.
    pub fn that_says(status: &'static str, page: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, gone) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let ended = gone.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let mut client = client.unwrap();
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && client.read(&mut byte).is_ok_and(|read| read == 1) {
                    head.push(byte[0]);
                }
                let length = page.len();
                let head =
                    format!("HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {length}");
                write!(client, "{head}\r\nConnection: close\r\n\r\n{page}").ok();
            }
        });
        Self { address, gone }
    }

    /// What goes into `https_proxy`, with a password that nobody should see again.
    pub fn url(&self) -> String {
        format!("http://me:canary@{}", self.address)
    }

    /// Host and port.
    pub fn address(&self) -> String {
        self.address.to_string()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
    }
}
