//! Notifications: ahead of a session's end, and for a tool that waits; on a session bus of the test's with a real D-Bus daemon.

#![allow(clippy::used_underscore_binding, reason = "zbus's macro passes on what we do not look at")]

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use serde_json::{Value, json};
use zbus::blocking::connection::Builder;
use zbus::object_server::SignalEmitter;
use zbus::zvariant::{OwnedObjectPath, OwnedValue};

use super::bus::Bus;
use super::wait;
use crate::support::browser::Browser;
use crate::support::desk::Desk;
use crate::support::tool::{Tool, token};

/// What shows notifications on a desktop.
struct Shown(Sender<(String, String, String)>);

/// The same, and its user clicks at once.
struct Clicked(Sender<(String, Vec<String>)>);

#[zbus::interface(name = "org.freedesktop.Notifications")]
impl Clicked {
    #[allow(
        clippy::too_many_arguments,
        clippy::needless_pass_by_value,
        reason = "as the specification has it"
    )]
    async fn notify(
        &self,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
        _app: String,
        _replaces: u32,
        _icon: String,
        title: String,
        text: String,
        actions: Vec<String>,
        _hints: HashMap<String, OwnedValue>,
        _expires: i32,
    ) -> u32 {
        self.0.send((format!("{title}\n{text}"), actions)).ok();
        // Somebody clicks on what another program shows, and then on this; before the caller knows its number.
        Self::action_invoked(&emitter, OTHER, "default").await.unwrap();
        Self::action_invoked(&emitter, THIS, "default").await.unwrap();
        THIS
    }

    #[zbus(signal)]
    async fn action_invoked(emitter: &SignalEmitter<'_>, id: u32, action: &str) -> zbus::Result<()>;
}

const OTHER: u32 = 6;
const THIS: u32 = 7;

/// What opens addresses on a desktop.
struct Portal(Sender<String>);

#[zbus::interface(name = "org.freedesktop.portal.OpenURI")]
impl Portal {
    #[zbus(name = "OpenURI")]
    #[allow(clippy::needless_pass_by_value, reason = "as the specification has it")]
    fn open_uri(
        &self,
        _parent: String,
        uri: String,
        _options: HashMap<String, OwnedValue>,
    ) -> OwnedObjectPath {
        self.0.send(uri).ok();
        OwnedObjectPath::try_from("/org/freedesktop/portal/desktop/request/1").unwrap()
    }
}

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

/// A desktop on the bus at this address, and what it shows.
pub fn desktop(address: &str) -> (zbus::blocking::Connection, Receiver<(String, String, String)>) {
    let (send, shown) = channel();
    let connection = Builder::address(address)
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
    let (_connection, shown) = desktop(&bus.address);
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

/// A tool waits at the facade, and no terminal of its user's does: a click is enough.
#[test]
fn a_click_on_what_the_desktop_shows_opens_the_sign_in_that_a_tool_waits_for() {
    let bus = Bus::start();
    let ((tell, told), (open, opened)) = (channel(), channel());
    let _connection = Builder::address(&*bus.address)
        .unwrap()
        .name("org.freedesktop.Notifications")
        .unwrap()
        .name("org.freedesktop.portal.Desktop")
        .unwrap()
        .serve_at("/org/freedesktop/Notifications", Clicked(tell))
        .unwrap()
        .serve_at("/org/freedesktop/portal/desktop", Portal(open))
        .unwrap()
        .build()
        .unwrap();
    let mut desk = Desk::new();
    desk.sandbox.set("DBUS_SESSION_BUS_ADDRESS", &bus.address);
    desk.run(&["agent", "start"]).ok();
    let shown: Value = serde_json::from_str(&desk.run(&["clouds", "show", "--json"]).ok().stdout).unwrap();
    let request = json!({"cloud": shown["cloud"], "scope": shown["scope"], "prompt": true, "name": "backup"});
    let tool = Tool::of(&desk.api().post("/v1/leases", &request));
    let asking = thread::spawn(move || tool.ask());

    let (text, actions) = told.recv_timeout(wait::LIMIT).unwrap();
    assert!(text.starts_with("demo: sign in, a tool waits\n") && text.contains("backup"), "{text}");
    assert_eq!(actions, ["default", "Sign in"]);
    let url = opened.recv_timeout(wait::LIMIT).unwrap();
    assert!(opened.try_recv().is_err(), "once");
    assert!(
        !text.contains(&url),
        "a notification stays on the screen, and its address is a secret of the person's"
    );
    assert_eq!(Browser::of("alice").tab().sign_in(&url).state, "done");
    let id = token(&asking.join().unwrap());
    assert!(desk.keystone.accepts(&id) && !text.contains(&id));
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
