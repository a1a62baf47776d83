//! `ksb refresh`: new roles show, also those of groups, which a federated token holds as they were at its sign-in.

use serde_json::json;

use crate::support::api::scope;
use crate::support::browser::Browser;
use crate::support::desk::Desk;
use crate::support::keystone::TOKEN_ENDPOINT;
use crate::support::sandbox::end_of;
use crate::support::spawn::start;

/// A project that alice reaches by a group.
const GROUPED: &str = "grouped";

fn reaches(desk: &Desk) -> bool {
    let args = ["token", "demo", "--project", GROUPED, "--project-domain", "lab"];
    let outcome = desk.run(&args);
    if outcome.code != Some(0) {
        assert!(outcome.stderr.contains("no role there"), "{outcome:?}");
        assert!(outcome.stderr.contains("have changed since you signed in: ksb refresh demo"), "{outcome:?}");
    }
    outcome.code == Some(0)
}

fn by_code(desk: &Desk) {
    let issuer = format!("{}/idp", desk.keystone.url());
    desk.sandbox.clouds(&format!(
        "clouds:\n  demo:\n    auth_type: v3broker\n    auth: {{auth_url: '{}/v3', identity_provider: lab-idp, protocol: openid, \
         sign_in: oidc_code, discovery_endpoint: '{issuer}/.well-known/openid-configuration', client_id: cli, \
         project_name: demo, project_domain_name: lab}}\n",
        desk.keystone.url()
    ));
}

#[test]
fn a_group_that_was_added_shows_after_a_sign_in_that_refresh_asks_for() {
    let desk = Desk::new();
    let before = desk.run_and_sign_in(&["token"], "alice").ok().stdout;
    desk.keystone.join_group_of("alice", GROUPED);
    assert!(!reaches(&desk));
    let refreshed = desk.run_and_sign_in(&["refresh"], "alice").ok();
    assert!(
        refreshed.stderr.starts_with("ksb: demo: your groups are those of your sign-in"),
        "{refreshed:?}"
    );
    assert!(
        refreshed.stdout.starts_with("demo: renewed, with the groups of now: alice (lab) "),
        "{refreshed:?}"
    );
    assert!(reaches(&desk));
    assert_ne!(desk.run(&["token"]).ok().stdout, before);
    assert_eq!(desk.keystone.logins(), 2);
}

#[test]
fn a_session_with_a_refresh_token_is_renewed_without_a_browser() {
    let mut desk = Desk::new();
    by_code(&desk);
    desk.run_and_sign_in(&["token"], "alice").ok();
    desk.keystone.join_group_of("alice", GROUPED);
    assert!(!reaches(&desk));
    // No user may be asked, and none is needed.
    desk.sandbox.set("KSB_PROMPT", "never");
    let asked = desk.keystone.count(TOKEN_ENDPOINT);
    desk.run(&["refresh"]).ok();
    assert_eq!(desk.keystone.count(TOKEN_ENDPOINT), asked + 1);
    assert!(reaches(&desk));
}

#[test]
fn where_no_person_may_be_asked_refresh_says_so_and_drops_what_it_can() {
    let mut desk = Desk::new();
    let before = desk.run_and_sign_in(&["token"], "alice").ok().stdout;
    desk.sandbox.set("KSB_PROMPT", "never");
    let outcome = end_of(start(desk.sandbox.command("setsid").args([
        "--wait",
        crate::support::sandbox::KSB,
        "refresh",
    ])));
    assert_eq!(outcome.code, Some(75), "{outcome:?}");
    assert_eq!(outcome.stdout, "demo: 1 scoped token(s) dropped; the next command gets new ones\n");
    assert!(outcome.stderr.contains("only a new sign-in renews them"), "{outcome:?}");
    assert!(outcome.stderr.contains("in a terminal: ksb refresh demo"), "{outcome:?}");
    assert_ne!(desk.run(&["token"]).ok().stdout, before);
}

#[test]
fn a_lease_has_the_new_groups_as_well() {
    let desk = Desk::new();
    desk.run_and_sign_in(&["token"], "alice").ok();
    let api = desk.api();
    desk.keystone.join_group_of("alice", GROUPED);
    desk.run_and_sign_in(&["refresh"], "alice").ok();
    let cloud: serde_json::Value =
        serde_json::from_str(&desk.run(&["clouds", "show", "--json"]).ok().stdout).unwrap();
    let request = json!({"cloud": cloud["cloud"], "scope": scope::project(GROUPED)});
    let lease = api.post("/v1/leases", &request);
    assert_eq!(lease.status, 201, "{lease:?}");
    assert_eq!(crate::support::tool::Tool::of(&lease).ask().status, 201);
}

#[test]
fn where_nobody_is_signed_in_nobody_is_asked() {
    let desk = Desk::new();
    let outcome = desk.run(&["refresh"]);
    assert_eq!((outcome.code, desk.keystone.logins()), (Some(75), 0), "{outcome:?}");
    assert!(outcome.stderr.contains("ksb login demo"), "{outcome:?}");
}

#[test]
fn another_user_s_sign_in_changes_nothing() {
    let desk = Desk::new();
    desk.run_and_sign_in(&["token"], "alice").ok();
    let (ksb, url) = desk.waiting(&["refresh"]);
    let shown = Browser::of("bob").tab().sign_in(&url);
    assert_ne!(shown.state, "done", "{shown:?}");
    drop(ksb);
    assert_eq!(desk.api().status()["sessions"][0]["user"]["name"], "alice");
}
