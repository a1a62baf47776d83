//! A D-Bus of the test's own, by the real daemon.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::support::spawn;

/// A bus; ends when dropped.
pub struct Bus {
    daemon: Child,
    /// Where clients find it.
    pub address: String,
}

impl Bus {
    /// One that is ready.
    pub fn start() -> Self {
        let mut daemon = Command::new("dbus-daemon");
        daemon.args(["--session", "--nofork", "--nopidfile", "--print-address"]);
        let mut daemon = spawn::raw(daemon.stdout(Stdio::piped()));
        let mut address = String::new();
        BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Self { daemon, address: address.trim().to_owned() }
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.daemon.kill().ok();
        self.daemon.wait().ok();
    }
}
