//! `ksb status`, `ksb lease list` and `ksb logout` say what is so, whatever has become of the agent and its vault.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::api::scope;
use crate::support::desk::Desk;
use crate::support::http::{Request, Response};
use crate::support::keystone::{EXCHANGE, Fault, REVOCATION};
use crate::support::lab::{Lab, until};
use crate::support::sandbox::Outcome;
use crate::support::tool::Tool;
use crate::support::world::World;

const LOGOUTS: [&[&str]; 3] = [&["logout"], &["logout", "demo"], &["logout", "--all"]];

/// Alice is signed in and has a lease. Then this happens; for each way to log out once.
fn each(happens: impl Fn(&mut Desk), judge: impl Fn(&Desk, &[&str])) {
    for logout in LOGOUTS {
        let mut desk = Desk::with_quick_vault();
        desk.run_and_sign_in(&["token"], "alice").ok();
        let made = desk.run(&["lease", "create", "--name", "apply", "--json"]).ok().stdout;
        let made: Value = serde_json::from_str(&made).unwrap();
        assert_eq!(authenticate(&made).status, 201);
        happens(&mut desk);
        judge(&desk, logout);
        if desk.run(&["status", "--json"]).stdout.contains("incomplete") {
            continue;
        }
        // Not even after the next sign-in.
        desk.run_and_sign_in(&["login"], "alice").ok();
        assert_eq!(authenticate(&made).status, 401, "{logout:?}");
    }
}

/// A tool comes with the lease.
fn authenticate(made: &Value) -> Response {
    let body = json!({"auth": {"identity": {
        "methods": ["application_credential"],
        "application_credential": {"id": made["lease"]["id"], "secret": made["secret"]},
    }}});
    let url = format!("{}/auth/tokens", made["auth_url"].as_str().unwrap());
    Request::new("POST", &url).body("application/json", body.to_string()).send()
}

/// Whether anything that it gave is still good.
fn has_good_tokens(desk: &Desk) -> bool {
    desk.keystone.all_tokens().iter().any(|token| desk.keystone.accepts(token))
}

/// What is signed in is shown, and a logout ends all of it.
fn knows_all(desk: &Desk, logout: &[&str]) {
    let status = desk.run(&["status"]).ok().stdout;
    assert!(status.contains("demo: alice (lab)") && status.contains("apply: demo"), "{status}");
    assert_eq!(json_status(desk)["sessions"][0]["user"]["name"], "alice");
    let leases = desk.run(&["lease", "list"]).ok().stdout;
    assert!(leases.contains("apply: demo"), "{leases}");
    let said = desk.run(logout).ok().stdout;
    assert!(said.contains("alice (lab) is signed out") && said.contains("lease apply has ended"), "{said}");
    assert!(!has_good_tokens(desk));
}

/// That there may be more is said everywhere, with this reason; a logout does not end well, with this status.
fn admits(desk: &Desk, logout: &[&str], reason: &str, status: i32) {
    let said = desk.run(&["status"]).ok().stdout;
    assert!(said.contains(reason), "{said}");
    let json = json_status(desk);
    assert_eq!(json["sessions"], json!([]), "{json}");
    assert!(json["incomplete"]["reason"].as_str().unwrap().contains(reason), "{json}");
    let leases = desk.run(&["lease", "list"]).ok().stdout;
    assert!(leases.contains("there may be more: ") && leases.contains(reason), "{leases}");
    let Outcome { code, stdout, stderr } = desk.run(logout);
    assert_eq!(code, Some(status), "{stdout}{stderr}");
    assert!(stderr.contains(reason), "{stderr}");
    for said in [said, leases, stdout, stderr] {
        assert!(!said.to_lowercase().contains("nobody") && !said.contains("no leases"), "{said}");
    }
    assert!(has_good_tokens(desk));
}

fn json_status(desk: &Desk) -> Value {
    serde_json::from_str(&desk.run(&["status", "--json"]).ok().stdout).unwrap()
}

fn vault(desk: &Desk) -> PathBuf {
    let state = fs::read_dir(desk.sandbox.paths().state).unwrap().map(|entry| entry.unwrap().path());
    let is_vault = |path: &PathBuf| path.to_str().unwrap().contains("/vault-") && path.extension().is_none();
    state.into_iter().find(is_vault).unwrap()
}

#[test]
fn of_an_agent_that_runs() {
    each(|_| {}, knows_all);
}

#[test]
fn of_an_agent_that_was_stopped() {
    each(|desk| drop(desk.run(&["agent", "stop"]).ok()), knows_all);
}

#[test]
fn of_an_agent_that_was_killed() {
    each(|desk| desk.sandbox.kill_agent(), knows_all);
}

#[test]
fn of_an_agent_that_is_locked() {
    each(
        |desk| drop(desk.run(&["lock"]).ok()),
        |desk, logout| {
            assert!(desk.run(&["status"]).ok().stdout.starts_with("Locked by you"));
            assert_eq!(json_status(desk)["incomplete"]["remedy"], "ksb unlock");
            let leases = desk.run(&["lease", "list"]).ok().stdout;
            assert!(leases.contains("there may be more: the agent is locked. Try: ksb unlock"), "{leases}");
            let refused = desk.run(logout);
            assert_eq!((refused.code, &*refused.stdout), (Some(75), ""));
            assert!(refused.stderr.contains("the agent is locked. Try: ksb unlock"), "{}", refused.stderr);
            assert!(has_good_tokens(desk));
        },
    );
}

#[test]
fn of_a_vault_whose_passphrase_must_be_typed() {
    let happens = |desk: &mut Desk| {
        desk.run(&["agent", "stop"]).ok();
        fs::remove_file(desk.sandbox.path("passphrase")).unwrap();
        desk.sandbox.set("KSB_PASSPHRASE_FILE", "");
    };
    each(happens, |desk, logout| {
        let before = desk.run(&["status"]).ok().stdout;
        assert!(before.contains("sealed with your passphrase") && before.contains("ksb unlock"), "{before}");
        assert_eq!(json_status(desk)["running"], false, "a look starts no agent that would have to ask");
        admits(desk, logout, "sealed with your passphrase", 1);
    });
}

#[test]
fn of_a_vault_whose_key_is_gone() {
    let happens = |desk: &mut Desk| {
        desk.run(&["agent", "stop"]).ok();
        let file = vault(desk);
        let bytes = fs::read(&file).unwrap();
        let lines: Vec<_> = bytes.splitn(3, |byte| *byte == b'\n').collect();
        let mut header: Value = serde_json::from_slice(lines[1]).unwrap();
        header["key"] = json!({"kept_by": "kernel", "boot": "an earlier one"});
        fs::write(&file, [lines[0], b"\n", header.to_string().as_bytes(), b"\n", lines[2]].concat()).unwrap();
    };
    each(happens, |desk, logout| {
        admits(desk, logout, "key ended with the reboot", 1);
        let said = desk.run(logout).stderr;
        assert!(said.contains("its tokens have expired by "), "{said}");
        // The next agent has not seen that vault.
        desk.run(&["agent", "stop"]).ok();
        admits(desk, logout, "key ended with the reboot", 1);
    });
}

#[test]
fn of_a_keystone_that_does_not_answer() {
    let happens = |desk: &mut Desk| desk.keystone.go();
    each(happens, |desk, logout| {
        for _ in 0..2 {
            let Outcome { code, stdout, stderr } = desk.run(logout);
            assert_eq!(code, Some(1), "{stdout}{stderr}");
            assert!(stdout.contains("demo: NOT revoked: unscoped token, lives until "), "{stdout}");
            assert!(stderr.contains("not revoked yet; the agent tries again until "), "{stderr}");
            let status = desk.run(&["status"]).ok().stdout;
            assert!(
                status.contains("demo: alice (lab) is signed out, but not everything is revoked"),
                "{status}"
            );
            assert_ne!(json_status(desk)["unrevoked"], json!([]));
            // Neither the token's id nor the wish to end it is lost with the agent.
            desk.sandbox.kill_agent();
        }
        desk.keystone.come_back();
        desk.run(logout).ok();
        assert!(!has_good_tokens(desk));
        assert_eq!(json_status(desk)["unrevoked"], Value::Null);
    });
}

#[test]
fn where_nothing_was_ever_signed_in_nothing_is_started() {
    let desk = Desk::new();
    for args in [&["logout"][..], &["logout", "--all"], &["status"]] {
        assert!(desk.run(args).ok().stdout.contains("nobody"));
    }
    assert!(desk.sandbox.agent_pid().is_none());
}

// --- what is tried again ---

#[test]
fn what_could_not_be_revoked_is_as_soon_as_keystone_answers_again() {
    let lab = Lab::new();
    lab.signed_in("alice");
    lab.keystone.go();
    let ended = lab.api().logout(&lab.cloud());
    assert_eq!(ended[0]["not_revoked"].as_array().unwrap().len(), 1);
    lab.clock.advance(2);
    lab.keystone.come_back();
    until("it is tried again", || {
        lab.clock.advance(60);
        !lab.keystone.all_tokens().iter().any(|token| lab.keystone.accepts(token))
    });
    until("nothing is left", || lab.api().status()["unrevoked"].is_null());
}

#[test]
fn a_silent_keystone_is_not_waited_for_longer_than_ten_seconds() {
    let lab = Lab::new();
    lab.signed_in("alice");
    let lease = lab.api().post(
        "/v1/leases",
        &json!({"cloud": lab.cloud(), "scope": scope::project("demo"), "confined": true}),
    );
    assert_eq!(lease.status, 201, "{lease:?}");
    let id = lease.json["lease"]["id"].as_str().unwrap().to_owned();
    // It answers neither revocations nor requests for a token to delete by.
    let mut silent: Vec<_> =
        [REVOCATION, EXCHANGE].map(|request| lab.keystone.on(request, Fault::Waits)).into();
    let ends = |end: &(dyn Fn() -> Value + Sync)| {
        std::thread::scope(|threads| {
            let ending = threads.spawn(end);
            until("it is told", || {
                lab.clock.advance(1);
                ending.is_finished()
            });
            ending.join().unwrap()
        })
    };
    let ended = ends(&|| lab.api().delete(&format!("/v1/leases/{id}")).json);
    assert!(ended["not_revoked"].to_string().contains("there is no answer yet"), "{ended}");
    let ended = ends(&|| lab.api().logout(&lab.cloud())[0].clone());
    assert!(ended["not_revoked"].to_string().contains("there is no answer yet"), "{ended}");
    assert_ne!(lab.api().status()["unrevoked"], json!([]));
    silent.clear();
    until("it is revoked all the same", || {
        lab.clock.advance(60);
        !lab.keystone.all_tokens().iter().any(|token| lab.keystone.accepts(token))
    });
}

#[test]
fn what_has_expired_is_left_to_itself() {
    let lab = Lab::new();
    lab.signed_in("alice");
    lab.keystone.go();
    lab.api().logout(&lab.cloud());
    lab.clock.advance(2 * 3600);
    until("it is forgotten", || lab.api().status()["unrevoked"].is_null());
    assert_eq!(lab.api().logout(&lab.cloud()), [] as [Value; 0]);
}

#[test]
fn a_sign_in_deletes_the_credentials_that_a_lost_vault_knew_of() {
    let lab = Lab::new();
    lab.signed_in("alice");
    for wish in [json!({"confined": true}), json!({"s3": true})] {
        let mut request = json!({"cloud": lab.cloud(), "scope": scope::project("demo")});
        request.as_object_mut().unwrap().extend(wish.as_object().unwrap().clone());
        Tool::of(&lab.api().post("/v1/leases", &request));
    }
    assert_eq!((lab.keystone.credentials().len(), lab.keystone.ec2().len()), (2, 1));
    // Its memory was all that there was.
    let lab = lab.restart_agent();
    assert_eq!((lab.keystone.credentials().len(), lab.keystone.ec2().len()), (2, 1));
    lab.signed_in("alice");
    assert_eq!((lab.keystone.credentials().len(), lab.keystone.ec2().len()), (0, 0));
}
