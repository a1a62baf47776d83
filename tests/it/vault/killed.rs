//! Whenever the agent is killed: the vault is whole, and nobody is asked again who need not be.

use std::collections::HashMap;
use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use keystone_broker::vault::{Opened, Place, Vault, Wish};
use serde_json::json;

use crate::support::agent::CHEAP;
use crate::support::api::scope;
use crate::support::desk::Desk;
use crate::support::keystone::{EXCHANGE, FEDERATED, Fault, REVOCATION, VALIDATION};
use crate::support::spawn;

/// Names the directory to the child, which is this binary again.
const FOLDER: &str = "KSB_TEST_VAULT";
/// Nobody has it: to ask for it marks the trace.
const MARK: &str = "/ksb-mark";
const CHILD: &str = "vault::killed::child";

fn vault(folder: &Path) -> Vault {
    Vault::at(Place {
        folder: folder.to_owned(),
        machine: Some("lab".into()),
        wish: Wish::Passphrase,
        passphrase_file: Some(folder.join("passphrase")),
        cost: CHEAP,
    })
}

#[test]
#[ignore = "what the test below kills"]
fn child() {
    let folder = env::var_os(FOLDER).expect("only the test below starts this");
    let vault = vault(Path::new(&folder));
    vault.open(None).unwrap();
    fs::read_link(MARK).unwrap_err();
    vault.save(b"new", None);
    fs::read_link(MARK).unwrap_err();
}

fn strace(folder: &Path, options: &[&str]) -> Option<i32> {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o"]).arg(folder.join("trace")).args(options);
    command.arg(env::current_exe().unwrap()).args(["--exact", CHILD, "--ignored", "--test-threads=1"]);
    spawn::output(command.env(FOLDER, folder)).status.code()
}

/// `pid call(…` of each line, between the marks; with how often this process had made the same call by then.
fn calls(trace: &str) -> Vec<(String, usize)> {
    let (mut counts, mut found, mut marks) = (HashMap::new(), Vec::new(), 0);
    for line in trace.lines() {
        let mut words = line.splitn(2, ' ');
        let (Some(process), Some(rest)) = (words.next(), words.next()) else { continue };
        let Some((call, _)) = rest.trim_start().split_once('(') else { continue };
        let count = counts.entry((process.to_owned(), call.to_owned())).or_insert(0);
        *count += 1;
        if line.contains(MARK) {
            marks += 1;
        } else if marks == 1 {
            found.push((call.to_owned(), *count));
        }
    }
    assert_eq!(marks, 2, "{trace}");
    found
}

#[test]
fn whenever_a_save_is_cut_off_the_vault_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let passphrase = folder.join("passphrase");
    fs::write(&passphrase, "correct horse").unwrap();
    fs::set_permissions(&passphrase, fs::Permissions::from_mode(0o600)).unwrap();
    vault(folder).save(b"old", None);
    let old = fs::read(folder.join("vault-lab")).unwrap();

    assert_eq!(strace(folder, &[]), Some(0));
    let calls = calls(&fs::read_to_string(folder.join("trace")).unwrap());
    for wanted in ["openat", "write", "fsync", "rename"] {
        assert!(calls.iter().any(|(call, _)| call == wanted), "a save makes the call {wanted}: {calls:?}");
    }
    let mut outcomes = Vec::new();
    for (call, count) in &calls {
        fs::write(folder.join("vault-lab"), &old).unwrap();
        let inject = format!("inject={call}:signal=KILL:when={count}");
        assert_ne!(strace(folder, &["-e", &inject]), Some(0), "{inject} killed nobody");
        let vault = vault(folder);
        let contents = vault.open(None).unwrap_or_else(|error| panic!("{inject}: {error}"));
        let Opened::Contents(contents) = contents else { panic!("{inject}: {:?}", vault.report().reason) };
        assert!([&b"old"[..], b"new"].contains(&&contents[..]), "{inject}");
        outcomes.push(contents.to_vec());
        // And it can be written again, whatever lies beside it.
        vault.save(b"newer", None);
        assert_eq!(vault.report().problem, None, "{inject}");
    }
    // The calls were those of the save: until the file has its name it had not happened, and then it had.
    let renamed = calls.iter().position(|(call, _)| call == "rename").unwrap();
    let synced = calls.iter().rposition(|(call, _)| call == "fsync").unwrap();
    assert!(outcomes[..=renamed].iter().all(|contents| contents == b"old"), "{calls:?}");
    assert_eq!(outcomes[synced], b"new", "{calls:?}");
}

#[test]
fn whenever_the_agent_is_killed_nobody_is_asked_again() {
    let desk = Desk::with_quick_vault().with_refresh_tokens();
    desk.run_and_sign_in(&["login"], "alice").ok();
    let cloud = desk.cloud();
    let token =
        |arguments: &[&str]| desk.run(&[&["token"], arguments].concat()).ok().stdout.trim().to_owned();
    // Each of what a renewal asks for on its way; the kill comes before the answer.
    for step in [VALIDATION, FEDERATED, EXCHANGE] {
        let (unscoped, scoped) = (token(&["--unscoped"]), token(&[]));
        desk.keystone.revoke(&unscoped);
        desk.keystone.revoke(&scoped);
        let so_far = desk.keystone.count(step);
        let silence = desk.keystone.on(step, Fault::Waits);
        let question = json!({"cloud": cloud, "scope": scope::project("demo"), "rejected": scoped});
        let asked = desk.api().ask("/v1/tokens", &question);
        desk.keystone.wait_for(step, so_far + 1);
        desk.sandbox.kill_agent();
        drop((asked, silence));
        let answer = desk.api_of_a_new_agent().token_instead_of(&scoped, &cloud, &scope::project("demo"));
        assert!(desk.keystone.accepts(&answer.token_id()), "{step}");
    }
    assert!(!desk.keystone.saw_reuse());
    assert_eq!(desk.keystone.grants(), 1);
    assert!(desk.keystone.count(REVOCATION) == 0);
}
