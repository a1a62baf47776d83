//! Ports for listeners that must have a number before they are there, or again after a restart.

use std::fs::{self, File, OpenOptions};
use std::net::TcpStream;
use std::sync::{Mutex, PoisonError};

use keystone_broker::platform::tcp_owner::LOOPBACK;

/// Below the ports that the system gives out by itself.
const FIRST: u16 = 20_000;
const BLOCK: u16 = 100;
const BLOCKS: u16 = 100;

/// Ports that no other test's process is given, for as long as this one lives.
struct Block {
    _lock: File,
    next: u16,
    end: u16,
}

static OURS: Mutex<Vec<Block>> = Mutex::new(Vec::new());

/// A port where nobody listens just now, and which no other test is given.
pub fn free() -> u16 {
    let mut ours = OURS.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if ours.last().is_none_or(|block| block.next == block.end) {
            ours.push(Block::take());
        }
        let block = ours.last_mut().unwrap();
        block.next += 1;
        let port = block.next - 1;
        if LOOPBACK.iter().all(|ip| TcpStream::connect((*ip, port)).is_err()) {
            return port;
        }
    }
}

impl Block {
    fn take() -> Self {
        let folder = std::env::temp_dir().join("ksb-test-ports");
        fs::create_dir_all(&folder).unwrap();
        for number in 0..BLOCKS {
            let file = folder.join(number.to_string());
            let lock = OpenOptions::new().create(true).append(true).open(file).unwrap();
            if lock.try_lock().is_ok() {
                let next = FIRST + number * BLOCK;
                return Self { _lock: lock, next, end: next + BLOCK };
            }
        }
        panic!("every port is taken");
    }
}
