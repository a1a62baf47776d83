//! The helper that asks the desktop's keyring for the agent: at a real gnome-keyring, and at a bus that never answers.

#![allow(clippy::used_underscore_binding, reason = "zbus's macro passes on what we do not look at")]

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::{self, Read};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use rustix::net::sockopt::socket_peercred;
use serde_json::Value;
use zbus::blocking::Connection;
use zbus::blocking::connection::Builder;
use zbus::message::Header;
use zbus::object_server::ResponseDispatchNotifier;
use zbus::zvariant::{ObjectPath, OwnedObjectPath, OwnedValue};

use super::bus::Bus;
use super::vault::Desktop;
use super::wait;
use super::{notify, seat};
use crate::support::desk::Desk;
use crate::support::sandbox::{end_of, within};
use crate::support::spawn;

/// A desk whose vault's key is kept by the desktop's keyring or not at all.
fn desk() -> Desk {
    let mut desk = Desk::new();
    configure(&desk, "vault = \"keyring\"\nfacade_port = 0\n");
    desk.sandbox.set("KSB_LOG", "debug");
    desk
}

fn configure(desk: &Desk, toml: &str) {
    fs::write(desk.sandbox.paths().config, toml).unwrap();
}

/// What the agent says of its vault, to a user.
fn status(desk: &Desk) -> String {
    desk.run(&["status"]).ok().stdout
}

fn unprompted_token(desk: &Desk) -> Option<i32> {
    let mut token = desk.sandbox.ksb(&["token"]);
    end_of(spawn::start(token.env("KSB_PROMPT", "never"))).code
}

/// A process as the kernel shows it.
struct Process(u32);

impl Process {
    fn file(&self, name: &str) -> PathBuf {
        Path::new(&format!("/proc/{}", self.0)).join(name)
    }

    fn is_gone(&self) -> bool {
        !self.file("").exists()
    }

    /// Whether it has ended: who has to wait for an orphan may not have done so.
    fn has_ended(&self) -> bool {
        self.stat().is_none_or(|[state, _]| state == "Z")
    }

    fn parent(&self) -> Option<u32> {
        self.stat()?[1].parse().ok()
    }

    /// State and parent. The field before them, in parentheses, may hold anything.
    fn stat(&self) -> Option<[String; 2]> {
        let stat = fs::read_to_string(self.file("stat")).ok()?;
        let mut fields = stat.rsplit(')').next()?.split_ascii_whitespace().map(str::to_owned);
        Some([fields.next()?, fields.next()?])
    }

    fn arguments(&self) -> Vec<String> {
        fs::read_to_string(self.file("cmdline")).unwrap().split_terminator('\0').map(str::to_owned).collect()
    }

    fn environment(&self) -> Option<BTreeSet<String>> {
        let bytes = unless_hidden(fs::read_to_string(self.file("environ")))?;
        Some(bytes.split_terminator('\0').map(str::to_owned).collect())
    }

    /// What its descriptors are open on: sockets and pipes by number, files by path.
    fn open(&self) -> Option<BTreeSet<PathBuf>> {
        let descriptors = unless_hidden(fs::read_dir(self.file("fd")))?;
        Some(descriptors.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok()).collect())
    }

    fn threads(&self) -> Vec<String> {
        let names = fs::read_dir(self.file("task")).unwrap().map(|entry| entry.unwrap().path().join("comm"));
        let mut names: Vec<_> = names.filter_map(|file| fs::read_to_string(file).ok()).collect();
        names.sort();
        names
    }

    /// The one child that it has, as soon as it has one.
    fn child(&self) -> Process {
        let all = || {
            fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        };
        let children = move || all().filter_map(|pid| pid.parse().ok()).map(Process);
        wait::until("a child", || children().find(|process| process.parent() == Some(self.0)))
    }
}

/// What only root may read of an agent and its helper: that others are refused is as good as what root sees.
fn unless_hidden<T>(read: io::Result<T>) -> Option<T> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            assert!(!rustix::process::geteuid().is_root());
            None
        }
        read => Some(read.unwrap()),
    }
}

fn agent(desk: &Desk) -> Process {
    Process(desk.sandbox.agent_pid().unwrap())
}

/// A bus that accepts and never answers.
struct SilentBus(UnixListener);

impl SilentBus {
    fn of(desk: &mut Desk) -> Self {
        let path = desk.sandbox.path("bus");
        desk.sandbox.set("DBUS_SESSION_BUS_ADDRESS", format!("unix:path={}", path.display()));
        Self(UnixListener::bind(path).unwrap())
    }

    /// The next connection, and the process that made it.
    fn caller(&self) -> (UnixStream, Process) {
        let listener = self.0.try_clone().unwrap();
        let (connection, _) = within(move || listener.accept().unwrap());
        let pid = socket_peercred(&connection).unwrap().pid.as_raw_nonzero().get();
        (connection, Process(pid.try_into().unwrap()))
    }
}

/// Asks for a keyring's password in the place of gcr-prompter, and its user says no, or nothing at all.
struct Prompter {
    events: Sender<Prompt>,
    says_no: bool,
}

/// What happens to the question on the screen.
#[derive(Debug, PartialEq, Eq)]
enum Prompt {
    Shown,
    TakenAway,
}

#[zbus::interface(name = "org.gnome.keyring.internal.Prompter")]
impl Prompter {
    #[allow(clippy::unused_async, reason = "its task needs zbus's runtime")]
    async fn begin_prompting(
        &self,
        callback: OwnedObjectPath,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] bus: &zbus::Connection,
    ) -> ResponseDispatchNotifier<()> {
        tell(bus, &header, callback, "PromptReady", user_did(""))
    }

    #[allow(clippy::unused_async, reason = "its task needs zbus's runtime")]
    async fn perform_prompt(
        &self,
        callback: OwnedObjectPath,
        _kind: String,
        _properties: HashMap<String, OwnedValue>,
        _exchange: String,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] bus: &zbus::Connection,
    ) -> ResponseDispatchNotifier<()> {
        self.events.send(Prompt::Shown).ok();
        if self.says_no {
            return tell(bus, &header, callback, "PromptReady", user_did("no"));
        }
        ResponseDispatchNotifier::new(()).0
    }

    #[allow(clippy::unused_async, reason = "its task needs zbus's runtime")]
    async fn stop_prompting(
        &self,
        callback: OwnedObjectPath,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] bus: &zbus::Connection,
    ) -> ResponseDispatchNotifier<()> {
        self.events.send(Prompt::TakenAway).ok();
        tell(bus, &header, callback, "PromptDone", ())
    }
}

fn user_did(what: &str) -> (&str, HashMap<String, OwnedValue>, &str) {
    (what, HashMap::new(), "")
}

/// Calls the keyring back, once it has the reply to its call.
fn tell<Body: serde::Serialize + zbus::zvariant::DynamicType + Send + Sync + 'static>(
    bus: &zbus::Connection,
    header: &Header<'_>,
    callback: OwnedObjectPath,
    method: &'static str,
    body: Body,
) -> ResponseDispatchNotifier<()> {
    const CALLBACK: &str = "org.gnome.keyring.internal.Prompter.Callback";
    let (reply, sent) = ResponseDispatchNotifier::new(());
    let (telling, keyring) = (bus.clone(), header.sender().unwrap().to_owned());
    let tell = async move {
        sent.await;
        telling.call_method(Some(keyring), callback, Some(CALLBACK), method, &body).await.ok();
    };
    bus.executor().spawn(tell, "prompt").detach();
    reply
}

/// Locks what is kept in the keyring; who then wants it is asked for by a prompter.
fn lock(desktop: &Desktop, says_no: bool) -> (Connection, Receiver<Prompt>) {
    let (events, prompts) = channel();
    let bus = Builder::address(&*desktop.address)
        .unwrap()
        .name("org.gnome.keyring.SystemPrompter")
        .unwrap()
        .serve_at("/org/gnome/keyring/Prompter", Prompter { events, says_no })
        .unwrap()
        .build()
        .unwrap();
    let all = [ObjectPath::try_from("/org/freedesktop/secrets/aliases/default").unwrap()];
    let service = (Some("org.freedesktop.secrets"), Some("org.freedesktop.Secret.Service"));
    let answer = bus.call_method(service.0, "/org/freedesktop/secrets", service.1, "Lock", &(&all[..],));
    let (locked, _): (Vec<OwnedObjectPath>, OwnedObjectPath) = answer.unwrap().body().deserialize().unwrap();
    assert_eq!(locked.len(), 1);
    (bus, prompts)
}

fn is_shown(prompts: &Receiver<Prompt>) {
    while prompts.recv_timeout(wait::LIMIT).unwrap() != Prompt::Shown {}
}

#[test]
fn a_keyring_that_is_locked_is_asked_for_and_a_no_leaves_the_vault_closed() {
    let mut desk = desk();
    let mut desktop = Desktop::of(&mut desk.sandbox);
    desktop.log_in(&desk.sandbox);
    desk.run_and_sign_in(&["login"], "alice").ok();
    assert!(status(&desk).contains("its key is kept by your desktop's keyring"), "{}", status(&desk));
    let first = agent(&desk);
    desk.sandbox.kill_agent();
    assert_eq!(unprompted_token(&desk), Some(0), "the next agent reads the key");
    assert_ne!(agent(&desk).0, first.0);

    desk.run(&["agent", "stop"]).ok();
    let (_bus, prompts) = lock(&desktop, true);
    assert_eq!(unprompted_token(&desk), Some(75));
    is_shown(&prompts);
    wait::until("the user's no", || {
        let closed = "is closed: its key is in the desktop's keyring, which cannot be asked: it is locked";
        status(&desk).contains(closed).then_some(())
    });
    let refused = desk.run(&["unlock"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("it is locked. Try: "), "{refused:?}");
    is_shown(&prompts);

    desktop.log_in(&desk.sandbox);
    desk.run(&["unlock"]).ok();
    assert_eq!(unprompted_token(&desk), Some(0));
    assert_eq!(desk.keystone.logins(), 1);

    // Its key is deleted with the vault that it opened.
    let items = || {
        let mut search = desk.sandbox.command("dbus-send");
        search.args([
            "--session",
            "--print-reply",
            "--dest=org.freedesktop.secrets",
            "/org/freedesktop/secrets",
        ]);
        search.args([
            "org.freedesktop.Secret.Service.SearchItems",
            "dict:string:string:service,keystone-broker",
        ]);
        let found = String::from_utf8(spawn::output(&mut search).stdout).unwrap();
        found.matches("/collection/").count()
    };
    assert_eq!(items(), 1);
    desk.run(&["vault", "--key", "kernel"]).ok();
    assert_eq!(items(), 0);
    desk.run(&["vault", "--key", "keyring"]).ok();
    assert_eq!(items(), 1);
}

#[test]
fn the_helper_ends_with_the_agent_that_it_asks_for() {
    let mut desk = desk();
    let mut desktop = Desktop::of(&mut desk.sandbox);
    desktop.log_in(&desk.sandbox);
    desk.run_and_sign_in(&["login"], "alice").ok();
    desk.run(&["agent", "stop"]).ok();
    let (_bus, prompts) = lock(&desktop, false);
    // The agent answers, while its user is asked for the keyring's password.
    desk.run(&["agent", "start"]).ok();
    assert!(status(&desk).contains("is closed"), "{}", status(&desk));
    is_shown(&prompts);
    let helper = agent(&desk).child();
    let pid = agent(&desk).0;
    desk.run(&["lock"]).ok();
    // The fresh process in the agent's place does not know it: nothing of it may be left, not even its exit status.
    wait::until("the helper's end", || helper.is_gone().then_some(()));
    assert_eq!(agent(&desk).0, pid);

    desk.run(&["agent", "stop"]).ok();
    let bus = SilentBus::of(&mut desk);
    let mut asking = desk.sandbox.start(&["unlock"]);
    let (_connection, helper) = bus.caller();
    desk.sandbox.kill_agent();
    wait::until("the helper's end", || helper.has_ended().then_some(()));
    // It would start the next agent, and ask that one.
    asking.kill().unwrap();
    asking.wait().unwrap();
}

#[test]
fn a_bus_that_never_answers_costs_some_seconds_and_leaves_no_process() {
    let mut desk = desk();
    let bus = SilentBus::of(&mut desk);
    thread::scope(|scope| {
        let signing_in = scope.spawn(|| desk.run_and_sign_in(&["login"], "alice").ok());
        // It has the key that it is to store.
        let (mut connection, helper) = bus.caller();
        let agent = agent(&desk);
        assert_eq!(helper.parent(), Some(agent.0));
        assert_eq!(helper.arguments(), ["ksb", "agent", "--keyring-helper"]);
        // As old as the agent, and so older than the key.
        assert_eq!(helper.environment(), agent.environment());
        if let (Some(helper), Some(agent)) = (helper.open(), agent.open()) {
            let log = desk.sandbox.paths().agent_log();
            let shared: Vec<_> = helper.intersection(&agent).filter(|open| !is_anonymous(open)).collect();
            assert_eq!(shared, [Path::new("/dev/null"), &log]);
        }
        let limits = fs::read_to_string(helper.file("limits")).unwrap();
        let cores = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
        assert!(cores.trim_start().starts_with("0 "), "{cores}");
        assert!(fs::read_to_string(helper.file("status")).unwrap().contains("NoNewPrivs:\t1\n"));

        signing_in.join().unwrap();
        // Its end closes the connection.
        within(move || connection.read_to_end(&mut Vec::new()).unwrap());
        wait::until("the helper's end", || helper.is_gone().then_some(()));
    });
    let status = status(&desk);
    let why = "the desktop's keyring cannot be used: it did not answer within 15 s; is it locked?";
    assert!(status.contains("vault: none") && status.contains(why), "{status}");
    assert_eq!(unprompted_token(&desk), Some(0));
}

/// Such as `anon_inode:[eventpoll]`: each process has its own by the same name.
fn is_anonymous(open: &Path) -> bool {
    open.to_str().unwrap().starts_with("anon_inode:")
}

/// A sign-in that ends soon, said on the desktop, and a vault whose key the keyring was to keep, beside a seat that is
/// watched: with a bus for all of it, and without any.
#[test]
fn keyring_notifications_and_logind_leave_no_thread_in_the_agent() {
    let plain = Desk::new();
    plain.run_and_sign_in(&["login"], "alice").ok();
    let leaves_nothing = |desk: &Desk| {
        wait::until("an agent with the threads of one that used nothing", || {
            (agent(desk).threads() == agent(&plain).threads()).then_some(())
        });
    };
    let desk = |session: &str, system: &str| {
        let mut desk = desk();
        desk.keystone.lifetime(8);
        desk.sandbox.set("DBUS_SESSION_BUS_ADDRESS", session).set("DBUS_SYSTEM_BUS_ADDRESS", system);
        configure(&desk, "vault = \"keyring\"\nfacade_port = 0\n[lock]\non_sleep = true\n");
        desk
    };

    let mut home = desk("", "");
    let mut desktop = Desktop::of(&mut home.sandbox);
    desktop.log_in(&home.sandbox);
    let system = Bus::start();
    home.sandbox.set("DBUS_SYSTEM_BUS_ADDRESS", &system.address);
    let (_logind, inhibitors) = seat::logind(&system);
    let (_notifications, shown) = notify::desktop(&desktop.address);
    home.run_and_sign_in(&["login"], "alice").ok();
    inhibitors.recv_timeout(wait::LIMIT).unwrap();
    shown.recv_timeout(wait::LIMIT).unwrap();
    let vault = |desk: &Desk| -> Value { desk.api().status()["vault"].clone() };
    assert_eq!(vault(&home)["key"], "keyring");
    leaves_nothing(&home);

    let nowhere = "unix:path=/nowhere/bus";
    let alone = desk(nowhere, nowhere);
    alone.run_and_sign_in(&["login"], "alice").ok();
    for tried in ["no notification", "there is no logind"] {
        wait::until(tried, || alone.sandbox.agent_log().contains(tried).then_some(()));
    }
    let reason = vault(&alone)["reason"].to_string();
    assert!(
        reason.contains("the desktop's keyring cannot be used: there is none in this session"),
        "{reason}"
    );
    leaves_nothing(&alone);
}
