//! Somebody else wants the user's token, or wants the user to work as him: attacks on a sign-in that is under
//! way, each of them run in a real browser. `tests/stack/attacks` tells what is tried.

use std::path::Path;

use super::front::{Counts, Front, stack};
use crate::support::sandbox::{KSB, Outcome};
use crate::support::spawn;

#[test]
fn no_attack_in_chromium_succeeds() {
    attack("chromium");
}

#[test]
fn no_attack_in_firefox_succeeds() {
    attack("firefox");
}

/// One browser, one attack after the other; each ends with the user signed in as the user.
fn attack(browser: &str) {
    let front = Front::free();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stack/attacks/run.mjs");
    let mut node = front.sandbox.command("node");
    node.arg(script)
        .env("NODE_EXTRA_CA_CERTS", stack("CA"))
        .env("KSB_ATTACK_KSB", KSB)
        .env("KSB_ATTACK_SOCKET", front.sandbox.paths().socket)
        .env("KSB_ATTACK_BROWSER", browser)
        .env("KSB_ATTACK_FRONT", front.number.to_string())
        .env("KSB_ATTACK_VICTIM", front.user());
    for wish in ["KSB_ATTACK_ONLY", "KSB_ATTACK_SHOTS"] {
        node.envs(std::env::var_os(wish).map(|value| (wish, value)));
    }
    let outcome = Outcome::from(spawn::output(&mut node)).ok();
    println!("{}", outcome.stdout);
}

/// Most Keystones are not on this computer, and browsers ask more of a page that sends somebody here from outside.
#[test]
fn a_keystone_of_the_public_web_may_send_its_users_here() {
    let mut front = Front::free().in_chromium();
    let public = format!("--ip-address-space-overrides=127.0.0.1:500{}=public", front.number);
    front.sandbox.set("KSB_BROWSER_ARGS", public);
    front.ksb(&["login"]).ok();
    assert_eq!(front.counts(), Counts { browsers: 1, logins: 1, exchanges: 0 });
}
