//! Where the agent listens, and how commands find it: without a runtime directory, in another environment, after a
//! logout, with a stranger in the way.

use std::fs;

use serde_json::Value;

use crate::real::wait;
use crate::support::machine::Machine;
use crate::support::sandbox::{Sandbox, end_of};
use crate::support::skip::{is_root, skip};
use crate::support::spawn;

/// Where there is no other place.
const SHARED: &str = "/tmp/keystone-broker-0/broker.sock";

/// A sandbox without `XDG_RUNTIME_DIR`.
fn sandbox() -> Sandbox {
    let mut sandbox = Sandbox::outside_tmp();
    sandbox.unset("XDG_RUNTIME_DIR");
    sandbox
}

/// The environment of a command.
type Variables<'a> = &'a [(&'a str, &'a str)];

/// Process id and socket of the agent that `ksb status` finds, in that environment.
fn found(machine: &Machine, environment: Variables) -> Option<(u64, String)> {
    let status = end_of(spawn::start(machine.ksb(&["status"]).envs(environment.iter().copied())));
    let line = status.stdout.lines().find(|line| line.starts_with("agent "))?;
    let (_, rest) = line.split_once("(process ")?;
    Some((rest.split_once(')')?.0.parse().ok()?, line.rsplit_once(" at ")?.1.to_owned()))
}

fn ensure(machine: &Machine, environment: Variables) {
    let mut ksb = machine.ksb(&["agent", "start"]);
    end_of(spawn::start(ksb.envs(environment.iter().copied()))).ok();
}

#[test]
fn the_socket_lies_in_a_private_directory_of_this_machine_whatever_the_environment_says() {
    let sandbox = sandbox();
    let long = format!("/tmp/{}", "x".repeat(100));
    let make = format!(
        "mkdir -m 700 /tmp/rt /tmp/read-only {long} /run/user; touch /tmp/file; mount -t tmpfs -o ro,mode=700 none /tmp/read-only"
    );
    let usual = "/run/user/0/keystone-broker/broker.sock";
    let home = sandbox.path("home");
    for (what, variable, has_usual, expected) in [
        ("unset, as for cron", None, false, SHARED),
        ("a directory that is not there, as in a batch job", Some("/run/user/99"), false, SHARED),
        ("empty", Some(""), false, SHARED),
        ("relative", Some("rt"), false, SHARED),
        ("a file", Some("/tmp/file"), false, SHARED),
        ("a directory that can hold nothing", Some("/tmp/read-only"), false, SHARED),
        ("a directory that refuses sockets: the path is too long for bind(2)", Some(&*long), false, SHARED),
        ("a directory of ours", Some("/tmp/rt"), false, "/tmp/rt/keystone-broker/broker.sock"),
        ("unset, and the usual one is there", None, true, usual),
        ("not there, and the usual one is", Some("/run/user/99"), true, usual),
        (
            "a directory of ours, and the usual one is there",
            Some("/tmp/rt"),
            true,
            "/tmp/rt/keystone-broker/broker.sock",
        ),
    ] {
        let machine = Machine::start(&sandbox, &make);
        if has_usual {
            machine.sh("mkdir -m 700 /run/user/0");
        }
        let environment: Vec<_> = variable.map(|value| ("XDG_RUNTIME_DIR", value)).into_iter().collect();
        ensure(&machine, &environment);
        let (pid, socket) = found(&machine, &environment).unwrap_or_else(|| panic!("{what}"));
        assert_eq!(socket, expected, "{what}");
        ensure(&machine, &environment);
        assert_eq!(found(&machine, &environment), Some((pid, socket)), "{what}: one agent");
        assert_eq!(
            machine.sh(&format!("stat -c %a {expected} $(dirname {expected})")),
            "600\n700\n",
            "{what}"
        );
        let in_home = machine.sh(&format!("find {} -type s", home.display()));
        assert_eq!(in_home, "", "{what}: no socket in the home");
    }
}

#[test]
fn an_agent_of_another_environment_is_found_and_that_of_another_home_is_not() {
    let sandbox = sandbox();
    let machine = Machine::start(&sandbox, "mkdir -m 700 /tmp/rt");
    ensure(&machine, &[]);
    let first = found(&machine, &[]).unwrap();
    assert_eq!(first.1, SHARED);
    let with_directory = &[("XDG_RUNTIME_DIR", "/tmp/rt")];
    assert_eq!(found(&machine, with_directory).as_ref(), Some(&first));
    ensure(&machine, with_directory);
    assert_eq!(found(&machine, with_directory).as_ref(), Some(&first));
    let by_hand = spawn::output(machine.ksb(&["agent", "run"]).envs(with_directory.iter().copied()));
    let said = String::from_utf8(by_hand.stderr).unwrap();
    assert!(said.contains(&format!("an agent (process {}) serves {SHARED} already", first.0)), "{said}");

    let other_home = sandbox.path("other");
    let other = &[with_directory[0], ("XDG_STATE_HOME", other_home.to_str().unwrap())];
    ensure(&machine, other);
    let second = found(&machine, other).unwrap();
    assert_eq!(second.1, "/tmp/rt/keystone-broker/broker.sock");
    assert_ne!(second.0, first.0);

    // One that was killed leaves its socket: the one that lives is asked.
    machine.sh(&format!("kill -9 {}", second.0));
    wait::until("the end of the second agent", || found(&machine, with_directory).filter(|it| *it == first));
}

#[test]
fn an_agent_whose_directory_vanishes_listens_in_the_next_one() {
    let sandbox = sandbox();
    let runtime = &[("XDG_RUNTIME_DIR", "/run/user/0")];
    let machine = Machine::start(&sandbox, "mkdir -p -m 700 /run/user/0");
    ensure(&machine, runtime);
    let (pid, _) = found(&machine, runtime).unwrap();
    let moves_to = |expected: &str| {
        wait::until("the agent elsewhere", || {
            found(&machine, &[]).filter(|(now, socket)| (*now, &**socket) == (pid, expected))
        });
    };
    // What cleans up may remove a socket alone.
    machine.sh("rm /run/user/0/keystone-broker/broker.sock");
    moves_to("/run/user/0/keystone-broker/broker.sock");
    // The last logout.
    machine.sh("until rm -rf /run/user/0; do :; done");
    moves_to(SHARED);
    machine.sh("until rm -rf /tmp/keystone-broker-0; do :; done");
    moves_to(SHARED);
    assert_eq!(machine.sh("stat -c %a /tmp/keystone-broker-0"), "700\n");
    assert!(machine.run(&["agent", "stop"]).ok().stdout.contains(&format!("(process {pid}) has ended")));
    assert_eq!(machine.sh("find /tmp /run -type s"), "");
}

#[test]
fn an_agent_that_cannot_watch_its_directory_serves_on() {
    let sandbox = sandbox();
    // As where other programs have used up what the system allows.
    let machine = Machine::start(&sandbox, "echo 0 > /proc/sys/user/max_inotify_watches");
    ensure(&machine, &[]);
    let socket = || machine.sh(&format!("stat -c %i {SHARED}"));
    let before = (found(&machine, &[]).unwrap(), socket());
    // A second agent would be started, or this one would open sockets without end.
    for _ in 0..5 {
        ensure(&machine, &[]);
        assert_eq!((found(&machine, &[]).unwrap(), socket()), before);
    }
    assert!(machine.run(&["agent", "stop"]).ok().stdout.contains("has ended"));
}

#[test]
fn a_locked_agent_whose_directory_vanishes_stays_locked_after_its_end() {
    let sandbox = sandbox();
    let runtime = &[("XDG_RUNTIME_DIR", "/run/user/0")];
    let machine = Machine::start(&sandbox, "mkdir -p -m 700 /run/user/0");
    ensure(&machine, runtime);
    end_of(spawn::start(machine.ksb(&["lock"]).envs(runtime.iter().copied()))).ok();
    machine.sh("until rm -rf /run/user/0; do :; done");
    let pid = wait::until("the agent elsewhere", || {
        found(&machine, &[]).and_then(|(pid, socket)| (socket == SHARED).then_some(pid))
    });
    machine.sh(&format!("kill -9 {pid}"));
    let again = wait::until("the next agent", || {
        ensure(&machine, &[]);
        found(&machine, &[]).filter(|(now, _)| *now != pid)
    });
    assert!(machine.run(&["status"]).stdout.contains("ksb unlock"), "{again:?}");
}

/// Nothing is used, nothing is sent, and the sentence names what helps.
#[track_caller]
fn is_refused(machine: &Machine, what: &str, why: &str) {
    for command in [&["status"][..], &["agent", "start"], &["token"], &["agent", "run"], &["doctor"]] {
        let outcome = machine.run(command);
        let said = format!("{}{}", outcome.stdout, outcome.stderr);
        assert_ne!(outcome.code, Some(0), "{what}: {command:?}: {said}");
        let sentence = format!("/tmp/keystone-broker-0 is not safe to use: {why}");
        assert!(said.contains(&sentence), "{what}: {command:?}: {said}");
        assert!(said.contains("XDG_RUNTIME_DIR") && said.contains("KSB_SOCK"), "{what}: {command:?}: {said}");
    }
    assert_eq!(machine.sh("find /tmp -type s -o -name '*.lock'"), "", "{what}");
}

#[test]
fn a_shared_directory_that_is_not_ours_alone_is_not_used() {
    let mut sandbox = sandbox();
    sandbox
        .clouds("clouds: {demo: {auth_type: v3broker, auth: {auth_url: 'http://127.0.0.1:9/v3', identity_provider: a, protocol: b}}}");
    let sandbox = sandbox.set("OS_CLOUD", "demo");
    for (what, script, why) in [
        (
            "a link to a directory of ours",
            "mkdir -m 700 /tmp/other; ln -s other /tmp/keystone-broker-0",
            "it is not a directory",
        ),
        ("a file", "touch /tmp/keystone-broker-0", "it is not a directory"),
        (
            "others may write",
            "mkdir /tmp/keystone-broker-0; chmod 777 /tmp/keystone-broker-0",
            "other users may change it",
        ),
        (
            "others may replace it",
            "mkdir -m 700 /tmp/keystone-broker-0; chmod 777 /tmp",
            "other users may replace it, as /tmp is not yours alone",
        ),
    ] {
        is_refused(&Machine::start(sandbox, script), what, why);
    }
    let machine = Machine::start(sandbox, "ln -s nowhere /tmp/keystone-broker-0; mkdir -m 700 /tmp/rt");
    ensure(&machine, &[("XDG_RUNTIME_DIR", "/tmp/rt")]);
    ensure(&machine, &[("KSB_SOCK", "/tmp/rt/another.sock")]);
}

#[test]
fn a_shared_directory_of_another_user_is_not_used() {
    if !is_root() {
        skip!("root, to make a directory of another user");
    }
    let sandbox = sandbox();
    let script = "mkdir -m 755 /tmp/keystone-broker-0; chown 65534 /tmp/keystone-broker-0";
    let machine = Machine::with_other_users(&sandbox, script);
    for command in [&["status"][..], &["agent", "start"]] {
        let outcome = machine.run(command);
        let why = "/tmp/keystone-broker-0 is not safe to use: it belongs to user id 65534";
        assert!(outcome.code != Some(0) && outcome.stderr.contains(why), "{outcome:?}");
    }
}

#[test]
fn a_runtime_directory_of_another_user_is_none() {
    if !is_root() {
        skip!("root, to make a directory of another user");
    }
    let sandbox = sandbox();
    // As after `su` and `sudo -E`.
    let machine = Machine::with_other_users(&sandbox, "mkdir -p /run/user/1000; chown 1000 /run/user/1000");
    let environment = &[("XDG_RUNTIME_DIR", "/run/user/1000")];
    ensure(&machine, environment);
    assert_eq!(found(&machine, environment).unwrap().1, SHARED);
    assert_eq!(machine.sh("ls -A /run/user/1000"), "");
}

#[test]
fn only_an_agent_of_this_machine_is_named_by_its_process_id() {
    let sandbox = sandbox();
    let machine = Machine::start(&sandbox, "mkdir -m 700 /tmp/keystone-broker-0");
    // As an agent of another machine would hold it in a home of both, with a number that is another process's here.
    let hold = "printf '1\\n/state\\n' > /tmp/keystone-broker-0/broker.lock; flock /tmp/keystone-broker-0/broker.lock cat";
    let mut sh = machine.command("sh");
    let mut holder = spawn::start(sh.args(["-c", hold]).stdin(std::process::Stdio::piped()));
    wait::until("the lock", || {
        (machine.sh("flock -n /tmp/keystone-broker-0/broker.lock true || echo held") == "held\n")
            .then_some(())
    });
    let findings = machine.run(&["doctor", "--json"]).stdout;
    let findings: Vec<Value> = serde_json::from_str(&findings).unwrap();
    let agent = findings.iter().find(|finding| finding["check"] == "agent").unwrap();
    assert_eq!(agent["finding"], "fail");
    let said = agent.to_string();
    assert!(said.contains("is held, and not by an agent of yours on this machine"), "{said}");
    assert!(!said.contains("kill") && !said.contains("process 1"), "{said}");
    holder.kill().unwrap();
    holder.wait().unwrap();
}

#[test]
fn a_relative_ksb_sock_is_one_of_the_callers_directory() {
    let sandbox = Sandbox::new();
    let ksb = |args: &[&str]| end_of(spawn::start(sandbox.ksb(args).env("KSB_SOCK", "mine/a.sock")));
    fs::create_dir(sandbox.path("home/mine")).unwrap();
    fs::set_permissions(sandbox.path("home/mine"), std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .unwrap();
    ksb(&["agent", "start"]).ok();
    assert!(sandbox.path("home/mine/a.sock").exists());
    assert!(ksb(&["agent", "stop"]).ok().stdout.contains("has ended"));
}
