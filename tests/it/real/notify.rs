//! The notification ahead of a session's end, on a session bus of the test's with a real D-Bus daemon.

#![allow(clippy::used_underscore_binding, reason = "zbus's macro passes on what we do not look at")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};

use zbus::blocking::connection::Builder;
use zbus::zvariant::OwnedValue;

use super::wait;
use crate::support::desk::Desk;

/// A bus; ends when dropped.
struct Bus {
    daemon: Child,
    address: String,
}

impl Bus {
    fn start() -> Self {
        let mut daemon = Command::new("dbus-daemon");
        daemon.args(["--session", "--nofork", "--nopidfile", "--print-address"]);
        let mut daemon = daemon.stdout(Stdio::piped()).spawn().unwrap();
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

/// What shows notifications on a desktop.
struct Shown(Sender<(String, String, String)>);

#[zbus::interface(name = "org.freedesktop.Notifications")]
impl Shown {
    #[allow(
        clippy::too_many_arguments,
        clippy::needless_pass_by_value,
        reason = "as the specification has it"
    )]
    fn notify(
        &self,
        app: String,
        _replaces: u32,
        _icon: String,
        title: String,
        text: String,
        _actions: Vec<String>,
        _hints: HashMap<String, OwnedValue>,
        _expires: i32,
    ) -> u32 {
        self.0.send((app, title, text)).ok();
        1
    }
}

fn desktop(bus: &Bus) -> (zbus::blocking::Connection, Receiver<(String, String, String)>) {
    let (send, shown) = channel();
    let connection = Builder::address(&*bus.address)
        .unwrap()
        .name("org.freedesktop.Notifications")
        .unwrap()
        .serve_at("/org/freedesktop/Notifications", Shown(send))
        .unwrap()
        .build()
        .unwrap();
    (connection, shown)
}

#[test]
fn the_desktop_says_that_a_sign_in_ends_soon() {
    let bus = Bus::start();
    let (_connection, shown) = desktop(&bus);
    let mut desk = Desk::new();
    desk.keystone.lifetime(8);
    desk.sandbox.set("DBUS_SESSION_BUS_ADDRESS", &bus.address);
    desk.run_and_sign_in(&["login"], "alice").ok();
    let (app, title, text) = shown.recv_timeout(wait::LIMIT).unwrap();
    assert_eq!(app, "keystone-broker");
    assert!(title.starts_with("demo: your sign-in ends in "), "{title}");
    assert_eq!(text, "Sign in again: ksb login demo");
    let status = desk.run(&["status"]).ok().stdout;
    assert!(status.contains("; sign in again: ksb login demo"), "{status}");
    for secret in desk.keystone.all_tokens() {
        assert!(!title.contains(&secret) && !text.contains(&secret));
    }
}

#[test]
fn without_a_desktop_nothing_is_missed() {
    // No bus at all; a bus that is gone; one on which nobody shows anything.
    let gone = Bus::start().address.clone();
    let silent = Bus::start();
    for address in ["", &gone, &silent.address] {
        let mut desk = Desk::new();
        desk.keystone.lifetime(8);
        desk.sandbox.set("KSB_LOG", "debug").set("DBUS_SESSION_BUS_ADDRESS", address);
        desk.run_and_sign_in(&["login"], "alice").ok();
        wait::until("the attempt", || desk.sandbox.agent_log().contains("no notification").then_some(()));
        assert!(desk.run(&["status"]).ok().stdout.contains("alice"));
    }
}
