//! Where nothing can be kept, `ksb` works in memory and says so once, or one sentence names the variable to set; and as
//! root with another user's home it takes nothing from that user.

use std::fs;

use serde_json::Value;

use crate::support::desk::Desk;
use crate::support::machine::Machine;
use crate::support::sandbox::{Outcome, Sandbox, end_of};
use crate::support::skip::{is_root, skip};
use crate::support::spawn::start;

/// A home that is none: the script that makes it, `HOME` and `XDG_STATE_HOME` (`ROOT` is the sandbox), and a part of what is
/// said of it.
struct Case {
    script: &'static str,
    home: Option<&'static str>,
    state: Option<&'static str>,
    why: &'static str,
}

const fn home(script: &'static str, home: Option<&'static str>, why: &'static str) -> Case {
    Case { script, home, state: None, why }
}

const HOMES: [Case; 9] = [
    home("", Some("/"), "HOME is /"),
    home("", Some("relative"), "HOME is relative"),
    home("mount -t tmpfs -o ro tmpfs ROOT/home", Some("ROOT/home"), "ROOT/home cannot be written"),
    home(
        "mkdir ROOT/none; mount -o bind,ro ROOT/none ROOT/none",
        Some("ROOT/none/absent"),
        "ROOT/none cannot be written",
    ),
    home(
        "mkdir -p ROOT/f/.local/state; touch ROOT/f/.local/state/keystone-broker",
        Some("ROOT/f"),
        "is not a directory",
    ),
    home("touch ROOT/file", Some("ROOT/file"), "file"),
    home(
        "mkdir ROOT/theirs; chown 65534 ROOT/theirs",
        Some("ROOT/theirs"),
        "belongs to user 65534, and this is root",
    ),
    Case {
        script: "mkdir ROOT/s; mount -t tmpfs -o ro tmpfs ROOT/s",
        home: Some("ROOT/home"),
        state: Some("ROOT/s"),
        why: "ROOT/s cannot be written",
    },
    Case {
        script: "mkdir ROOT/p; chown 65534 ROOT/p",
        home: Some("ROOT/home"),
        state: Some("ROOT/p"),
        why: "65534",
    },
];

/// A desk whose clouds.yaml and settings lie outside of its home.
fn desk(Case { home, state, .. }: &Case) -> Desk {
    let mut desk = Desk::in_sandbox(Sandbox::outside_tmp());
    let root = desk.sandbox.path("").display().to_string();
    let within = |path: &str| path.replace("ROOT", root.trim_end_matches('/'));
    let settings = desk.sandbox.path("settings");
    fs::create_dir_all(settings.join("openstack")).unwrap();
    fs::create_dir_all(settings.join("keystone-broker")).unwrap();
    fs::copy(desk.sandbox.paths().config, settings.join("keystone-broker/config.toml")).unwrap();
    let clouds = desk.sandbox.path("home/.config/openstack/clouds.yaml");
    fs::copy(clouds, settings.join("openstack/clouds.yaml")).unwrap();
    desk.sandbox.set("XDG_CONFIG_HOME", settings).unset("XDG_STATE_HOME").unset("HOME");
    if let Some(home) = home {
        desk.sandbox.set("HOME", within(home));
    }
    if let Some(state) = state {
        desk.sandbox.set("XDG_STATE_HOME", within(state));
    }
    desk
}

fn machine<'d>(desk: &'d Desk, script: &str) -> Machine<'d> {
    let root = desk.sandbox.path("").display().to_string();
    Machine::with_other_users(&desk.sandbox, &script.replace("ROOT", root.trim_end_matches('/')))
}

fn run(machine: &Machine<'_>, args: &[&str]) -> Outcome {
    let mut ksb = machine.ksb(args);
    end_of(start(ksb.current_dir("/")))
}

#[test]
fn without_a_home_sign_ins_are_in_memory_and_that_is_said_once() {
    if !is_root() {
        skip!("root, to give files to another user");
    }
    for each in &HOMES {
        let desk = desk(each);
        let machine = machine(&desk, each.script);
        let root = desk.sandbox.path("").display().to_string();
        let why = each.why.replace("ROOT", root.trim_end_matches('/'));
        let first = run(&machine, &["agent", "start"]).ok();
        assert_eq!(first.stderr.lines().count(), 1, "{why}: {first:?}");
        assert!(first.stderr.contains(&why), "{why}: {first:?}");
        let remedy =
            if why.contains("65534") { "run this without sudo, " } else { "set HOME or XDG_STATE_HOME " };
        assert!(first.stderr.contains(&format!("To keep them: {remedy}")), "{first:?}");

        let mut login = machine.ksb(&["login"]);
        let login = start(login.current_dir("/"));
        assert_eq!(desk.sign_in("alice").state, "done", "{why}");
        let login = end_of(login).ok();
        let token = run(&machine, &["token"]).ok();
        assert!(desk.keystone.accepts(token.stdout.trim()), "{why}");
        let exec = run(&machine, &["exec", "demo", "--", "echo", "ran"]).ok();
        assert_eq!(exec.stdout, "ran\n");
        let status = run(&machine, &["status"]).ok();
        assert!(status.stdout.contains("alice"), "{status:?}");
        for outcome in [login, token, exec, status] {
            assert!(!outcome.stderr.contains("os error") && !outcome.stderr.contains("kept"), "{outcome:?}");
        }
        let doctor = run(&machine, &["doctor", "--json"]);
        let findings: Value = serde_json::from_str(&doctor.stdout).unwrap();
        let state =
            findings.as_array().unwrap().iter().find(|one| one["check"] == "state-directory").unwrap();
        assert_eq!(state["finding"], "warn", "{state}");
        assert!(!doctor.stdout.contains("os error"), "{}", doctor.stdout);
        run(&machine, &["logout", "--all"]).ok();
        run(&machine, &["agent", "stop"]).ok();
        let without = run(&machine, &["exec", "--ephemeral", "demo", "--", "echo", "ran"]).ok();
        assert_eq!((&*without.stdout, &*without.stderr), ("ran\n", ""), "{why}");
    }
}

/// Settings and clouds.yaml of such a home are not there, and that is no error.
#[test]
fn a_home_that_cannot_be_looked_into_has_no_settings() {
    for home in ["", "/", "relative", "/nonexistent", "/etc/passwd", "/dev/null/x"] {
        let mut sandbox = Sandbox::new();
        sandbox.unset("XDG_CONFIG_HOME").unset("XDG_STATE_HOME").set("HOME", home);
        for args in [&["status"][..], &["doctor"], &["token", "demo"], &["lease", "list"]] {
            let outcome = sandbox.run(args);
            let said = format!("{}{}", outcome.stdout, outcome.stderr);
            assert!(!said.contains("os error") && !said.contains("FAIL config"), "{home} {args:?}: {said}");
        }
        sandbox.run(&["agent", "stop"]).ok();
    }
}

#[test]
fn where_there_is_no_room_a_sentence_names_the_variable() {
    if !is_root() {
        skip!("root, to give files to another user");
    }
    let each = home(
        "mount -t tmpfs -o size=4k,nr_inodes=2 tmpfs ROOT/home; touch ROOT/home/full",
        Some("ROOT/home"),
        "",
    );
    let desk = desk(&each);
    let machine = machine(&desk, each.script);
    let outcome = run(&machine, &["status"]);
    assert!(!outcome.stderr.contains("os error"), "{outcome:?}");
    let outcome = run(&machine, &["login"]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(
        outcome.stderr.ends_with("Try: set XDG_STATE_HOME to a directory of yours that has room\n"),
        "{outcome:?}"
    );
    assert!(!outcome.stderr.contains("os error") && outcome.stderr.lines().count() == 1, "{outcome:?}");
}

#[test]
fn root_is_told_to_do_without_sudo_and_takes_nothing_from_a_user() {
    if !is_root() {
        skip!("root, to give files to another user");
    }
    let mut desk = Desk::new();
    // As `sudo -E` has it.
    let home = desk.sandbox.path("home");
    desk.sandbox.unset("XDG_STATE_HOME").unset("XDG_CONFIG_HOME").unset("XDG_CACHE_HOME");
    let mut own = desk.sandbox.command("chown");
    end_of(start(own.args(["-R", "65534"]).arg(&home).arg(desk.sandbox.path("run")))).ok();
    let doctor = desk.run(&["doctor"]);
    for taking in ["chown", "rm ", "kill ", "chmod"] {
        assert!(!doctor.stdout.contains(taking), "{taking}: {}", doctor.stdout);
    }
    assert!(doctor.stdout.contains("run this without sudo"), "{}", doctor.stdout);
    assert!(fs::read_dir(home.join(".local/state/keystone-broker")).is_err(), "nothing of root's is there");
    // An entry that would be written to the user's file, or to a new one in the user's home.
    let clouds = desk.sandbox.path("home/.config/openstack/clouds.yaml");
    let entry = desk.entry("demo", "project_name: demo").replace("v3broker", "v3websso");
    for file in [clouds.clone(), desk.sandbox.path("home/elsewhere/clouds.yaml")] {
        fs::create_dir_all(clouds.parent().unwrap()).unwrap();
        fs::write(&clouds, format!("clouds:\n{entry}")).unwrap();
        let mut own = desk.sandbox.command("chown");
        end_of(start(own.args(["-R", "65534"]).arg(&home))).ok();
        let adopted = desk.run(&["clouds", "adopt", "demo"]);
        assert!(adopted.stderr.contains("Try: run this without sudo"), "{}: {adopted:?}", file.display());
    }
}

#[test]
fn a_port_of_another_user_s_is_not_to_be_ended() {
    if !is_root() {
        skip!("root, to give files to another user");
    }
    let desk = Desk::new();
    let listens = "import socket,sys; s=socket.create_server(('127.0.0.1', int(sys.argv[1]))); print('on', flush=True); input()";
    for (user, may_be_ended) in [("65534", false), ("0", true)] {
        let mut other = desk.sandbox.command("setpriv");
        other.args([
            "--reuid",
            user,
            "--clear-groups",
            "/usr/bin/python3",
            "-c",
            listens,
            &desk.port.to_string(),
        ]);
        let mut other = start(other.stdin(std::process::Stdio::piped()));
        let mut word = [0; 3];
        std::io::Read::read_exact(other.stdout.as_mut().unwrap(), &mut word).unwrap();
        let login = desk.run(&["login"]);
        assert_eq!(login.stderr.contains("end that program"), may_be_ended, "{login:?}");
        assert!(login.stderr.contains("ask for another redirect_port"), "{login:?}");
        let doctor = desk.run(&["doctor"]);
        assert_eq!(doctor.stdout.contains("end that program"), may_be_ended, "{}", doctor.stdout);
        drop(other.stdin.take());
        end_of(other);
    }
}
