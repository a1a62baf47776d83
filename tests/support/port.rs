//! Ports for listeners that must have a number before they are there.

use std::net::TcpStream;
use std::sync::atomic::{AtomicU16, Ordering};

use keystone_broker::platform::peer::LOOPBACK;

/// A port below the ones that the system gives out by itself, where nobody listens just now, and which
/// nobody else in this process is given.
pub fn free() -> u16 {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 10_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Another test process at the same moment starts elsewhere.
    let start = u16::try_from(std::process::id() * 101 % u32::from(COUNT)).unwrap();
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (start + step % COUNT) % COUNT;
        if LOOPBACK.iter().all(|ip| TcpStream::connect((*ip, port)).is_err()) {
            return port;
        }
    }
}
