//! The agent as a service of a real systemd user instance.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use super::wait;
use crate::support::desk::Desk;
use crate::support::port;
use crate::support::sandbox::{KSB, Outcome, end_of};
use crate::support::skip::{is_root, skip};
use crate::support::spawn;

const PASSPHRASE: &str = "correct horse battery";

/// A desk whose user has a systemd instance; it ends when dropped.
struct Host {
    desk: Desk,
    manager: Child,
}

impl Host {
    fn boot() -> Self {
        let desk = Desk::new();
        let config = format!("vault = \"passphrase\"\nfacade_port = {}\n", port::free());
        fs::write(desk.sandbox.paths().config, config).unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stack/user-systemd");
        let mut manager = desk.sandbox.command("unshare");
        manager.args(["--mount", "--fork", "--kill-child", script]);
        manager.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut manager = spawn::raw(&mut manager);
        let mut line = String::new();
        BufReader::new(manager.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line != "ready\n" {
            let said = std::io::read_to_string(manager.stderr.take().unwrap()).unwrap();
            panic!(
                "this machine lets us start no systemd user instance (root, and cgroup v2 are needed): {said}"
            );
        }
        // Its log is nobody's to read; a full pipe would stop it.
        let mut log = manager.stderr.take().unwrap();
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { desk, manager }
    }

    /// Runs a program where systemd is seen.
    fn run(&self, program: &str, args: &[&str]) -> Outcome {
        // `unshare --fork` waits outside for the script, which is in the namespace.
        let children = format!("/proc/{0}/task/{0}/children", self.manager.id());
        let script = fs::read_to_string(children).unwrap();
        let mut command = self.desk.sandbox.command("nsenter");
        command.args(["--mount", "--target", script.trim(), "--wd=/", program]).args(args);
        end_of(spawn::start(&mut command))
    }

    fn ksb(&self, args: &[&str]) -> Outcome {
        self.run(KSB, args)
    }

    fn state(&self, unit: &str) -> String {
        self.run("systemctl", &["--user", "is-active", unit]).stdout.trim().to_owned()
    }

    fn main_pid(&self) -> u32 {
        let shown = self.run("systemctl", &["--user", "show", "--value", "--property=MainPID", SERVICE]);
        shown.ok().stdout.trim().parse().unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.manager.stdin.take());
        self.manager.wait().unwrap();
    }
}

const SERVICE: &str = "keystone-broker.service";
const SOCKET: &str = "keystone-broker.socket";

#[test]
fn systemd_starts_it_when_somebody_comes_and_sees_one_service_through_all_of_its_life() {
    if !is_root() {
        skip!("root, to start a systemd user instance beside the machine's own");
    }
    let host = Host::boot();
    let desk = &host.desk;
    assert!(host.ksb(&["service", "status"]).ok().stdout.starts_with("not installed: "));
    let installed = host.ksb(&["service", "install"]).ok().stdout;
    assert!(
        installed.contains("keystone-broker.socket\nsystemd starts the agent whenever a tool wants it."),
        "{installed}"
    );
    assert!(installed.contains("loginctl enable-linger"), "{installed}");
    assert_eq!((&*host.state(SOCKET), &*host.state(SERVICE)), ("active", "inactive"));

    // Somebody comes, and signs in.
    desk.run_and_sign_in(&["login"], "alice").ok();
    let pid = host.main_pid();
    let status = desk.api().status();
    let port = desk.sandbox.paths().config;
    let port = fs::read_to_string(port).unwrap().split_once("facade_port = ").unwrap().1.trim().to_owned();
    assert_eq!(
        (&status["pid"], &status["facade"]["url"]),
        (&json!(pid), &json!(format!("http://127.0.0.1:{port}/v3")))
    );
    desk.api().post("/v1/vault/key", &json!({"key": "passphrase", "passphrase": PASSPHRASE}));

    // Locked and unlocked it is the same service for systemd.
    desk.run(&["lock"]).ok();
    assert_eq!((host.main_pid(), &*host.state(SERVICE)), (pid, "active"));
    let open = || desk.api().post("/v1/unlock", &json!({"passphrase": PASSPHRASE})).json["state"].clone();
    assert_eq!(open(), "open");
    desk.run(&["token"]).ok();

    // Killed and stopped it comes back, and nobody signs in again.
    desk.sandbox.kill_agent();
    wait::until("another one", || (desk.api().status()["pid"] != pid).then_some(()));
    assert_eq!(open(), "open");
    desk.run(&["agent", "stop"]).ok();
    wait::until("the end of the service", || (host.state(SERVICE) == "inactive").then_some(()));
    assert_eq!(open(), "open");
    assert!(desk.keystone.accepts(desk.run(&["token"]).ok().stdout.trim()));
    assert_eq!(desk.keystone.logins(), 1);
    let shown = host.ksb(&["service", "status"]).ok().stdout;
    assert!(shown.starts_with(&format!("installed: {SOCKET} is active, {SERVICE} is active\n")), "{shown}");

    // What it may do, by systemd's own judgement and the kernel's.
    let analysis =
        host.run("systemd-analyze", &["--user", "security", "--no-pager", "--json=short", SERVICE]);
    let analysis: Value = serde_json::from_str(&analysis.ok().stdout).unwrap();
    let set = |name: &str| {
        let line = analysis.as_array().unwrap().iter().find(|line| line["json_field"] == name);
        line.unwrap_or_else(|| panic!("{name}: {analysis:#}"))["set"] == true
    };
    for name in [
        "NoNewPrivileges",
        "MemoryDenyWriteExecute",
        "RestrictRealtime",
        "LockPersonality",
        "RestrictSUIDSGID",
        "RestrictNamespaces_user",
        "RestrictAddressFamilies_AF_PACKET",
        "SystemCallFilter_mount",
    ] {
        assert!(set(name), "{name}: {analysis:#}");
    }
    // docs/service.md says what keeps it from being lower. A service of root's is thought more exposed.
    host.run("systemd-analyze", &["--user", "security", "--no-pager", "--threshold=66", SERVICE]).ok();
    let limits = fs::read_to_string(format!("/proc/{}/status", host.main_pid())).unwrap();
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(limits.contains(line), "{limits}");
    }

    // What doctor makes of it; over SSH the end of the session is the end of the agent.
    let found = host.ksb(&["doctor"]).stdout;
    assert!(
        found.contains("ok       service: installed; systemd starts the agent whenever a tool wants it\n"),
        "{found}"
    );
    assert!(found.contains("ok       linger: off: the agent ends when you log out\n"), "{found}");
    let found = host.run("env", &["SSH_CONNECTION=1", KSB, "doctor"]).stdout;
    assert!(found.contains("warn     linger: off") && found.contains("loginctl enable-linger"), "{found}");
    host.run("systemctl", &["--user", "stop", SOCKET]).ok();
    let found = host.ksb(&["doctor"]).stdout;
    assert!(found.contains("FAIL     service: installed, and its socket is not there\n"), "{found}");

    let removed = host.ksb(&["service", "uninstall"]).ok().stdout;
    assert!(removed.contains("From now on the first command that needs the agent starts it."), "{removed}");
    assert_ne!(host.state(SOCKET), "active");
    // Without it the next command starts an agent as ever, with the same vault.
    desk.run(&["agent", "start"]).ok();
    assert_eq!(open(), "open");
    desk.run(&["token"]).ok();
    assert_eq!(desk.keystone.logins(), 1);
}

#[test]
fn without_systemd_the_desktop_starts_it_at_the_login() {
    let desk = Desk::new();
    let installed = desk.run(&["service", "install"]).ok().stdout;
    assert!(installed.starts_with("No systemd of yours answers."), "{installed}");
    let file = desk.sandbox.path("home/.config/autostart/keystone-broker.desktop");
    let text = fs::read_to_string(&file).unwrap();
    let exec = text.lines().find_map(|line| line.strip_prefix("Exec=")).unwrap();
    let started = end_of(spawn::start(desk.sandbox.command("sh").args(["-c", exec])));
    started.ok();
    assert!(desk.sandbox.agent_pid().is_some());
    assert!(desk.run(&["service", "status"]).ok().stdout.starts_with("installed: your desktop starts"));
    desk.run(&["service", "uninstall"]).ok();
    assert!(!file.exists());
}
