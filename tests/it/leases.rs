//! Leases: what limits them, what they leave at Keystone, and how they end.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::support::api::{Answer, scope};
use crate::support::http::Response;
use crate::support::keystone::{EXCHANGE, Fault, Policy, When};
use crate::support::lab::{Lab, until};
use crate::support::tool::{Tool, token};
use crate::support::world::World;

const HOUR: i64 = 3600;

#[track_caller]
fn lease(lab: &Lab, more: &Value) -> Answer {
    let mut request = json!({"cloud": lab.cloud(), "scope": scope::project("demo")});
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    lab.api().post("/v1/leases", &request)
}

fn signed_in() -> Lab {
    let lab = Lab::new();
    lab.signed_in("alice");
    lab
}

/// Alice is signed in, and the agent has a vault.
fn with_vault() -> Lab {
    let lab = Lab::with_config("vault = \"passphrase\"\n");
    let file = lab.agent.folder().join("passphrase");
    fs::write(&file, "correct horse\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let lab = lab.restart_agent();
    lab.signed_in("alice");
    lab
}

fn refusal(response: &Response, status: u16) -> String {
    assert_eq!(response.status, status, "{response:?}");
    response.json()["error"]["message"].as_str().unwrap().to_owned()
}

fn names(lab: &Lab) -> Vec<Value> {
    let leases = lab.api().get("/v1/leases").json["leases"].clone();
    leases.as_array().unwrap().iter().map(|lease| lease["name"].clone()).collect()
}

/// The path that application credentials are made at, as the log has it.
fn making(lab: &Lab) -> String {
    let user = lab.api().status()["sessions"][0]["user"]["id"].as_str().unwrap().to_owned();
    format!("POST /v3/users/{user}/application_credentials")
}

// --- every lease ---

#[test]
fn a_lease_is_shown_once_and_listed_without_its_secret() {
    let lab = signed_in();
    let made = lease(&lab, &json!({"name": "backup", "ttl": 3600}));
    let tool = Tool::of(&made);
    assert_eq!((tool.id.len(), tool.secret.len()), (32, 64));
    let listed = lab.api().get("/v1/leases");
    assert_eq!(listed.json["leases"], json!([made.json["lease"]]));
    assert_eq!(listed.json["facade"]["url"], made.json["auth_url"]);
    assert!(!listed.text.contains(&tool.secret) && !lab.api().get("/v1/status").text.contains(&tool.secret));
    lease(&lab, &json!({"name": "backup"})).problem("invalid-request");
    lab.api().delete("/v1/leases/nothing").problem("unknown-lease");
    assert_eq!(lab.api().delete("/v1/leases/backup").json["lease"]["id"], *tool.id);
    assert_eq!(names(&lab), [] as [&str; 0]);
}

#[test]
fn revoking_a_lease_ends_its_tokens_and_nobody_elses() {
    let lab = signed_in();
    let persons = lab.api().token(&lab.cloud(), &scope::project("demo")).token_id();
    let (one, other) = (Tool::of(&lease(&lab, &json!({}))), Tool::of(&lease(&lab, &json!({}))));
    let (first, second) = (one.token(), other.token());
    let staging = token(&one.ask_for(&scope::project("staging")));
    assert!(first != second && first != persons, "each has its own");
    let revoked = lab.api().delete(&format!("/v1/leases/{}", one.id)).json;
    assert_eq!((&revoked["revoked"], &revoked["not_revoked"]), (&json!(2), &json!([])));
    assert!(!lab.keystone.accepts(&first) && !lab.keystone.accepts(&staging));
    assert!(lab.keystone.accepts(&second) && lab.keystone.accepts(&persons));
    refusal(&one.ask(), 401);
    refusal(&one.with(&first, "GET", "/v3/auth/projects").send(), 401);
    assert_eq!(other.token(), second);
}

#[test]
fn a_lease_ends_with_its_time() {
    let lab = signed_in();
    let tool = Tool::of(&lease(&lab, &json!({"ttl": 600})));
    let mine = tool.token();
    lab.clock.advance(600);
    until("its token is revoked", || !lab.keystone.accepts(&mine));
    refusal(&tool.ask(), 401);
    until("it is gone", || names(&lab).is_empty());
}

#[test]
fn a_lease_outlives_the_agent_and_its_tokens_are_still_known() {
    let lab = with_vault();
    let tool = Tool::of(&lease(&lab, &json!({"name": "backup"})));
    let mine = tool.token();
    let lab = lab.restart_agent();
    assert_eq!(tool.with(&mine, "GET", "/v3/auth/projects").send().status, 200, "an apply goes on");
    token(&tool.ask());
    assert_eq!(lab.api().delete("/v1/leases/backup").json["revoked"], 2);
    assert!(!lab.keystone.accepts(&mine));
    // What lies in the vault would not serve whoever could read it.
    let vault = fs::read(lab.agent.folder().join("state/vault-lab")).unwrap();
    assert!(!vault.windows(64).any(|bytes| bytes == tool.secret.as_bytes()));
}

#[test]
fn logging_out_ends_the_leases_of_the_session_for_good() {
    let lab = signed_in();
    let tool = Tool::of(&lease(&lab, &json!({"name": "apply"})));
    let mine = tool.token();
    let ended = lab.api().post("/v1/logout", &json!({"cloud": lab.cloud()})).json;
    assert_eq!(ended["leases"][0]["lease"]["name"], "apply");
    assert!(!lab.keystone.accepts(&mine));
    refusal(&tool.ask(), 401);
    lab.signed_in("alice");
    refusal(&tool.ask(), 401);
    assert_eq!(names(&lab), [] as [&str; 0]);
}

#[test]
fn a_lease_does_not_go_on_as_somebody_else() {
    let lab = signed_in();
    let tool = Tool::of(&lease(&lab, &json!({})));
    let mine = tool.token();
    let switch =
        lab.api().post("/v1/sign-ins", &json!({"cloud": lab.cloud(), "switch_user": true})).sign_in();
    assert_eq!(lab.browse(&switch.url, "bob"), "done");
    lab.api().over(&switch.id);
    lab.keystone.revoke(&mine);
    lab.clock.advance(6);
    let why = refusal(&tool.ask(), 401);
    assert!(why.contains("alice") && why.contains("bob") && why.contains("--switch-user"), "{why}");
    let theirs = Tool::of(&lease(&lab, &json!({})));
    assert_eq!(theirs.ask().json()["token"]["user"]["name"], "bob");
}

#[test]
fn clouds_and_leases_do_not_mix() {
    let lab = signed_in();
    let other = lab.cloud_with(|cloud| {
        cloud["name"] = json!("other");
        cloud["identity_provider"] = json!("other-idp");
    });
    let sign_in = lab.api().login(&other).sign_in();
    assert_eq!(lab.browse(&sign_in.url, "bob"), "done");
    lab.api().over(&sign_in.id);
    let of_other =
        Tool::of(&lab.api().post("/v1/leases", &json!({"cloud": other, "scope": scope::project("demo")})));
    let tools = [Tool::of(&lease(&lab, &json!({}))), Tool::of(&lease(&lab, &json!({}))), of_other];
    let users = ["alice", "alice", "bob"];
    let mut seen = Vec::new();
    for (tool, user) in tools.iter().zip(users) {
        let response = tool.ask();
        assert_eq!(response.json()["token"]["user"]["name"], user);
        seen.push(token(&response));
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 3, "each lease has its own token");
    let theirs = tools[2].token();
    for tool in &tools[..2] {
        let about = tool.with(&tool.token(), "GET", "/v3/auth/tokens").add("X-Subject-Token", &theirs);
        refusal(&about.send(), 404);
        let back = tool.with(&tool.token(), "DELETE", "/v3/auth/tokens").add("X-Subject-Token", &theirs);
        refusal(&back.send(), 404);
    }
    assert!(lab.keystone.accepts(&theirs));
}

// --- confined ---

#[test]
fn a_confined_leases_token_is_good_for_one_project_and_makes_nothing() {
    let lab = signed_in();
    let made = lease(&lab, &json!({"confined": true, "ttl": 600}));
    assert_eq!(made.json["lease"]["confined"], true);
    let tool = Tool::of(&made);
    let mine = tool.ask();
    assert_eq!(mine.json()["token"]["project"]["name"], "demo");
    let id = mine.json()["token"]["project"]["id"].clone();
    assert_eq!(token(&tool.ask_for(&json!({"project": {"id": id}}))), token(&mine));
    assert_eq!(token(&tool.ask_for(&scope::project("demo"))), token(&mine));
    for other in [scope::project("staging"), json!("unscoped"), json!({"domain": {"name": "lab"}})] {
        let why = refusal(&tool.ask_for(&other), 401);
        assert!(why.contains("confined to project demo"), "{why}");
    }
    // And by Keystone's own word, for whoever takes the token there.
    let mine = token(&mine);
    let user = made_by(&lab);
    let credential = json!({"application_credential": {
        "name": "x", "secret": "y", "unrestricted": true, "expires_at": "2030-01-01T00:00:00"}});
    let path = format!("/v3/users/{user}/application_credentials");
    let making = tool.with(&mine, "POST", &path).body("application/json", credential.to_string());
    refusal(&making.send(), 403);
}

fn made_by(lab: &Lab) -> String {
    lab.api().status()["sessions"][0]["user"]["id"].as_str().unwrap().to_owned()
}

#[test]
fn what_confines_a_lease_is_gone_with_it() {
    let lab = signed_in();
    let tool = Tool::of(&lease(&lab, &json!({"confined": true, "ttl": 600})));
    let mine = tool.token();
    let credentials = lab.keystone.credentials();
    assert_eq!(credentials.len(), 2, "{credentials:?}");
    assert!(credentials.iter().all(|name| name.starts_with("ksb-lease-")), "{credentials:?}");
    let revoked = lab.api().delete(&format!("/v1/leases/{}", tool.id)).json;
    assert_eq!((&revoked["deleted"], &revoked["not_revoked"]), (&json!(2), &json!([])));
    assert_eq!(lab.keystone.credentials(), [] as [&str; 0]);
    assert!(!lab.keystone.accepts(&mine));
}

#[test]
fn a_cloud_that_allows_no_credentials_is_said_so_and_the_whole_identity_needs_a_word() {
    for (policy, ask) in [(Policy::Forbidden, "policy"), (Policy::NoLifetime, "authorization_ttl")] {
        let lab = signed_in();
        lab.keystone.credentials_are(policy);
        let refused = lease(&lab, &json!({"confined": true}));
        let problem = refused.problem("credentials-refused");
        let remedy = problem["remedy"].as_str().unwrap();
        assert!(remedy.contains(ask) && remedy.contains("--whole-identity"), "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains("whole identity"), "{problem}");
        assert_eq!(names(&lab), [] as [&str; 0]);
        let made = lease(&lab, &json!({"confined": true, "whole_identity": true}));
        assert_eq!(made.json["lease"]["confined"], false);
        assert!(made.json["lease"]["notices"][0].as_str().unwrap().contains("not confined"), "{}", made.text);
        let tool = Tool::of(&made);
        token(&tool.ask_for(&scope::project("staging")));
        lease(&lab, &json!({"unattended": true, "whole_identity": true, "ttl": 60}))
            .problem("credentials-refused");
        assert_eq!(lab.keystone.credentials(), [] as [&str; 0]);
    }
}

#[test]
fn a_confined_lease_needs_a_project_and_a_person() {
    let lab = Lab::new();
    let request = json!({"cloud": lab.cloud(), "confined": true});
    lab.api().post("/v1/leases", &request).problem("invalid-request");
    lease(&lab, &json!({"confined": true})).problem("sign-in-needed");
    let sign_in = lease(&lab, &json!({"confined": true, "prompt": true})).sign_in();
    assert_eq!(lab.browse(&sign_in.url, "alice"), "done");
    lab.api().over(&sign_in.id);
    token(&Tool::of(&lease(&lab, &json!({"confined": true, "prompt": true}))).ask());
}

// --- unattended ---

#[test]
fn an_unattended_lease_goes_on_when_the_session_has_ended() {
    let lab = signed_in();
    let tool = Tool::of(&lease(&lab, &json!({"unattended": true, "ttl": 8 * HOUR})));
    let ordinary = Tool::of(&lease(&lab, &json!({})));
    let first = tool.token();
    lab.clock.advance(2 * HOUR);
    assert!(!lab.keystone.accepts(&first));
    let second = tool.token();
    assert!(lab.keystone.accepts(&second), "three token lifetimes are nothing to it");
    refusal(&ordinary.ask(), 401);
    assert_eq!(lab.keystone.logins(), 1);
    // Nobody is signed in, and yet nothing is left.
    let revoked = lab.api().delete(&format!("/v1/leases/{}", tool.id)).json;
    assert_eq!((&revoked["deleted"], &revoked["not_revoked"]), (&json!(2), &json!([])));
    assert_eq!(lab.keystone.credentials(), [] as [&str; 0]);
    assert!(!lab.keystone.accepts(&second));
}

#[test]
fn an_unattended_lease_ends_by_itself_long_after_the_session() {
    let lab = signed_in();
    let tool = Tool::of(&lease(&lab, &json!({"unattended": true, "ttl": 8 * HOUR})));
    lab.clock.advance(8 * HOUR);
    until("nothing is left", || lab.keystone.credentials().is_empty());
    refusal(&tool.ask(), 401);
}

#[test]
fn credentials_are_deleted_before_the_membership_ends_and_not_left_to_wake_up_again() {
    let lab = signed_in();
    lab.keystone.membership(4 * HOUR);
    let made = lease(&lab, &json!({"unattended": true, "ttl": 8 * HOUR}));
    let notice = made.json["lease"]["notices"][0].as_str().unwrap().to_owned();
    assert!(notice.contains("membership"), "{notice}");
    lab.clock.advance(4 * HOUR - 60);
    until("nothing is left", || lab.keystone.credentials().is_empty());
    refusal(&Tool::of(&made).ask(), 401);
    lab.signed_in("alice");
    assert_eq!(lab.keystone.credentials(), [] as [&str; 0]);
}

#[test]
fn logout_ends_unattended_leases_also_when_the_session_has_ended() {
    for hours in [0, 2] {
        let lab = signed_in();
        let tool = Tool::of(&lease(&lab, &json!({"unattended": true, "ttl": 8 * HOUR})));
        lab.clock.advance(hours * HOUR);
        let mine = tool.token();
        let answer = lab.api().post("/v1/logout", &json!({"cloud": lab.cloud()})).json;
        assert_eq!(answer["leases"][0]["deleted"], 2, "{answer}");
        assert_eq!(lab.keystone.credentials(), [] as [&str; 0]);
        assert!(!lab.keystone.accepts(&mine));
        refusal(&tool.ask(), 401);
    }
}

/// Whatever was under way when the agent died, the next one finishes: names and secrets were in the vault before Keystone
/// was asked.
#[test]
fn an_agent_that_dies_at_any_step_of_making_and_ending_leaves_nothing() {
    for step in 1..=2 {
        let lab = with_vault();
        let path = making(&lab);
        let cut = lab.keystone.on(&path, Fault::Waits);
        let request = json!({
            "cloud": lab.cloud(), "scope": scope::project("demo"), "unattended": true, "ttl": HOUR,
        });
        let asking = lab.api().ask("/v1/leases", &request);
        lab.keystone.wait_for(&path, 1);
        // Dead when Keystone has made the first one, or the second one as well.
        if step == 1 {
            lab.keystone.hold(0, When::Before);
            drop(cut);
            until("the next request", || lab.keystone.held().is_some());
        } else {
            drop(cut);
            until("the second one", || lab.keystone.credentials().len() == 2);
        }
        let lab = lab.restart_agent();
        lab.keystone.let_go();
        drop(asking);
        lab.api().post("/v1/logout", &json!({"cloud": lab.cloud()}));
        until("nothing is left", || lab.keystone.credentials().is_empty());
    }
}

#[test]
fn a_caller_that_leaves_cuts_off_no_end_of_a_lease() {
    let lab = signed_in();
    let tool = Tool::of(&lease(&lab, &json!({"confined": true, "ttl": 600})));
    let gate = lab.keystone.on(EXCHANGE, Fault::Waits);
    let before = lab.keystone.count(EXCHANGE);
    let path = format!("/v1/leases/{}", tool.id);
    lab.api().say("DELETE", &path, || lab.keystone.wait_for(EXCHANGE, before + 1));
    drop(gate);
    until("nothing is left", || lab.keystone.credentials().is_empty());
}

#[test]
fn a_lease_whose_caller_left_while_it_was_made_is_ended() {
    let lab = signed_in();
    let making = making(&lab);
    let cut = lab.keystone.on(&making, Fault::Waits);
    let request = json!({"cloud": lab.cloud(), "scope": scope::project("demo"), "confined": true});
    let asking = lab.api().ask("/v1/leases", &request);
    lab.keystone.wait_for(&making, 1);
    drop((asking, cut));
    until("both credentials are made", || lab.keystone.answered(&making) == 2);
    until("nothing is left", || lab.keystone.credentials().is_empty() && names(&lab).is_empty());
}

#[test]
fn what_a_vault_in_memory_lost_is_found_by_its_name_at_logout() {
    let lab = signed_in();
    lease(&lab, &json!({"unattended": true, "ttl": 8 * HOUR}));
    let lost = lab.keystone.credentials();
    let lab = lab.restart_agent();
    assert_eq!(lab.keystone.credentials(), lost);
    lab.signed_in("alice");
    let own = lab.api().token(&lab.cloud(), &scope::project("demo")).token_id();
    lab.keystone.add_credential(&own, "ksb-lease-another-host-aaaaaa-x");
    lab.keystone.add_credential(&own, "mine");
    lab.api().logout(&lab.cloud());
    assert_eq!(lab.keystone.credentials(), ["ksb-lease-another-host-aaaaaa-x", "mine"], "and nobody else's");
}

#[test]
fn a_cloud_that_cannot_be_reached_is_tried_again_at_the_next_start() {
    let lab = with_vault();
    let tool = Tool::of(&lease(&lab, &json!({"unattended": true, "ttl": 8 * HOUR})));
    lab.keystone.go();
    let revoked = lab.api().delete(&format!("/v1/leases/{}", tool.id)).json;
    assert_eq!(revoked["deleted"], 0);
    assert!(revoked["not_revoked"][0]["expires_at"].is_string(), "{revoked}");
    lab.keystone.come_back();
    assert_eq!(lab.keystone.credentials().len(), 2);
    let lab = lab.restart_agent();
    until("nothing is left", || lab.keystone.credentials().is_empty());
    refusal(&tool.ask(), 401);
}

#[test]
fn a_lease_whose_credentials_were_deleted_gets_new_ones_while_the_person_is_there() {
    let lab = signed_in();
    let tool = Tool::of(&lease(&lab, &json!({"confined": true, "ttl": 600})));
    let first = tool.token();
    let owner = lab.api().token(&lab.cloud(), &scope::project("demo")).token_id();
    lab.keystone.delete_credentials(&owner);
    assert!(!lab.keystone.accepts(&first));
    lab.clock.advance(6);
    assert!(lab.keystone.accepts(&tool.token()));
    lab.api().delete(&format!("/v1/leases/{}", tool.id));
    assert_eq!(lab.keystone.credentials(), [] as [&str; 0]);
}

#[test]
fn a_keystone_that_confines_no_lease_is_told_by_its_answer() {
    let lab = signed_in();
    let notices = || lease(&lab, &json!({"confined": true})).json["lease"]["notices"].to_string();
    assert!(!notices().contains("CVE"), "{}", notices());
    lab.keystone.credentials_are(Policy::Unfixed);
    assert!(notices().contains("CVE-2026-43001"), "{}", notices());
}

// --- S3 ---

#[test]
fn an_ec2_credential_is_made_for_a_lease_and_deleted_with_it() {
    let lab = signed_in();
    let made = lease(&lab, &json!({"s3": true}));
    let s3 = &made.json["s3"];
    assert_eq!(s3["endpoint"], lab.keystone.url(), "the root of the object store");
    assert_eq!(lab.keystone.ec2().len(), 1);
    let tool = Tool::of(&made);
    assert_eq!(lab.api().delete(&format!("/v1/leases/{}", tool.id)).json["deleted"], 1);
    assert_eq!(lab.keystone.ec2(), [] as [&str; 0]);
    lease(&lab, &json!({"s3": true, "confined": true})).problem("invalid-request");
}

#[test]
fn an_ec2_credential_that_could_not_be_deleted_is_at_the_next_sign_in() {
    let lab = with_vault();
    let tool = Tool::of(&lease(&lab, &json!({"s3": true})));
    lab.clock.advance(2 * HOUR);
    let revoked = lab.api().delete(&format!("/v1/leases/{}", tool.id)).json;
    assert_eq!(revoked["not_revoked"][0]["scope"], "the EC2 credential's");
    let lab = lab.restart_agent();
    assert_eq!(lab.keystone.ec2().len(), 1);
    lab.signed_in("alice");
    until("it is deleted", || lab.keystone.ec2().is_empty());
}

#[test]
fn one_exchange_serves_all_who_hold_a_lease_at_once() {
    let lab = signed_in();
    let tool = Tool::of(&lease(&lab, &json!({})));
    let gate = lab.keystone.on(EXCHANGE, Fault::Waits);
    let asking: Vec<_> = (0..20)
        .map(|_| {
            let tool = tool.clone();
            std::thread::spawn(move || tool.token())
        })
        .collect();
    lab.keystone.wait_for(EXCHANGE, 1);
    drop(gate);
    let mut tokens: Vec<_> = asking.into_iter().map(|asking| asking.join().unwrap()).collect();
    tokens.dedup();
    assert_eq!((tokens.len(), lab.keystone.count(EXCHANGE)), (1, 1));
}
