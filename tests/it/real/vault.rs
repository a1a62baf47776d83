//! What survives a kill and a restart on the real cloud, with the real keepers of keys.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};

use linux_keyutils::{Key, KeyRing, KeyRingIdentifier};
use serde_json::Value;

use super::front::Front;
use super::terminal::Terminal;
use super::wait;
use crate::support::sandbox::{KSB, Sandbox};
use crate::support::spawn;

/// The agent of this front keeps a vault.
pub fn keep(front: &Front, wish: &str) {
    fs::write(front.sandbox.paths().config, format!("vault = \"{wish}\"\nfacade_port = 0\n")).unwrap();
}

/// The kernel's key of this front's vault. It goes with the test.
pub struct KernelKey(String);

impl KernelKey {
    pub fn of(front: &Front) -> Self {
        let files = fs::read_dir(front.sandbox.paths().state).unwrap().map(|entry| entry.unwrap().path());
        let mut vaults =
            files.filter(|file| file.extension().is_none() && file.to_str().unwrap().contains("/vault-"));
        let file = vaults.next().unwrap();
        let bytes = fs::read(file).unwrap();
        let line = bytes.split(|byte| *byte == b'\n').nth(1).unwrap();
        let header: Value = serde_json::from_slice(line).unwrap();
        Self(format!("keystone-broker:vault:{}", header["id"].as_str().unwrap()))
    }
}

impl KernelKey {
    fn key(&self) -> Option<Key> {
        KeyRing::from_special_id(KeyRingIdentifier::User, false).unwrap().search(&self.0).ok()
    }

    fn is_gone(&self) -> bool {
        self.key().is_none()
    }
}

impl Drop for KernelKey {
    fn drop(&mut self) {
        if let Some(key) = self.key() {
            key.invalidate().unwrap();
        }
    }
}

/// A desktop's session: a bus of its own, and gnome-keyring on it.
pub struct Desktop {
    bus: Child,
    /// Where clients find its bus.
    pub address: String,
    keyring: Option<Child>,
}

impl Desktop {
    /// Everything that is started in `sandbox` from now on belongs to it.
    pub fn of(sandbox: &mut Sandbox) -> Self {
        let mut bus = sandbox.command("dbus-daemon");
        bus.args(["--session", "--nofork", "--nopidfile", "--print-address=1"]);
        let mut bus = spawn::raw(bus.stdout(Stdio::piped()).stderr(Stdio::null()));
        let mut address = String::new();
        BufReader::new(bus.stdout.take().unwrap()).read_line(&mut address).unwrap();
        let address = address.trim().to_owned();
        sandbox.set("DBUS_SESSION_BUS_ADDRESS", &address);
        Self { bus, address, keyring: None }
    }

    /// The user logs in, which opens their keyring.
    pub fn log_in(&mut self, sandbox: &Sandbox) {
        self.log_out();
        let mut keyring = sandbox.command("gnome-keyring-daemon");
        keyring.args(["--foreground", "--replace", "--unlock", "--components=secrets"]);
        keyring.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut keyring = spawn::raw(&mut keyring);
        keyring.stdin.take().unwrap().write_all(b"their password").unwrap();
        // The one that the bus may have started meanwhile, locked, has to give way.
        let ours = format!("uint32 {}\n", keyring.id());
        self.keyring = Some(keyring);
        wait::until("the keyring", || owner(sandbox).ends_with(&ours).then_some(()));
    }

    /// Their keyring goes. The bus starts another when it is asked for, whose lock nobody opens.
    pub fn log_out(&mut self) {
        if let Some(mut keyring) = self.keyring.take() {
            keyring.kill().unwrap();
            keyring.wait().unwrap();
        }
    }
}

/// Which process answers for the Secret Service.
fn owner(sandbox: &Sandbox) -> String {
    let mut ask = sandbox.command("dbus-send");
    ask.args(["--session", "--print-reply", "--dest=org.freedesktop.DBus", "/"]);
    ask.args(["org.freedesktop.DBus.GetConnectionUnixProcessID", "string:org.freedesktop.secrets"]);
    String::from_utf8(spawn::output(&mut ask).stdout).unwrap()
}

impl Drop for Desktop {
    fn drop(&mut self) {
        self.log_out();
        self.bus.kill().ok();
        self.bus.wait().ok();
    }
}

#[test]
fn the_desktops_keyring_keeps_the_key() {
    let mut front = Front::free();
    keep(&front, "auto");
    let mut desktop = Desktop::of(&mut front.sandbox);
    desktop.log_in(&front.sandbox);
    let handed_out = front.token(&[]);
    let status = front.ksb(&["status"]).ok().stdout;
    assert!(status.contains("its key is kept by your desktop's keyring"), "{status}");

    front.sandbox.kill_agent();
    let next = front.token(&[]);
    assert_eq!(front.browsers_opened(), 1, "a new agent, and nobody was asked");
    assert!(front.keystone.accepts(&handed_out) && front.keystone.accepts(&next));

    // Logged in by SSH, while nobody sits at the desk: said in one sentence, and never without a vault in silence.
    front.ksb(&["agent", "stop"]).ok();
    desktop.log_out();
    let outcome = front.ksb_with(&[("KSB_PROMPT", "never")], &["token"]);
    assert_eq!(outcome.code, Some(75), "{outcome:?}");
    let status = front.ksb(&["status"]).ok().stdout;
    assert!(
        status.contains("is closed: its key is in the desktop's keyring, which cannot be asked"),
        "{status}"
    );
    assert!(status.contains("try: unlock the keyring (log in to the desktop), then: ksb unlock"), "{status}");
    desktop.log_in(&front.sandbox);
    let said = front.ksb(&["unlock"]).ok().stdout;
    assert!(said.contains("its key is kept by your desktop's keyring"), "{said}");
    assert!(front.keystone.accepts(&front.token(&[])));
    assert_eq!(front.browsers_opened(), 1);

    let ended = front.ksb(&["logout"]).ok().stdout;
    assert!(!ended.contains("NOT revoked"), "{ended}");
    assert!(!front.keystone.accepts(&handed_out) && !front.keystone.accepts(&next));
}

#[test]
fn a_passphrase_that_only_the_person_knows_is_asked_for_on_the_terminal() {
    let front = Front::free();
    keep(&front, "kernel");
    let held = front.token(&[]);
    let kernel = KernelKey::of(&front);
    let terminal = |arguments: &str| {
        Terminal::start(&front.sandbox, &format!("{KSB} {arguments}"), &[("KSB_PROMPT", "always")])
    };
    let mut changing = terminal("vault --key passphrase");
    for question in ["New passphrase: ", "Again: "] {
        changing.shows(question);
        changing.types("correct horse\n");
    }
    let (screen, code) = changing.ends();
    assert!(code == Some(0) && screen.contains("its key is kept by your passphrase"), "{screen}");
    assert!(kernel.is_gone(), "the old key opens nothing any more");

    front.sandbox.kill_agent();
    // Nobody is there to be asked.
    let refused = front.ksb_with(&[("KSB_PROMPT", "never")], &["token"]);
    assert_eq!(refused.code, Some(75), "{refused:?}");
    assert!(refused.stderr.contains("sealed with your passphrase. Try: ksb unlock"), "{refused:?}");
    let mut asking = terminal("token");
    for typed in ["battery staple\n", "correct horse\n"] {
        asking.shows("Passphrase: ");
        asking.types(typed);
    }
    let (screen, code) = asking.ends();
    assert_eq!(code, Some(0), "{screen}");
    assert!(screen.contains("that is not the passphrase") && !screen.contains("horse"), "{screen}");
    assert!(front.keystone.accepts(screen.trim().lines().last().unwrap()));
    assert!(front.keystone.accepts(&held));
    assert_eq!(front.browsers_opened(), 1);
}
