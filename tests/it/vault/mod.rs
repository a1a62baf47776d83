//! What outlives the agent, what does not, and who can read it.

mod hosts;
mod killed;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::agent::Agent;
use crate::support::api::{Answer, scope};
use crate::support::desk::Desk;
use crate::support::keystone::{FEDERATED, Fault, REVOCATION, TOKEN_ENDPOINT};
use crate::support::lab::{Lab, until};
use crate::support::world::World;

/// A lab whose agent has a vault that a passphrase in a file opens.
fn lab() -> Lab {
    let mut lab = Lab::with_config("vault = \"passphrase\"\n");
    write_passphrase(&lab, "correct horse");
    lab = lab.restart_agent();
    assert_eq!(report(&lab)["state"], "new", "{}", report(&lab));
    lab
}

/// RFC 9106 section 4, the second recommended choice. The agents of other tests take less.
#[test]
fn whoever_tries_a_passphrase_pays_what_is_recommended() {
    let desk = Desk::with_vault();
    desk.run_and_sign_in(&["login"], "alice").ok();
    let state = fs::read_dir(desk.sandbox.paths().state).unwrap().map(|entry| entry.unwrap().path());
    let is_vault = |path: &PathBuf| path.to_str().unwrap().contains("/vault-") && path.extension().is_none();
    let vault = fs::read(state.into_iter().find(is_vault).unwrap()).unwrap();
    let header: Value = serde_json::from_slice(vault.split(|byte| *byte == b'\n').nth(1).unwrap()).unwrap();
    let cost = ["memory", "passes", "lanes"].map(|each| header["key"][each].as_u64());
    assert_eq!(cost, [Some(65536), Some(3), Some(4)], "{header}");
}

fn write_passphrase(lab: &Lab, passphrase: &str) {
    let file = lab.agent.folder().join("passphrase");
    fs::write(&file, format!("{passphrase}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
}

fn vault_file(lab: &Lab) -> PathBuf {
    lab.agent.folder().join("state/vault-lab")
}

fn report(lab: &Lab) -> Value {
    lab.api().status()["vault"].clone()
}

fn sign_in(lab: &Lab, cloud: &Value, person: &str) {
    let sign_in = lab.api().login(cloud).sign_in();
    assert_eq!(lab.browse(&sign_in.url, person), "done");
    assert_eq!(lab.api().over(&sign_in.id)["state"], "done");
}

fn demo(lab: &Lab, cloud: &Value) -> Answer {
    lab.api().token_unprompted(cloud, &scope::project("demo"))
}

/// Every file below a directory, with its bytes.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else if path.is_file() {
            all.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    all
}

// --- what a restart keeps ---

#[test]
fn a_restart_signs_nobody_out() {
    let lab = lab();
    assert_eq!(report(&lab)["state"], "new");
    lab.signed_in("alice");
    let handed_out = demo(&lab, &lab.cloud()).token_id();
    assert_eq!((&report(&lab)["state"], &report(&lab)["key"]), (&json!("open"), &json!("passphrase")));

    let lab = lab.restart_agent();
    assert_eq!(lab.api().status()["sessions"][0]["user"]["name"], "alice");
    let exchanges = lab.exchanges();
    // Bodies of scoped tokens stay in memory: the next one is made anew from the session.
    let next = demo(&lab, &lab.cloud()).token_id();
    assert_eq!((lab.logins(), lab.exchanges()), (1, exchanges + 1));
    // What was handed out before is revoked all the same.
    assert!(lab.accepts(&handed_out) && lab.accepts(&next));
    let ended = lab.api().logout(&lab.cloud());
    assert_eq!(ended[0]["revoked"], 3, "{ended:?}");
    assert!(!lab.accepts(&handed_out) && !lab.accepts(&next));

    let lab = lab.restart_agent();
    assert_eq!(lab.api().status()["sessions"], json!([]));
    demo(&lab, &lab.cloud()).problem("sign-in-needed");
}

#[test]
fn a_pin_outlives_its_session_and_the_agent() {
    let lab = lab();
    lab.signed_in("alice");
    lab.clock.advance(24 * 3600);
    let lab = lab.restart_agent();
    assert_eq!(lab.api().status()["sessions"], json!([]), "it is over");
    let sign_in = lab.login();
    assert_eq!(lab.browse(&sign_in.url, "bob"), "wrong-user");
}

#[test]
fn a_refresh_token_outlives_the_agent_and_is_never_used_twice() {
    let mut lab = lab();
    sign_in(&lab, &lab.oidc(), "alice");
    for round in 1..=3 {
        lab = lab.restart_agent();
        // The token has ended long ago; the grant has not.
        lab.clock.advance(7200);
        assert!(lab.keystone.accepts(&demo(&lab, &lab.oidc()).token_id()));
        assert_eq!(
            (lab.keystone.count(TOKEN_ENDPOINT), lab.keystone.count(FEDERATED)),
            (1 + round, 1 + round)
        );
    }
    assert!(!lab.keystone.saw_reuse());
    assert_eq!(lab.keystone.grants(), 1);
}

#[test]
fn the_new_refresh_token_is_kept_before_it_is_used() {
    let lab = lab();
    sign_in(&lab, &lab.oidc(), "alice");
    lab.clock.advance(7200);
    // The identity provider has answered, Keystone does not: an agent that dies now has the right one.
    let down = lab.keystone.on(FEDERATED, Fault::Says(503, "down".into()));
    demo(&lab, &lab.oidc()).problem("keystone-error");
    // Once ahead of need, and perhaps once more for who asks.
    assert!(lab.keystone.count(TOKEN_ENDPOINT) >= 2);
    drop(down);
    let lab = lab.restart_agent();
    assert!(lab.keystone.accepts(&demo(&lab, &lab.oidc()).token_id()));
    assert!(!lab.keystone.saw_reuse());
}

#[test]
fn a_logout_that_was_cut_off_is_finished_by_the_next_agent() {
    let lab = lab();
    lab.signed_in("alice");
    let handed_out = demo(&lab, &lab.cloud()).token_id();
    let slow = lab.keystone.on(REVOCATION, Fault::Waits);
    let logout = lab.api().ask("/v1/logout", &json!({"cloud": lab.cloud()}));
    lab.keystone.wait_for(REVOCATION, 2);
    let next = lab.agent.restart(lab.clock.clone());
    drop(logout);
    assert_eq!(next.api().status()["sessions"], json!([]), "nobody is signed in again");
    lab.keystone.wait_for(REVOCATION, 4);
    drop(slow);
    until("it is revoked", || !lab.keystone.accepts(&handed_out));
}

#[test]
fn nothing_on_the_disk_can_be_read_and_nobody_else_may() {
    let lab = lab();
    lab.signed_in("alice");
    demo(&lab, &lab.cloud());
    sign_in(&lab, &lab.oidc(), "alice");
    demo(&lab, &lab.oidc());
    let secrets = [lab.keystone.secrets(), lab.keystone.all_tokens()].concat();
    assert!(secrets.len() >= 6, "{secrets:?}");
    let all = files(&lab.agent.folder().join("state"));
    assert!(all.iter().any(|(path, bytes)| *path == vault_file(&lab) && bytes.len() > 1000));
    for (path, bytes) in all {
        let text = String::from_utf8_lossy(&bytes);
        // The audit log says whose tokens they were.
        let name = if path.extension().is_some_and(|extension| extension == "jsonl") {
            "correct horse"
        } else {
            "alice"
        };
        for secret in secrets.iter().map(String::as_str).chain([name, "correct horse"]) {
            assert!(!text.contains(secret), "{secret} in {}", path.display());
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o177, 0, "{}", path.display());
    }
}

// --- keys ---

#[test]
fn a_wrong_passphrase_is_said_and_the_right_one_opens_it() {
    let lab = lab();
    lab.signed_in("alice");
    write_passphrase(&lab, "battery staple");
    let lab = lab.restart_agent();
    assert_eq!(report(&lab)["state"], "sealed");
    assert!(report(&lab)["reason"].as_str().unwrap().contains("not the passphrase"), "{}", report(&lab));
    // Nobody is sent to a browser who only has to open the vault.
    let refused = demo(&lab, &lab.cloud());
    assert_eq!(refused.problem("vault-sealed")["remedy"], "ksb unlock");
    assert_eq!(refused.status, 423);
    lab.api().token(&lab.cloud(), &scope::unscoped()).problem("vault-sealed");
    lab.api().login(&lab.cloud()).problem("vault-sealed");

    let unlock = |passphrase: &str| lab.api().post("/v1/unlock", &json!({"passphrase": passphrase}));
    unlock("battery staple").problem("vault-sealed");
    // The next try waits a second.
    lab.clock.advance(1);
    assert_eq!(unlock("correct horse").json["state"], "open");
    assert!(lab.accepts(&demo(&lab, &lab.cloud()).token_id()));
    assert_eq!(lab.logins(), 1);
}

#[test]
fn a_passphrase_that_others_can_read_is_not_taken() {
    let lab = lab();
    lab.signed_in("alice");
    let file = lab.agent.folder().join("passphrase");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let lab = lab.restart_agent();
    assert_eq!(report(&lab)["state"], "sealed");
    assert_eq!(report(&lab)["remedy"], format!("chmod 600 {}", file.display()));
}

#[test]
fn the_key_changes_hands_and_the_sessions_stay() {
    let lab = lab();
    lab.signed_in("alice");
    let before = fs::read(vault_file(&lab)).unwrap();
    let changed = lab.api().post("/v1/vault/key", &json!({"key": "passphrase", "passphrase": "another"}));
    assert_eq!((&changed.json["state"], &changed.json["key"]), (&json!("open"), &json!("passphrase")));
    // Not one byte of the old file opens the new one.
    assert_ne!(fs::read(vault_file(&lab)).unwrap()[..200], before[..200]);
    let lab = lab.restart_agent();
    assert_eq!(report(&lab)["state"], "sealed", "the file has the old passphrase");
    assert_eq!(lab.api().post("/v1/unlock", &json!({"passphrase": "another"})).json["state"], "open");
    assert!(lab.accepts(&demo(&lab, &lab.cloud()).token_id()));
}

#[test]
fn in_memory_it_says_so_and_what_a_restart_loses() {
    let lab = Lab::with_config("vault = \"memory\"\n");
    lab.signed_in("alice");
    assert_eq!(report(&lab)["state"], "memory");
    assert_eq!(report(&lab)["reason"], "config.toml says `vault = \"memory\"`");
    assert!(!vault_file(&lab).exists());
    let lab = lab.restart_agent();
    demo(&lab, &lab.cloud()).problem("sign-in-needed");
}

// --- what is not as it should be ---

#[test]
fn damage_is_put_aside_and_said_and_the_next_sign_in_is_kept_again() {
    for damage in [
        &(|bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 2)) as &dyn Fn(&mut Vec<u8>),
        &|bytes| bytes.clear(),
        &|bytes| *bytes.last_mut().unwrap() ^= 1,
        &|bytes| bytes[30] ^= 1,
    ] {
        let lab = lab();
        lab.signed_in("alice");
        let mut bytes = fs::read(vault_file(&lab)).unwrap();
        damage(&mut bytes);
        fs::write(vault_file(&lab), &bytes).unwrap();
        let lab = lab.restart_agent();
        let reason = report(&lab)["reason"].as_str().unwrap().to_owned();
        let aside = PathBuf::from(reason.split("put aside as ").nth(1).expect(&reason));
        assert_eq!(fs::read(aside).unwrap(), bytes, "nothing is thrown away");
        lab.signed_in("alice");
        let lab = lab.restart_agent();
        assert_eq!(lab.api().status()["sessions"][0]["user"]["name"], "alice");
    }
}

/// The agent of `lab` finds this in its vault's place, leaves it alone, and works without.
fn left_alone(lab: Lab, bytes: &[u8], why: &str) {
    fs::create_dir_all(lab.agent.folder().join("state")).unwrap();
    fs::write(vault_file(&lab), bytes).unwrap();
    let lab = lab.restart_agent();
    let report = report(&lab);
    assert_eq!(report["state"], "memory", "{report}");
    assert!(report["reason"].as_str().unwrap().contains(why), "{report}");
    assert!(report["remedy"].is_string(), "{report}");
    lab.signed_in("alice");
    assert!(lab.accepts(&demo(&lab, &lab.cloud()).token_id()));
    assert_eq!(fs::read(vault_file(&lab)).unwrap(), bytes);
}

#[test]
fn the_vault_of_a_newer_program_is_left_to_it() {
    left_alone(lab(), b"keystone-broker vault 2\nwho knows", "a newer ksb wrote it");
}

#[test]
fn the_vault_of_another_machine_is_refused() {
    let elsewhere = lab();
    elsewhere.signed_in("alice");
    left_alone(
        lab(),
        &{
            let text = fs::read(vault_file(&elsewhere)).unwrap();
            let at = text.windows(5).position(|part| part == b"\"lab\"").unwrap();
            [&text[..at], b"\"far\"", &text[at + 5..]].concat()
        },
        "made on another machine",
    );
}

#[test]
fn where_nothing_can_be_written_everything_goes_on_in_memory() {
    let lab = lab();
    lab.signed_in("alice");
    let kept = fs::read(vault_file(&lab)).unwrap();
    // Something that cannot be removed is where the new file would be written.
    let obstacle = lab.agent.folder().join("state/vault-lab.new/in the way");
    fs::create_dir_all(&obstacle).unwrap();
    let token = demo(&lab, &lab.cloud()).token_id();
    assert!(lab.accepts(&token), "the caller is served");
    let problem = report(&lab)["problem"].as_str().unwrap().to_owned();
    assert!(problem.contains("vault-lab"), "{problem}");
    assert_eq!(fs::read(vault_file(&lab)).unwrap(), kept, "what was kept stays");
    fs::remove_dir_all(obstacle.parent().unwrap()).unwrap();
    lab.api().token_unprompted(&lab.cloud(), &scope::project("staging")).token_id();
    assert_eq!(report(&lab)["problem"], Value::Null);
    // The next save had all of it.
    let lab = lab.restart_agent();
    let ended = lab.api().logout(&lab.cloud());
    assert_eq!(ended[0]["revoked"], 3, "{ended:?}");
    assert!(!lab.accepts(&token));
}

// --- several agents ---

#[test]
fn a_second_agent_of_the_same_machine_keeps_its_hands_off() {
    let lab = lab();
    lab.signed_in("alice");
    let kept = fs::read(vault_file(&lab)).unwrap();
    let second = lab.agent.beside(lab.clock.clone());
    let report = second.api().status()["vault"].clone();
    assert_eq!(report["state"], "memory");
    assert!(report["reason"].as_str().unwrap().contains("another agent of yours"), "{report}");
    assert_eq!(second.api().status()["sessions"], json!([]));
    assert_eq!(fs::read(vault_file(&lab)).unwrap(), kept);
}

#[test]
fn two_machines_that_share_a_home_do_not_use_each_others_refresh_tokens() {
    let lab = lab();
    sign_in(&lab, &lab.oidc(), "alice");
    fs::write(lab.agent.folder().join("machine"), "other").unwrap();
    let other = lab.agent.beside(lab.clock.clone());
    let of = |agent: &Agent| {
        let answer = agent.api().token_unprompted(&lab.oidc(), &scope::project("demo"));
        lab.keystone.accepts(&answer.token_id())
    };
    other.api().token_unprompted(&lab.oidc(), &scope::project("demo")).problem("sign-in-needed");
    let sign_in = other.api().login(&lab.oidc()).sign_in();
    assert_eq!(lab.browse(&sign_in.url, "alice"), "done");
    other.api().over(&sign_in.id);
    for _ in 0..3 {
        lab.clock.advance(7200);
        assert!(of(&lab.agent) && of(&other));
    }
    assert!(!lab.keystone.saw_reuse());
    assert_eq!(lab.keystone.grants(), 2);
    // Nor does a logout on one of them end what the other one has.
    other.api().logout(&lab.oidc());
    lab.clock.advance(7200);
    assert!(of(&lab.agent));
}
