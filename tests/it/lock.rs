//! Locked: nothing is given out, nothing is known, nothing is lost.

use std::fs;

use serde_json::{Value, json};

use crate::support::desk::Desk;
use crate::support::memory;
use crate::support::sandbox::end_of;

const PASSPHRASE: &str = "correct horse battery";

/// A desk whose vault a passphrase opens that no file knows, with somebody signed in.
fn desk() -> Desk {
    let desk = Desk::new();
    fs::write(desk.sandbox.paths().config, "vault = \"passphrase\"\nfacade_port = 0\n").unwrap();
    desk.run_and_sign_in(&["login"], "alice").ok();
    desk.api().post("/v1/vault", &json!({"key": "passphrase", "passphrase": PASSPHRASE}));
    desk
}

fn token(desk: &Desk) -> String {
    desk.run(&["token"]).ok().stdout.trim().to_owned()
}

fn unlock(desk: &Desk, passphrase: &str) -> Value {
    desk.api().post("/v1/vault", &json!({"passphrase": passphrase})).json
}

#[test]
fn a_locked_agent_gives_nothing_knows_nothing_and_loses_nothing() {
    let desk = desk();
    let handed_out = token(&desk);
    let pid = desk.sandbox.agent_pid().unwrap();
    assert!(memory::holds(pid, &handed_out), "it is there before");
    let started_at = desk.api().status()["started_at"].clone();

    let locked = desk.run(&["lock"]).ok();
    assert_eq!(locked.stdout, "Locked. Nothing is given out until: ksb unlock\n");
    // The same process for whoever watches it, and another one for whoever reads its memory.
    assert_eq!(desk.sandbox.agent_pid(), Some(pid));
    assert_ne!(desk.api().status()["started_at"], started_at);
    for secret in [&handed_out, PASSPHRASE] {
        assert!(!memory::holds(pid, secret), "{secret} is still in the memory of a locked agent");
    }

    let refused = desk.run(&["token"]);
    assert_eq!(
        (refused.code, refused.stderr.as_str()),
        (Some(75), "ksb: the agent is locked. Try: ksb unlock\n")
    );
    let status = desk.run(&["status"]).ok().stdout;
    assert!(status.starts_with("Locked by you, since ") && status.contains("ksb unlock"), "{status}");

    assert_eq!(unlock(&desk, "wrong")["code"], "vault-sealed");
    assert_eq!(desk.api().status()["locked"]["reason"], "person", "a wrong passphrase opens nothing");
    assert_eq!(unlock(&desk, PASSPHRASE)["state"], "open");
    let again = token(&desk);
    assert!(desk.keystone.accepts(&again) && desk.keystone.accepts(&handed_out));
    // What was handed out before the lock is still ours to revoke.
    desk.run(&["logout"]).ok();
    assert!(!desk.keystone.accepts(&again) && !desk.keystone.accepts(&handed_out));
}

#[test]
fn killing_a_locked_agent_unlocks_nothing() {
    let desk = desk();
    desk.run(&["lock"]).ok();
    desk.sandbox.kill_agent();
    assert_eq!(desk.run(&["token"]).code, Some(75));
    assert_eq!(desk.api().status()["locked"]["reason"], "person");
    unlock(&desk, PASSPHRASE);
    assert!(desk.keystone.accepts(&token(&desk)));
}

#[test]
fn without_a_vault_a_lock_is_a_logout_and_says_so() {
    let desk = Desk::new();
    desk.run_and_sign_in(&["login"], "alice").ok();
    let handed_out = token(&desk);
    let pid = desk.sandbox.agent_pid().unwrap();
    let locked = desk.run(&["lock"]).ok().stdout;
    assert!(locked.contains("no vault that sign-ins could be sealed in, so they have ended:"), "{locked}");
    assert!(locked.contains("demo: alice (lab) is signed out; 2 token(s) revoked"), "{locked}");
    assert!(!desk.keystone.accepts(&handed_out));
    assert!(!memory::holds(pid, &handed_out));
    // Locked all the same: no browser opens.
    let refused = desk.run(&["login"]);
    assert_eq!(refused.code, Some(75), "{refused:?}");
    let unlocked = desk.run(&["unlock"]).ok().stdout;
    assert!(unlocked.starts_with("Unlocked.\n"), "{unlocked}");
    desk.run_and_sign_in(&["login"], "alice").ok();
}

#[test]
fn a_lock_calls_off_sign_ins_and_what_comes_back_from_them() {
    let desk = desk();
    desk.run(&["logout"]).ok();
    let (ksb, url) = desk.waiting(&["login"]);
    desk.run(&["lock"]).ok();
    let ended = end_of(ksb);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("called off"), "{ended:?}");
    assert!(std::net::TcpStream::connect(("127.0.0.1", desk.port)).is_err(), "nobody listens for {url}");
    assert_eq!(desk.api().status()["sign_ins"], json!([]));
    assert_eq!(desk.run(&["login"]).code, Some(75), "and no browser opens");
}
