//! Locked with the screen and before sleep: a logind of the test's on a private system bus, with a real D-Bus daemon.

#![allow(clippy::used_underscore_binding, reason = "zbus's macro passes on what we do not look at")]

use std::fs;
use std::io::Read;
use std::sync::mpsc::{Receiver, Sender, channel};

use serde_json::{Value, json};
use zbus::blocking::Connection;
use zbus::blocking::connection::Builder;
use zbus::object_server::SignalEmitter;
use zbus::zvariant::{OwnedFd, OwnedObjectPath};

use super::bus::Bus;
use super::wait;
use crate::support::desk::Desk;
use crate::support::memory;
use crate::support::skip::{is_root, skip};

const PASSPHRASE: &str = "correct horse battery";
const MANAGER: &str = "/org/freedesktop/login1";
const OURS: &str = "/org/freedesktop/login1/session/_31";
const THEIRS: &str = "/org/freedesktop/login1/session/_32";

/// Gives out inhibitors, whose ends the test sees.
struct Manager(Sender<(String, fs::File)>);

#[zbus::interface(name = "org.freedesktop.login1.Manager")]
impl Manager {
    #[allow(clippy::needless_pass_by_value, reason = "as the specification has it")]
    fn inhibit(&self, what: String, _who: String, _why: String, mode: String) -> OwnedFd {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        self.0.send((format!("{what} {mode}"), fs::File::from(reader))).ok();
        writer.into()
    }

    #[allow(clippy::unused_self, reason = "zbus wants it")]
    fn list_sessions(&self) -> Vec<(String, u32, String, String, OwnedObjectPath)> {
        let uid = rustix::process::getuid().as_raw();
        let session = |path, uid| {
            (String::new(), uid, String::new(), "seat0".into(), OwnedObjectPath::try_from(path).unwrap())
        };
        vec![session(THEIRS, uid + 1), session(OURS, uid)]
    }

    #[zbus(signal)]
    async fn prepare_for_sleep(emitter: &SignalEmitter<'_>, start: bool) -> zbus::Result<()>;
}

/// A session of a user's.
struct Session {
    uid: u32,
    locked: bool,
}

#[zbus::interface(name = "org.freedesktop.login1.Session")]
impl Session {
    #[zbus(property)]
    fn user(&self) -> (u32, OwnedObjectPath) {
        (self.uid, OwnedObjectPath::try_from("/org/freedesktop/login1/user/_0").unwrap())
    }

    #[zbus(property)]
    fn locked_hint(&self) -> bool {
        self.locked
    }

    #[zbus(property)]
    fn set_locked_hint(&mut self, locked: bool) {
        self.locked = locked;
    }

    #[zbus(signal)]
    async fn lock(emitter: &SignalEmitter<'_>) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn unlock(emitter: &SignalEmitter<'_>) -> zbus::Result<()>;
}

/// Sends a signal.
fn says(what: impl Future<Output = zbus::Result<()>>) {
    zbus::block_on(what).unwrap();
}

/// A logind with a session of ours and one of another user's, and the inhibitors that it gives out.
pub fn logind(bus: &Bus) -> (Connection, Receiver<(String, fs::File)>) {
    let uid = rustix::process::getuid().as_raw();
    let (tell, inhibitors) = channel();
    let logind = Builder::address(&*bus.address)
        .unwrap()
        .name("org.freedesktop.login1")
        .unwrap()
        .serve_at(MANAGER, Manager(tell))
        .unwrap()
        .serve_at(OURS, Session { uid, locked: false })
        .unwrap()
        .serve_at(THEIRS, Session { uid: uid + 1, locked: false })
        .unwrap()
        .build()
        .unwrap();
    (logind, inhibitors)
}

/// The seat of a desk at which somebody is signed in.
struct Seat {
    desk: Desk,
    logind: Connection,
    inhibitors: Receiver<(String, fs::File)>,
    _bus: Bus,
}

impl Seat {
    fn new(config: &str, key: &Value) -> Self {
        let bus = Bus::start();
        let (logind, inhibitors) = logind(&bus);
        let mut desk = Desk::new().with_refresh_tokens();
        desk.sandbox.set("DBUS_SYSTEM_BUS_ADDRESS", &bus.address);
        let config = format!("vault = \"passphrase\"\nfacade_port = 0\n[lock]\n{config}");
        fs::write(desk.sandbox.paths().config, config).unwrap();
        desk.run_and_sign_in(&["login"], "alice").ok();
        desk.api().post("/v1/vault/key", key);
        Self { desk, logind, inhibitors, _bus: bus }
    }

    fn emitter(&self, path: &'static str) -> SignalEmitter<'static> {
        SignalEmitter::new(self.logind.inner(), path).unwrap().to_owned()
    }

    fn hint(&self, path: &str, locked: bool) {
        says(async {
            let session = self.logind.inner().object_server().interface::<_, Session>(path).await?;
            let mut state = session.get_mut().await;
            state.locked = locked;
            state.locked_hint_changed(session.signal_emitter()).await
        });
    }

    /// An agent looks at the seat: each process delays sleep once it does.
    #[track_caller]
    fn is_watched(&self) -> (String, fs::File) {
        self.inhibitors.recv_timeout(wait::LIMIT).unwrap()
    }

    /// The reason why it is locked, as soon as it is that one.
    #[track_caller]
    fn is_locked(&self, reason: &Value) {
        wait::until("the lock", || (self.desk.api().status()["locked"]["reason"] == *reason).then_some(()));
    }
}

#[test]
fn the_agent_is_locked_with_the_screen_and_opens_with_it_when_nobody_has_to_type() {
    let seat = Seat::new("on_screen_lock = true\n", &json!({"key": "kernel"}));
    seat.is_watched();
    // A screen of another user's is none of ours; what comes after it on the bus shows that it was seen.
    says(Session::lock(&seat.emitter(THEIRS)));
    seat.hint(THEIRS, true);
    assert_eq!(seat.desk.api().status()["locked"], Value::Null);
    for _ in 0..2 {
        seat.hint(OURS, true);
        seat.is_locked(&json!("screen"));
        assert_eq!(seat.desk.run(&["token"]).code, Some(75));
        seat.is_watched();
        seat.hint(OURS, false);
        seat.is_locked(&Value::Null);
        seat.desk.run(&["token"]).ok();
    }
    // One that starts behind a locked screen is locked as well, if it knows anything.
    seat.desk.run(&["agent", "stop"]).ok();
    seat.hint(OURS, true);
    seat.desk.run(&["agent", "start"]).ok();
    seat.is_locked(&json!("screen"));
    // The one that knew something, and the one in its place.
    seat.is_watched();
    seat.is_watched();
    seat.hint(OURS, false);
    seat.is_locked(&Value::Null);
    // `loginctl lock-session`, and what a user locked stays so.
    says(Session::lock(&seat.emitter(OURS)));
    seat.is_locked(&json!("screen"));
    seat.is_watched();
    seat.desk.run(&["lock"]).ok();
    says(Session::unlock(&seat.emitter(OURS)));
    assert_eq!(seat.desk.run(&["token"]).code, Some(75));
    seat.desk.run(&["unlock"]).ok();
    assert!(seat.desk.keystone.accepts(seat.desk.run(&["token"]).ok().stdout.trim()));
    seat.desk.api().post("/v1/vault/key", &json!({"key": "passphrase", "passphrase": PASSPHRASE}));
}

#[test]
fn the_computer_sleeps_when_another_process_has_taken_over_and_wakes_up_locked() {
    let seat = Seat::new("on_sleep = true\n", &json!({"key": "passphrase", "passphrase": PASSPHRASE}));
    let started_at = seat.desk.api().status()["started_at"].clone();
    let (what, mut inhibitor) = seat.is_watched();
    assert_eq!(what, "sleep delay");
    // The screen is not what this one wishes to heed.
    seat.hint(OURS, true);
    assert_eq!(seat.desk.api().status()["locked"], Value::Null);

    says(Manager::prepare_for_sleep(&seat.emitter(MANAGER), true));
    // It ends with the process's old memory: only then may the computer sleep.
    inhibitor.read_to_end(&mut Vec::new()).unwrap();
    assert_ne!(seat.desk.api().status()["started_at"], started_at);
    says(Manager::prepare_for_sleep(&seat.emitter(MANAGER), false));
    seat.is_locked(&json!("sleep"));
    assert_eq!(seat.desk.run(&["token"]).code, Some(75));
    // Unlocking the screen does not type the passphrase.
    seat.hint(OURS, false);
    seat.is_locked(&json!("sleep"));
    assert_eq!(seat.desk.api().post("/v1/unlock", &json!({"passphrase": PASSPHRASE})).json["state"], "open");
    assert!(seat.desk.keystone.accepts(seat.desk.run(&["token"]).ok().stdout.trim()));
    // The next sleep is delayed as well.
    seat.is_watched();
}

#[test]
fn the_computer_sleeps_when_memory_is_forgotten() {
    if !is_root() {
        skip!("root, to read the agent's memory");
    }
    let seat = Seat::new("on_sleep = true\n", &json!({"key": "passphrase", "passphrase": PASSPHRASE}));
    let token = seat.desk.run(&["token"]).ok().stdout.trim().to_owned();
    let refreshes = seat.desk.keystone.refresh_token();
    let pid = seat.desk.sandbox.agent_pid().unwrap();
    memory::assert_holds(pid, &[&token, &refreshes], true);
    let (_what, mut inhibitor) = seat.is_watched();
    says(Manager::prepare_for_sleep(&seat.emitter(MANAGER), true));
    inhibitor.read_to_end(&mut Vec::new()).unwrap();
    memory::assert_holds(pid, &[&token, &refreshes, PASSPHRASE], false);
}
