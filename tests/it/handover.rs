//! A newer program takes over, an agent restarts, while others ask: nobody loses anything.

use std::fs;
use std::io::{IoSlice, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use memchr::memmem;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::support::api::scope;
use crate::support::desk::Desk;
use crate::support::keystone::{EXCHANGE, Fault};
use crate::support::killing::at_every_word;
use crate::support::lab::until;
use crate::support::sandbox::{KSB, Outcome, end_of};
use crate::support::spawn::{copy, start};
use crate::support::tool::{Tool, token};

const OWN: &str = env!("CARGO_PKG_VERSION");

/// Where the program is installed in this home.
fn installed(desk: &Desk) -> PathBuf {
    desk.sandbox.path("bin/ksb")
}

/// Puts a copy of a program there, as a package manager does: whole, under another name first.
pub fn install(desk: &Desk, program: &Path) {
    let place = installed(desk);
    let new = place.with_extension("new");
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    copy(program, &new);
    fs::rename(new, place).unwrap();
}

/// This program.
pub fn own() -> &'static Path {
    Path::new(KSB)
}

/// This program, as an older version of itself. It is made once for each build.
pub fn older() -> PathBuf {
    static MADE: Mutex<()> = Mutex::new(());
    let older = Path::new(env!("CARGO_TARGET_TMPDIR")).join("older-ksb");
    let made_at = |path: &Path| fs::metadata(path).and_then(|about| about.modified()).ok();
    let _one_at_a_time = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if made_at(&older) <= made_at(own()) {
        let mut program = fs::read(own()).unwrap();
        let (version, old) = (OWN.as_bytes(), "0".repeat(OWN.len() - 4) + ".0.0");
        let places: Vec<_> = memmem::find_iter(&program, version).collect();
        for at in places {
            program[at..at + version.len()].copy_from_slice(old.as_bytes());
        }
        // Another `cargo test` may be about to do the same.
        let mut file = NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        file.write_all(&program).unwrap();
        file.persist(&older).unwrap();
    }
    older
}

/// Runs the installed program.
pub fn run(desk: &Desk, args: &[&str]) -> Outcome {
    end_of(start(desk.sandbox.command(installed(desk)).args(args)))
}

fn status(desk: &Desk) -> Value {
    serde_json::from_str(&run(desk, &["status", "--json"]).ok().stdout).unwrap()
}

/// The agent makes room for the program that is installed.
#[track_caller]
fn hand_over(desk: &Desk) {
    let answer = desk.api().poke("/v1/handover");
    assert_eq!(answer.status, 204, "{}", answer.text);
}

/// Returns when this program answers. The one before it, asked to make room, goes on serving until what must not be cut
/// off is finished, for up to a minute (docs/service.md).
pub fn taken_over(desk: &Desk) {
    until("the newer program", || status(desk)["version"] == OWN);
}

/// Somebody is signed in at an agent of the installed program.
fn signed_in(desk: &Desk) {
    run(desk, &["agent", "start"]).ok();
    desk.run_and_sign_in(&["login"], "alice").ok();
}

#[test]
fn a_newer_program_takes_over_and_nobody_is_signed_out() {
    let desk = Desk::new();
    install(&desk, &older());
    // Signed in by the older one, whose sessions are in its memory only.
    run(&desk, &["agent", "start"]).ok();
    let login = start(desk.sandbox.command(installed(&desk)).arg("login"));
    assert_eq!(desk.sign_in("alice").state, "done");
    end_of(login).ok();
    let before = status(&desk);
    assert_eq!(
        (before["version"].as_str().unwrap() < OWN, before["sessions"][0]["user"]["name"].as_str()),
        (true, Some("alice"))
    );
    let handed_out = run(&desk, &["token"]).ok().stdout;

    install(&desk, own());
    run(&desk, &["token"]).ok();
    taken_over(&desk);
    let after = status(&desk);
    assert_eq!(
        (&after["pid"], &after["facade"]),
        (&before["pid"], &before["facade"]),
        "the same process and port"
    );
    assert_eq!(after["sessions"][0]["user"]["name"], "alice");
    assert_eq!(desk.keystone.logins(), 1);
    // What the older one handed out is still ours to revoke.
    run(&desk, &["logout"]).ok();
    assert!(!desk.keystone.accepts(handed_out.trim()));
}

#[test]
fn doctor_names_what_keeps_the_sessions_of_an_older_agent() {
    let desk = Desk::new();
    // A check of a cloud would have it hand over.
    desk.sandbox.clouds("clouds: {}\n");
    install(&desk, &older());
    run(&desk, &["agent", "start"]).ok();
    let remedy = || {
        let found: Value = serde_json::from_str(&desk.run(&["doctor", "--json"]).stdout).unwrap();
        let agent = found.as_array().unwrap().iter().find(|each| each["check"] == "agent").unwrap();
        assert!(agent["detail"].as_str().unwrap().contains(&format!("this is ksb {OWN}")), "{agent}");
        agent["remedy"].as_str().unwrap().to_owned()
    };
    // A program elsewhere takes no agent's place.
    assert!(remedy().starts_with("ksb agent stop"), "{}", remedy());
    install(&desk, own());
    assert!(remedy().starts_with("ksb status"), "{}", remedy());
    run(&desk, &["status"]).ok();
    taken_over(&desk);
}

#[test]
fn without_a_newer_program_or_in_the_middle_of_a_sign_in_nothing_is_handed_over() {
    let desk = Desk::new();
    install(&desk, own());
    run(&desk, &["agent", "start"]).ok();
    desk.api().poke("/v1/handover").problem("handover-refused");
    let login = start(desk.sandbox.command(installed(&desk)).arg("login"));
    let url = desk.sandbox.opened();
    install(&desk, own());
    let refused = desk.api().poke("/v1/handover");
    assert!(refused.json["detail"].as_str().unwrap().contains("a sign-in is under way"), "{refused:?}");
    let browser = crate::support::browser::Browser::of("alice");
    assert_eq!(browser.tab().sign_in(&url).state, "done");
    end_of(login).ok();
    // Nor where the next one could not start.
    let config = desk.sandbox.paths().config;
    let good = fs::read(&config).unwrap();
    fs::write(&config, "brwoser = \"firefox\"\n").unwrap();
    let refused = desk.api().poke("/v1/handover");
    assert!(refused.json["detail"].as_str().unwrap().contains("brwoser"), "{refused:?}");
    fs::write(&config, good).unwrap();
    hand_over(&desk);
    assert_eq!(status(&desk)["sessions"][0]["user"]["name"], "alice");
}

#[test]
fn a_program_that_cannot_run_costs_no_sign_in_and_one_that_anybody_wrote_is_not_run() {
    let desk = Desk::new();
    install(&desk, own());
    signed_in(&desk);
    let whole = fs::read(KSB).unwrap();
    let (head, _) = whole.split_at(4096);
    let wrong = desk.sandbox.path("wrong");
    for bytes in [head, b"half a program", b"#!/bin/sh\necho something else"] {
        fs::write(&wrong, bytes).unwrap();
        install(&desk, &wrong);
        let refused = desk.api().poke("/v1/handover");
        assert!(refused.problem("handover-refused")["detail"].as_str().unwrap().contains("does not run"));
    }
    install(&desk, own());
    fs::set_permissions(installed(&desk), fs::Permissions::from_mode(0o757)).unwrap();
    desk.api().poke("/v1/handover").problem("handover-refused");
    assert!(desk.keystone.accepts(desk.run(&["token"]).ok().stdout.trim()));
    assert_eq!(desk.keystone.logins(), 1);
}

/// A tool at the facade never asks for an upgrade; the agent notices that another program lies there.
#[test]
fn a_rebuild_of_the_same_version_takes_over_by_itself() {
    let desk = Desk::new();
    install(&desk, own());
    signed_in(&desk);
    let request = json!({"cloud": desk.cloud(), "scope": scope::project("demo")});
    let tool = Tool::of(&desk.api().post("/v1/leases", &request));
    let started_at = || desk.api().status()["started_at"].clone();
    let before = started_at();
    // One that cannot take over, however often it is looked at, changes nothing.
    let half = desk.sandbox.path("half");
    fs::write(&half, &fs::read(KSB).unwrap()[..4096]).unwrap();
    install(&desk, &half);
    tool.token();
    install(&desk, own());
    until("the other build", || {
        // It takes half a minute: not a question for each millisecond.
        thread::park_timeout(Duration::from_millis(300));
        tool.token();
        started_at() != before
    });
    tool.token();
    assert_eq!(desk.keystone.logins(), 1);
}

/// So does a program of another time: it knows no such option, or not this format.
#[test]
fn a_program_that_does_not_know_what_it_would_be_handed_says_so() {
    let desk = Desk::new();
    install(&desk, own());
    for known in ["1", "2"] {
        let known = run(&desk, &["agent", "--takes-over", known]).ok();
        assert_eq!(known.stdout, format!("ksb {OWN}\n"));
    }
    assert_eq!(run(&desk, &["agent", "--takes-over", "3"]).code, Some(1));
    assert!(desk.sandbox.agent_pid().is_none());
}

#[test]
fn a_lock_during_an_upgrade_leaves_the_newer_program_nothing() {
    let desk = Desk::new();
    fs::write(desk.sandbox.paths().config, "vault = \"passphrase\"\nfacade_port = 0\n").unwrap();
    install(&desk, own());
    signed_in(&desk);
    desk.api().post("/v1/vault/key", &json!({"key": "passphrase", "passphrase": "correct horse battery"}));
    // Something is under way that an upgrade waits for.
    let gate = desk.keystone.on(EXCHANGE, Fault::Waits);
    let exchanges = desk.keystone.count(EXCHANGE);
    let asking = start(desk.sandbox.command(installed(&desk)).args(["token", "--project", "other"]));
    desk.keystone.wait_for(EXCHANGE, exchanges + 1);
    install(&desk, own());
    hand_over(&desk);
    assert_eq!(desk.api().post("/v1/lock", &json!({})).json["restarts"], true);
    drop(gate);
    until("the next process", || desk.api().status()["sessions"] == json!([]));
    end_of(asking);
    desk.api().post("/v1/unlock", &json!({})).problem("vault-sealed");
    assert_eq!(desk.run(&["token"]).code, Some(75));
}

#[test]
fn an_upgrade_that_is_killed_on_its_way_costs_no_sign_in() {
    let mut desk = Desk::with_quick_vault();
    desk.sandbox.set("KSB_LOG", "debug");
    install(&desk, own());
    signed_in(&desk);
    at_every_word(
        &desk,
        || {
            run(&desk, &["agent", "start"]).ok();
            install(&desk, own());
        },
        |answered| {
            hand_over(&desk);
            answered.note(());
            until("the newer program", || desk.api().poke("/v1/handover").status == 409);
        },
        |word, _| {
            let token = run(&desk, &["token"]).ok().stdout;
            assert!(desk.keystone.accepts(token.trim()), "{word}");
        },
    );
    assert_eq!(desk.keystone.logins(), 1);
}

/// What an agent of an earlier version hands over (`tests/formats`), as if it had been made today.
fn example_handover(version: u32) -> Value {
    let example = |name: &str| -> Value {
        let file = format!("{}/tests/formats/{name}-{version}.json", env!("CARGO_MANIFEST_DIR"));
        let text = fs::read_to_string(file).unwrap();
        serde_json::from_str(&text.replace("2026-12-01T20", "2099-12-01T20")).unwrap()
    };
    let mut contents = example("vault-contents");
    for list in contents.as_object_mut().unwrap().values_mut().filter_map(Value::as_array_mut) {
        list.truncate(1);
    }
    for (list, names) in [("revocations", &[][..]), ("over", &[]), ("ended_leases", &[])] {
        if contents.get(list).is_some() {
            contents[list] = json!(names as &[&str]);
        }
    }
    contents["leases"][0]["process"] = Value::Null;
    contents["leases"][0]["ends_at"] = Value::Null;
    let mut handover = example("handover");
    handover["contents"] = contents.to_string().into();
    handover["seal"] = Value::Null;
    handover
}

/// Starts the program as an agent that leaves does it: with the lock, the state and the socket.
fn start_with(desk: &Desk, handover: &Value) -> Child {
    let socket = desk.sandbox.paths().socket;
    let directory = socket.parent().unwrap();
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).unwrap();
    let lock = fs::File::create(directory.join("broker.lock")).unwrap();
    lock.lock().unwrap();
    let mut state = fs::File::from(memfd_create("ksb", MemfdFlags::CLOEXEC).unwrap());
    state.write_all(handover.to_string().as_bytes()).unwrap();
    state.rewind().unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let descriptors = [lock.as_fd(), state.as_fd(), listener.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut message = SendAncillaryBuffer::new(&mut space);
    message.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(&ours, &[IoSlice::new(&[1])], &mut message, SendFlags::empty()).unwrap();
    let mut agent = desk.sandbox.ksb(&["agent", "--handed"]);
    let agent = start(agent.stdin(OwnedFd::from(theirs)));
    writeln!(&lock, "{}\n{}", agent.id(), desk.sandbox.paths().state.display()).unwrap();
    agent
}

#[test]
fn what_an_agent_of_any_earlier_version_hands_over_is_taken_in() {
    for version in [0, 1] {
        let desk = Desk::new();
        let agent = start_with(&desk, &example_handover(version));
        let status = desk.api().status();
        assert_eq!(status["pid"], agent.id(), "version {version}");
        let session = &status["sessions"][0];
        assert_eq!(
            (&session["user"]["name"], &session["clouds"]),
            (&json!("alice"), &json!(["demo", "staging"]))
        );
        let leases = desk.api().get("/v1/leases").json["leases"].clone();
        assert_eq!(leases[0]["name"], "demo-aaaaaa", "version {version}: {leases}");
        desk.api().poke("/v1/stop");
        end_of(agent);
    }
}

/// Says that it is over when it is dropped.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Eighty commands and twenty tools at the facade, all at once, while `what` happens twice: how each command ended, and how
/// often a tool's connection was cut.
fn hundred(desk: &Desk, tool: &Tool, what: impl Fn()) -> (Vec<Outcome>, usize) {
    let (all, over) = (Barrier::new(101), AtomicBool::new(false));
    thread::scope(|scope| {
        let command = || {
            all.wait();
            [run(desk, &["token"]), run(desk, &["token"])]
        };
        let asks = || {
            all.wait();
            let mut cut = 0;
            while !over.load(Ordering::Relaxed) {
                if let Ok(answer) = tool.try_ask() {
                    // Told to come again is not lost.
                    assert!([201, 503].contains(&answer.status), "{answer:?}");
                } else {
                    cut += 1;
                    run(desk, &["agent", "start"]).ok();
                }
            }
            run(desk, &["agent", "start"]).ok();
            assert!(desk.keystone.accepts(&token(&tool.ask())));
            cut
        };
        let commands: Vec<_> = (0..80).map(|_| scope.spawn(command)).collect();
        let tools: Vec<_> = (0..20).map(|_| scope.spawn(asks)).collect();
        // The tools end, also when this fails.
        let end = Ends(&over);
        all.wait();
        what();
        what();
        let outcomes = commands.into_iter().flat_map(|command| command.join().unwrap()).collect();
        drop(end);
        (outcomes, tools.into_iter().map(|tool| tool.join().unwrap()).sum())
    })
}

#[test]
fn a_hundred_clients_lose_nothing_while_the_agent_restarts_is_upgraded_and_locked() {
    let mut desk = Desk::new();
    let passphrase = desk.sandbox.path("passphrase");
    fs::write(&passphrase, "correct horse battery\n").unwrap();
    fs::set_permissions(&passphrase, fs::Permissions::from_mode(0o600)).unwrap();
    desk.sandbox.set("KSB_PASSPHRASE_FILE", passphrase);
    let port = crate::support::port::free();
    let config = format!("vault = \"passphrase\"\nfacade_port = {port}\n");
    fs::write(desk.sandbox.paths().config, config).unwrap();
    install(&desk, own());
    signed_in(&desk);
    let shown: Value = serde_json::from_str(&run(&desk, &["clouds", "show", "--json"]).ok().stdout).unwrap();
    let request = json!({
        "cloud": shown["cloud"], "scope": shown["scope"], "unattended": true, "ttl": 3600,
    });
    let tool = Tool::of(&desk.api().post("/v1/leases", &request));
    let is_good = |outcome: &Outcome| {
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        assert!(desk.keystone.accepts(outcome.stdout.trim()));
    };

    let upgrade = || {
        let before = desk.api().status()["started_at"].clone();
        install(&desk, own());
        hand_over(&desk);
        // Until then one more program that is installed is the one that takes over, and has nothing to hand over to.
        until("the next process", || desk.api().status()["started_at"] != before);
    };
    let (outcomes, cut) = hundred(&desk, &tool, upgrade);
    outcomes.iter().for_each(is_good);
    assert_eq!(cut, 0);

    let lock = || {
        run(&desk, &["lock"]).ok();
        run(&desk, &["unlock"]).ok();
    };
    let (outcomes, cut) = hundred(&desk, &tool, lock);
    assert_eq!(cut, 0);
    for outcome in &outcomes {
        match outcome.code {
            Some(75) => assert!(outcome.stderr.contains("the agent is locked"), "{outcome:?}"),
            _ => is_good(outcome),
        }
    }

    // Without systemd to hold its port a restart breaks the facade's connections; who comes again is served.
    let restart = || drop(run(&desk, &["agent", "stop"]).ok());
    let (outcomes, _cut) = hundred(&desk, &tool, restart);
    outcomes.iter().for_each(is_good);
    assert_eq!(desk.keystone.logins(), 1, "nobody was asked to sign in again");
}
