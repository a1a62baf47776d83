//! Locked: nothing is given out, nothing is known, nothing is lost.

use std::fs;

use serde_json::{Value, json};

use crate::support::api::{Answer, scope};
use crate::support::desk::Desk;
use crate::support::http::Response;
use crate::support::keystone::{Fault, TOKEN_ENDPOINT};
use crate::support::lab::{Lab, until};
use crate::support::memory;
use crate::support::sandbox::end_of;
use crate::support::skip::{is_root, skip};
use crate::support::tool::{Tool, token as token_of};
use crate::support::world::World;

const PASSPHRASE: &str = "correct horse battery";

/// A desk whose vault a passphrase opens that no file knows, with somebody signed in.
fn desk() -> Desk {
    sealed(Desk::new())
}

fn sealed(desk: Desk) -> Desk {
    fs::write(desk.sandbox.paths().config, "vault = \"passphrase\"\nfacade_port = 0\n").unwrap();
    desk.run_and_sign_in(&["login"], "alice").ok();
    desk.api().post("/v1/vault/key", &json!({"key": "passphrase", "passphrase": PASSPHRASE}));
    desk
}

fn token(desk: &Desk) -> String {
    desk.run(&["token"]).ok().stdout.trim().to_owned()
}

fn unlock(desk: &Desk, passphrase: &str) -> Value {
    desk.api().post("/v1/unlock", &json!({"passphrase": passphrase})).json
}

#[test]
fn a_locked_agent_gives_nothing_knows_nothing_and_loses_nothing() {
    let desk = sealed(Desk::new().with_refresh_tokens());
    let handed_out = token(&desk);
    let pid = desk.sandbox.agent_pid().unwrap();
    let started_at = desk.api().status()["started_at"].clone();

    let locked = desk.run(&["lock"]).ok();
    assert_eq!(locked.stdout, "Locked. Nothing is given out until: ksb unlock\n");
    // The same process for whoever watches it, and another one for whoever reads its memory.
    assert_eq!(desk.sandbox.agent_pid(), Some(pid));
    assert_ne!(desk.api().status()["started_at"], started_at);

    let refused = desk.run(&["token"]);
    assert_eq!(
        (refused.code, refused.stderr.as_str()),
        (Some(75), "ksb: demo: the agent is locked. Try: ksb unlock\n")
    );
    let status = desk.run(&["status"]).ok().stdout;
    assert!(status.starts_with("Locked by you, since ") && status.contains("ksb unlock"), "{status}");

    // Whoever locks it once more waits for nobody to leave.
    let fresh = desk.api().status()["started_at"].clone();
    assert_eq!(desk.api().post("/v1/lock", &json!({})).json["restarts"], false);
    assert_eq!(desk.run(&["lock"]).ok().stdout, locked.stdout);
    assert_eq!(desk.api().status()["started_at"], fresh);

    assert_eq!(unlock(&desk, "wrong")["code"], "vault-sealed");
    assert_eq!(desk.api().status()["locked"]["reason"], "person", "a wrong passphrase opens nothing");
    assert_eq!(unlock(&desk, PASSPHRASE)["state"], "open");
    let again = token(&desk);
    assert!(desk.keystone.accepts(&again) && desk.keystone.accepts(&handed_out));
    // What was handed out before the lock is still ours to revoke; this identity provider has no revocation endpoint.
    let logout = desk.run(&["logout"]);
    assert_eq!((logout.code, logout.stderr.lines().count()), (Some(1), 1), "{}", logout.stderr);
    assert!(logout.stderr.contains("1 cannot be revoked by ksb"), "{}", logout.stderr);
    assert!(!desk.keystone.accepts(&again) && !desk.keystone.accepts(&handed_out));
}

#[test]
fn the_memory_of_a_locked_agent_holds_no_secret() {
    if !is_root() {
        skip!("root, to read the agent's memory");
    }
    let sealed = sealed(Desk::new().with_refresh_tokens());
    let without_a_vault = Desk::new().with_refresh_tokens();
    without_a_vault.run_and_sign_in(&["login"], "alice").ok();
    for desk in [sealed, without_a_vault] {
        let (handed_out, refreshes) = (token(&desk), desk.keystone.refresh_token());
        let pid = desk.sandbox.agent_pid().unwrap();
        memory::assert_holds(pid, &[&handed_out, &refreshes], true);
        desk.run(&["lock"]).ok();
        assert_eq!(desk.sandbox.agent_pid(), Some(pid));
        memory::assert_holds(pid, &[&handed_out, &refreshes, PASSPHRASE], false);
    }
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
    let locked = desk.run(&["lock"]).ok().stdout;
    assert!(locked.contains("no vault that sign-ins could be sealed in, so they have ended:"), "{locked}");
    assert!(locked.contains("demo: alice (lab) is signed out; 2 token(s) revoked"), "{locked}");
    assert!(!desk.keystone.accepts(&handed_out));
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

// --- with time in the test's hands ---

/// A lab whose agent has a vault, with alice signed in.
fn lab(config: &str) -> Lab {
    with_a_session_in_the_vault(Lab::with_config(&format!("vault = \"passphrase\"\n{config}")))
}

fn with_a_session_in_the_vault(lab: Lab) -> Lab {
    lab.keystone.lifetime(24 * 3600);
    lab.signed_in("alice");
    lab.api().post("/v1/vault/key", &json!({"key": "passphrase", "passphrase": PASSPHRASE}));
    lab
}

fn is_locked(lab: &Lab) -> bool {
    !lab.api().status()["locked"].is_null()
}

fn open(lab: &Lab) -> Answer {
    lab.api().post("/v1/unlock", &json!({"passphrase": PASSPHRASE}))
}

#[test]
fn an_agent_that_nobody_asks_locks_itself() {
    let lab = lab("[lock]\nidle = \"30min\"\n");
    let scope = scope::project("demo");
    for _ in 0..3 {
        lab.clock.advance(29 * 60);
        lab.api().token_unprompted(&lab.cloud(), &scope).token_id();
    }
    // Looking is not using.
    lab.clock.advance(20 * 60);
    assert!(!is_locked(&lab));
    until("the lock", || {
        lab.clock.jump(3600);
        is_locked(&lab)
    });
    assert_eq!(lab.api().status()["locked"]["reason"], "idle");
    lab.api().token(&lab.cloud(), &scope).problem("locked");
    assert_eq!(open(&lab).json["state"], "open");
    lab.api().token_unprompted(&lab.cloud(), &scope).token_id();
    assert_eq!(lab.logins(), 1);
}

#[test]
fn nobody_is_locked_out_of_nothing() {
    let lab = Lab::with_config("vault = \"passphrase\"\n[lock]\nidle = \"30min\"\n");
    for _ in 0..5 {
        lab.clock.advance(3600);
    }
    assert!(!is_locked(&lab));
}

#[test]
fn leases_pause_unless_they_are_unattended() {
    let lab = lab("");
    let lease = |more: &Value| {
        let mut request = json!({"cloud": lab.cloud(), "scope": scope::project("demo")});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        lab.api().post("/v1/leases", &request)
    };
    let ordinary = Tool::of(&lease(&json!({})));
    let confined = Tool::of(&lease(&json!({"confined": true})));
    let through = Tool::of(&lease(&json!({"unattended": true, "ttl": 3600})));
    let before = token_of(&ordinary.ask());

    let locked = lab.api().post("/v1/lock", &json!({})).json;
    assert_eq!((&locked["paused"], &locked["through"]), (&json!(2), &json!(1)), "{locked}");
    assert_eq!(locked["restarts"], true);
    until("the next process", || lab.api().status()["leases"].as_array().unwrap().len() == 1);
    for paused in [&ordinary, &confined] {
        let refused = paused.ask();
        assert_eq!(refused.status, 503, "{refused:?}");
        assert!(refused.json()["error"]["message"].as_str().unwrap().contains("locked; try: ksb unlock"));
    }
    // What was given out before is not passed on for, either.
    assert_eq!(ordinary.with(&before, "GET", "/v3/auth/projects").send().status, 503);
    let while_locked = token_of(&through.ask());
    assert!(lab.accepts(&while_locked));

    // One that ends while the rest is sealed does not come back with it.
    let id = lab.api().status()["leases"][0]["id"].as_str().unwrap().to_owned();
    lab.api().delete(&format!("/v1/leases/{id}"));
    assert!(!lab.accepts(&while_locked));
    assert_eq!(open(&lab).json["state"], "open");
    let names = lab.api().status()["leases"].as_array().unwrap().len();
    assert_eq!(names, 2);
    assert_ne!(through.ask().status, 201);
    for paused in [&ordinary, &confined] {
        assert!(lab.accepts(&token_of(&paused.ask())));
    }
}

#[test]
fn each_wrong_passphrase_makes_the_next_one_wait_longer() {
    let lab = lab("");
    lab.api().post("/v1/lock", &json!({}));
    until("the next process", || lab.api().status()["sessions"] == json!([]));
    let guess = |passphrase: &str| {
        let (api, passphrase) = (lab.api().clone(), passphrase.to_owned());
        std::thread::spawn(move || api.post("/v1/unlock", &json!({"passphrase": passphrase})))
    };
    // The first one waits for nobody, and time stands still.
    guess("1").join().unwrap().problem("vault-sealed");
    for wait in [1, 2, 4] {
        let waiting = guess("again");
        lab.clock.advance(wait - 1);
        assert!(is_locked(&lab) && !waiting.is_finished());
        lab.clock.advance(1);
        waiting.join().unwrap().problem("vault-sealed");
    }
    let right = guess(PASSPHRASE);
    assert!(is_locked(&lab) && !right.is_finished(), "the right one waits as well");
    lab.clock.advance(8);
    assert_eq!(right.join().unwrap().json["state"], "open");
    assert!(!is_locked(&lab));
}

/// What must not be cut off holds the end of the old process up; its memory is not to be had any more all the same.
#[test]
fn nobody_unlocks_what_is_still_in_memory() {
    let lab = Lab::with_config("vault = \"passphrase\"\n");
    let sign_in = lab.api().login(&lab.oidc()).sign_in();
    assert_eq!(lab.browse(&sign_in.url, "alice"), "done");
    lab.api().over(&sign_in.id);
    lab.api().post("/v1/vault/key", &json!({"key": "passphrase", "passphrase": PASSPHRASE}));
    let asks = lab.keystone.count(TOKEN_ENDPOINT);
    let gate = lab.keystone.on(TOKEN_ENDPOINT, Fault::Waits);
    lab.clock.advance(7200);
    let question = json!({"cloud": lab.oidc(), "scope": scope::project("demo"), "prompt": false});
    let asked = lab.api().ask("/v1/tokens", &question);
    lab.keystone.wait_for(TOKEN_ENDPOINT, asks + 1);

    assert_eq!(lab.api().post("/v1/lock", &json!({})).status, 200);
    let unlocking = lab.api().ask("/v1/unlock", &json!({}));
    assert!(is_locked(&lab));
    lab.api().token_unprompted(&lab.oidc(), &scope::project("demo")).problem("locked");
    drop(gate);
    until("the next process", || lab.api().status()["sessions"] == json!([]));
    // Whoever asked for more than there was time for is told to ask again.
    assert_eq!(Response::read(unlocking).unwrap().json()["code"], "agent-leaving");
    drop(asked);
    lab.api().post("/v1/unlock", &json!({})).problem("vault-sealed");
    assert!(is_locked(&lab));
    open(&lab);
    lab.api().token_unprompted(&lab.oidc(), &scope::project("demo")).token_id();
    assert!(!lab.keystone.saw_reuse());
}

#[test]
fn whoever_locks_while_somebody_unlocks_has_it_locked() {
    let lab = lab("");
    lab.api().post("/v1/lock", &json!({}));
    until("the next process", || lab.api().status()["sessions"] == json!([]));
    lab.api().post("/v1/unlock", &json!({"passphrase": "wrong"})).problem("vault-sealed");
    let unlocking = lab.api().ask("/v1/unlock", &json!({"passphrase": PASSPHRASE}));
    assert_eq!(lab.api().post("/v1/lock", &json!({})).status, 200);
    lab.clock.advance(1);
    assert_eq!(Response::read(unlocking).unwrap().json()["code"], "locked");
    until("the next process", || {
        let status = lab.api().status();
        status["sessions"] == json!([]) && !status["locked"].is_null()
    });
    lab.api().post("/v1/unlock", &json!({})).problem("vault-sealed");
    open(&lab);
    lab.api().token_unprompted(&lab.cloud(), &scope::project("demo")).token_id();
}

/// Whose question it was does not matter: what is opened is taken in.
#[test]
fn who_leaves_while_the_vault_opens_loses_nobodys_sign_in() {
    let lab = Lab::with_config("vault = \"passphrase\"\n");
    fs::write(lab.agent.folder().join("takes-its-time"), "").unwrap();
    let lab = with_a_session_in_the_vault(lab.restart_agent());
    lab.api().post("/v1/lock", &json!({}));
    until("the next process", || lab.api().status()["sessions"] == json!([]));
    // Each leaves at another moment of what the key's derivation takes.
    for pauses in 0..40 {
        let asked = lab.api().ask("/v1/unlock", &json!({"passphrase": PASSPHRASE}));
        for _ in 0..pauses {
            lab.api().status();
        }
        drop(asked);
    }
    open(&lab);
    lab.api().token_unprompted(&lab.cloud(), &scope::project("demo")).token_id();
    assert_eq!(lab.logins(), 1);
}

#[test]
fn wrong_passphrases_and_leases_that_ended_are_remembered_without_the_vault() {
    let lab = lab("");
    let request = json!({
        "cloud": lab.cloud(), "scope": scope::project("demo"), "unattended": true, "ttl": 3600,
    });
    let through = Tool::of(&lab.api().post("/v1/leases", &request));
    lab.api().post("/v1/lock", &json!({}));
    until("the next process", || lab.api().status()["sessions"] == json!([]));
    let id = lab.api().status()["leases"][0]["id"].as_str().unwrap().to_owned();
    lab.api().delete(&format!("/v1/leases/{id}"));
    lab.api().post("/v1/unlock", &json!({"passphrase": "wrong"})).problem("vault-sealed");

    let lab = lab.restart_agent();
    let right = lab.api().ask("/v1/unlock", &json!({"passphrase": PASSPHRASE}));
    assert!(is_locked(&lab), "it waits");
    lab.clock.advance(1);
    assert_eq!(Response::read(right).unwrap().json()["state"], "open");
    assert_eq!(lab.api().status()["leases"], json!([]));
    assert_ne!(through.ask().status, 201);
}

#[test]
fn a_lock_gives_no_program_another_sign_in() {
    let config = "[prompt]\ncool_down = \"20min\"\n";
    for lab in [lab(config), Lab::with_config(config)] {
        let other = lab.cloud_with(|cloud| cloud["identity_provider"] = "other-idp".into());
        let ask = || lab.api().token(&other, &scope::project("demo"));
        let unfinished = ask().sign_in();
        lab.clock.advance(300);
        lab.api().over(&unfinished.id);
        let before = lab.api().status()["started_at"].clone();
        lab.api().post("/v1/lock", &json!({}));
        until("the next process", || lab.api().status()["started_at"] != before);
        open(&lab);
        lab.clock.advance(1199);
        ask().problem("sign-in-cooling-down");
        lab.clock.advance(1);
        ask().sign_in();
    }
}

#[test]
fn who_waits_for_news_holds_up_no_lock() {
    let lab = lab("");
    let polls = ["/v1/leases/sign-in?wait=60", "/v1/confirmations?wait=60"];
    let polls = polls.map(|path| lab.api().begin("GET", path, None));
    lab.api().post("/v1/lock", &json!({}));
    for poll in polls {
        assert_eq!(Response::read(poll).unwrap().status, 204, "and not cut off");
    }
}

#[test]
fn a_person_who_is_away_is_told_what_a_lock_cost_them() {
    let lab = Lab::with_config("[lock]\nidle = \"30min\"\n");
    lab.keystone.lifetime(24 * 3600);
    lab.signed_in("alice");
    until("the lock", || {
        lab.clock.jump(3600);
        is_locked(&lab)
    });
    until("the word of it", || !lab.agent.told().is_empty());
    let (title, text) = lab.agent.told().remove(0);
    assert_eq!(title, "ksb: locked, and signed out");
    assert!(text.contains("ksb login"), "{text}");
}

#[test]
fn a_refresh_that_is_under_way_is_finished_before_memory_is_forgotten() {
    let lab = Lab::with_config("vault = \"passphrase\"\n");
    let sign_in = lab.api().login(&lab.oidc()).sign_in();
    assert_eq!(lab.browse(&sign_in.url, "alice"), "done");
    lab.api().over(&sign_in.id);
    lab.api().post("/v1/vault/key", &json!({"key": "passphrase", "passphrase": PASSPHRASE}));
    for _ in 0..3 {
        lab.clock.advance(7200);
        let asked = lab.api().ask(
            "/v1/tokens",
            &json!({"cloud": lab.oidc(), "scope": scope::project("demo"), "prompt": false}),
        );
        lab.api().post("/v1/lock", &json!({}));
        until("the next process", || lab.api().status()["sessions"] == json!([]));
        drop(asked);
        open(&lab);
        // A rotated refresh token that was lost would be asked with again, which the provider takes for theft.
        lab.api().token_unprompted(&lab.oidc(), &scope::project("demo")).token_id();
        assert!(!lab.keystone.saw_reuse());
    }
    assert_eq!(lab.keystone.grants(), 1);
}
