//! Leases at the real Keystone: what their tokens can do there, what they leave, and what a killed agent leaves.

use std::collections::BTreeSet;
use std::fs;
use std::thread;

use reqwest::Method;
use serde_json::{Value, json};

use super::front::Front;
use super::gate::{Gate, Hold, When};
use super::keystone::Answer;
use super::vault::KernelKey;
use super::wait;
use crate::support::api::scope;
use crate::support::port;
use crate::support::tool::{Tool, token};

/// A request to Keystone itself, with a token, past the facade.
#[track_caller]
pub fn straight(front: &Front, token: &str, method: Method, path: &str, body: Option<&Value>) -> Answer {
    front.keystone.call(method, path, &[("X-Auth-Token", token)], body)
}

/// A token made from another one by Keystone itself: its status, and the token.
#[track_caller]
pub fn rescoped(front: &Front, token: &str, scope: &Value) -> Answer {
    let identity = json!({"methods": ["token"], "token": {"id": token}});
    let body = json!({"auth": {"identity": identity, "scope": scope}});
    front.keystone.call(Method::POST, "/auth/tokens", &[], Some(&body))
}

/// Whether Keystone refused another scope to the token of an application credential. Old ones crash (`KeyError` in
/// `authenticate_for_token`), and give no token either; Apache answers for them.
pub fn is_refused_scope(answer: &Answer) -> bool {
    let is_old = std::env::var("KSB_STACK_KEYSTONE").is_ok_and(|release| !release.is_empty());
    answer.token.is_none() && (answer.status == 403 || is_old && answer.status == 502)
}

/// An application credential that would outlive everything.
fn everlasting() -> Value {
    json!({"application_credential": {"name": "ksb-test-stolen", "unrestricted": true}})
}

/// Ids of the application credentials of a user, by their names.
#[track_caller]
fn credentials(front: &Front, user: &str) -> Vec<(String, String)> {
    let listed = front.keystone.admin().call(Method::GET, &format!("/users/{user}/application_credentials"));
    assert_eq!(listed.status, 200, "{}", listed.json);
    let listed = listed.json["application_credentials"].as_array().unwrap().clone();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    listed.iter().map(|each| (text(&each["name"]), text(&each["id"]))).collect()
}

/// The names of those that the broker made.
fn ours(front: &Front, user: &str) -> BTreeSet<String> {
    let names = credentials(front, user).into_iter().map(|(name, _)| name);
    names.filter(|name| name.starts_with("ksb-lease-")).collect()
}

#[test]
fn two_clouds_and_three_leases_at_once_never_mix() {
    let front = Front::free();
    let staging = front.entry("staging", "staging");
    let other = front.entry("other", "demo").replace("lab-idp", "other-idp");
    front.clouds(&[front.entry("demo", "demo"), staging, other]);
    let entries = ["demo", "staging", "other"];
    for entry in ["demo", "other"] {
        front.ksb(&["login", entry]).ok();
        front.browsers.ended();
    }
    let tools = entries.map(|entry| Tool::of(&front.lease(entry, &json!({}))));
    front.requests();
    // Each many times at once, every time on a connection of its own.
    let seen: Vec<_> = thread::scope(|threads| {
        let asking = (0..24).map(|number| {
            let tool = &tools[number % 3];
            threads.spawn(move || {
                let answer = tool.ask();
                let id = token(&answer);
                let there = tool.with(&id, "GET", "/v3/auth/tokens").add("X-Subject-Token", &id).send();
                assert_eq!(there.json()["token"]["user"], answer.json()["token"]["user"]);
                (number % 3, id)
            })
        });
        asking.collect::<Vec<_>>().into_iter().map(|asking| asking.join().unwrap()).collect()
    });
    let exchanges = front.requests().iter().filter(|request| request.is_exchange()).count();
    assert_eq!(exchanges, 3, "one for each lease");
    let of =
        |which: usize| seen.iter().filter(|(of, _)| *of == which).map(|(_, id)| id).collect::<BTreeSet<_>>();
    let tokens = [0, 1, 2].map(|which| {
        assert_eq!(of(which).len(), 1, "{which}");
        (*of(which).first().unwrap()).clone()
    });
    let wanted = [("lab", "demo"), ("lab", "staging"), ("other", "demo")];
    for (id, (domain, project)) in tokens.iter().zip(wanted) {
        let known = front.keystone.look_at(id).unwrap();
        assert_eq!(
            (&known["user"]["domain"]["name"], &known["project"]["name"]),
            (&json!(domain), &json!(project))
        );
        assert_eq!(known["user"]["name"], front.user());
    }
    // None sees, takes back or uses what is another's.
    for (tool, mine) in tools.iter().zip(&tokens) {
        for theirs in tokens.iter().filter(|theirs| *theirs != mine) {
            for method in ["GET", "DELETE"] {
                let about = tool.with(mine, method, "/v3/auth/tokens").add("X-Subject-Token", theirs);
                assert_eq!(about.send().status, 404);
            }
        }
    }
    assert!(tokens.iter().all(|id| front.keystone.accepts(id)));
    // Nor does the end of one touch the others.
    let ended = front.api().delete(&format!("/v1/leases/{}", tools[0].id)).json;
    assert_eq!((&ended["revoked"], &ended["not_revoked"]), (&json!(1), &json!([])));
    assert_eq!(tokens.each_ref().map(|id| front.keystone.accepts(id)), [false, true, true]);
    assert_eq!([tools[0].ask(), tools[1].ask(), tools[2].ask()].map(|answer| answer.status), [401, 201, 201]);
}

#[test]
fn a_confined_leases_token_is_refused_by_keystone_itself_wherever_it_is_taken() {
    let front = Front::free();
    front.ksb(&["login"]).ok();
    let whole = Tool::of(&front.lease("demo", &json!({"ttl": 600}))).token();
    let made = front.lease("demo", &json!({"confined": true, "ttl": 600}));
    assert_eq!(made.json["lease"]["confined"], true, "{}", made.text);
    let tool = Tool::of(&made);
    let mine = tool.token();
    let known = front.keystone.look_at(&mine).unwrap();
    let user = known["user"]["id"].as_str().unwrap().to_owned();
    let (demo, staging) = (known["project"]["id"].clone(), scope::project("staging"));
    assert_eq!(known["project"]["name"], "demo");
    let making = format!("/users/{user}/application_credentials");
    let ec2 = format!("/users/{user}/credentials/OS-EC2");

    // The control: this is what an ordinary token can do.
    assert_eq!(rescoped(&front, &whole, &staging).status, 201);
    let made = straight(&front, &whole, Method::POST, &ec2, Some(&json!({"tenant_id": demo})));
    assert_eq!(made.status, 201, "{}", made.json);
    let access = made.json["credential"]["access"].as_str().unwrap();
    assert_eq!(straight(&front, &whole, Method::DELETE, &format!("{ec2}/{access}"), None).status, 204);

    for wanted in [&staging, &scope::project("demo"), &json!("unscoped"), &json!({"domain": {"name": "lab"}})]
    {
        let refused = rescoped(&front, &mine, wanted);
        assert!([401, 403].contains(&refused.status), "{wanted}: {refused:?}");
        assert_eq!(refused.token, None);
    }
    assert_eq!(rescoped(&front, &mine, &staging).status, 403);
    for (method, path, body) in [
        (Method::POST, making.clone(), Some(everlasting())),
        (Method::POST, ec2.clone(), Some(json!({"tenant_id": demo}))),
        (
            Method::POST,
            "/OS-TRUST/trusts".into(),
            Some(json!({"trust": {
            "trustor_user_id": user, "trustee_user_id": user, "impersonation": true, "project_id": demo,
            "roles": [{"name": "member"}]}})),
        ),
    ] {
        let refused = straight(&front, &mine, method.clone(), &path, body.as_ref());
        assert_eq!(refused.status, 403, "{method} {path}: {}", refused.json);
        // By way of the facade it is the same.
        let mut request = tool.with(&mine, method.as_str(), &format!("/v3{path}"));
        if let Some(body) = body {
            request = request.body("application/json", body.to_string());
        }
        assert_eq!(request.send().status, 403, "{method} {path}");
    }
    // Nor can its holder have it outlive the lease by deleting the one that is to delete it.
    let made = credentials(&front, &user).into_iter().filter(|(name, _)| name.contains(&tool.id));
    let made: Vec<_> = made.collect();
    assert_eq!(made.len(), 2, "{made:?}");
    for (name, id) in &made {
        let refused = straight(&front, &mine, Method::DELETE, &format!("{making}/{id}"), None);
        assert_eq!(refused.status, 403, "{name}: {}", refused.json);
    }

    let ended = front.api().delete(&format!("/v1/leases/{}", tool.id)).json;
    assert_eq!((&ended["deleted"], &ended["not_revoked"]), (&json!(2), &json!([])), "{ended}");
    assert!(!front.keystone.accepts(&mine), "dead at once");
    assert!(!credentials(&front, &user).iter().any(|(name, _)| name.contains(&tool.id)));
    assert_eq!(tool.ask().status, 401);
    assert!(front.keystone.accepts(&whole));
}

#[test]
fn a_cloud_whose_memberships_do_not_last_is_said_to_need_an_authorization_ttl() {
    let front = Front::free();
    front.clouds(&[front.entry("demo", "demo").replace("lab-idp", "momentary-idp")]);
    front.ksb(&["login"]).ok();
    let user = front.keystone.look_at(&front.token(&[])).unwrap()["user"]["id"].as_str().unwrap().to_owned();
    let refused = front.ksb(&["lease", "create", "--unattended", "1h"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("authorization_ttl") && refused.stderr.contains("Try: "), "{refused:?}");
    let refused = front.ksb(&["lease", "create", "--confined"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("authorization_ttl"), "{refused:?}");
    assert!(refused.stderr.contains("--whole-identity"), "{refused:?}");
    assert_eq!(front.api().get("/v1/leases").json["leases"], json!([]));
    assert_eq!(ours(&front, &user), BTreeSet::new(), "nothing is left of the attempts");
    // With that word it is the whole identity, and said to be.
    let made = front.ksb(&["lease", "create", "--confined", "--whole-identity", "--json"]).ok();
    let made: Value = serde_json::from_str(&made.stdout).unwrap();
    assert_eq!(made["lease"]["confined"], false);
    assert!(made["lease"]["notices"][0].as_str().unwrap().contains("not confined"), "{made}");
}

const MAKING: (&str, &str) = ("POST", "/application_credentials");
const LOOKING: (&str, &str) = ("GET", "/application_credentials");
const DELETING: (&str, &str) = ("DELETE", "/application_credentials/");

/// Made are the reaper and what tokens come from, deleted the latter and then the former.
#[test]
fn whenever_the_agent_is_killed_no_application_credential_is_left() {
    let mut front = Front::free();
    let gate = Gate::start();
    front.sandbox.set("https_proxy", gate.url());
    let config = format!("vault = \"kernel\"\nfacade_port = {}\n", port::free());
    fs::write(front.sandbox.paths().config, config).unwrap();
    front.ksb(&["login"]).ok();
    let _key = KernelKey::of(&front);
    let user = front.keystone.look_at(&front.token(&[])).unwrap()["user"]["id"].as_str().unwrap().to_owned();
    let before = ours(&front, &user);
    let left = || ours(&front, &user).difference(&before).cloned().collect::<Vec<_>>();

    // With how many of them there are when the agent dies.
    let step = |(method, path), after, when| Hold { method, path, after, when };
    let steps = [
        (step(MAKING, 0, When::Before), 0),
        (step(MAKING, 0, When::Done), 1),
        (step(MAKING, 1, When::Done), 2),
        (step(LOOKING, 0, When::Done), 2),
        (step(DELETING, 0, When::Done), 1),
        (step(DELETING, 1, When::Done), 0),
    ];
    for (step, there) in steps {
        front.browsers.ended();
        front.ksb(&["login"]).ok();
        if step.method == "POST" {
            gate.hold(step);
            let making = front.start(&["lease", "create", "--unattended", "1h"]);
            gate.is_held();
            // It would ask the next agent.
            drop(making);
            front.sandbox.kill_agent();
        } else {
            let tool = Tool::of(&front.lease("demo", &json!({"unattended": true, "ttl": 3600})));
            tool.token();
            gate.hold(step);
            let ending = front.start(&["lease", "revoke", &tool.id]);
            gate.is_held();
            drop(ending);
            front.sandbox.kill_agent();
        }
        assert_eq!(left().len(), there, "{step:?}: {:?}", left());
        front.ksb(&["agent", "start"]).ok();
        let said = front.ksb(&["logout", "--all"]).ok();
        assert_eq!(left(), [] as [&str; 0], "{step:?}: {said:?}");
        assert_eq!(front.api().get("/v1/leases").json["leases"], json!([]), "{step:?}");
    }
}

/// Nothing was kept: the next agent finds what the dead one made by its name, and says *signed in* when that is deleted.
#[test]
fn what_an_agent_without_a_vault_leaves_is_found_by_its_name() {
    let front = Front::free();
    front.ksb(&["login"]).ok();
    let user = front.keystone.look_at(&front.token(&[])).unwrap()["user"]["id"].as_str().unwrap().to_owned();
    let tool = Tool::of(&front.lease("demo", &json!({"unattended": true, "ttl": 3600})));
    let mine = tool.token();
    let left = || ours(&front, &user).into_iter().filter(|name| name.contains(&tool.id)).count();
    assert_eq!(left(), 2);
    front.sandbox.kill_agent();
    front.browsers.ended();
    front.ksb(&["login"]).ok();
    assert_eq!(left(), 0);
    wait::until("its tokens' end", || (!front.keystone.accepts(&mine)).then_some(()));
}

/// Keystone 27.0.0 lets no federated user make one: their ids are no UUIDs.
#[test]
fn an_ec2_credential_that_an_agent_without_a_vault_leaves_is_found_by_its_access_key() {
    let front = Front::free();
    front.ksb(&["login"]).ok();
    let user = front.keystone.look_at(&front.token(&[])).unwrap()["user"]["id"].as_str().unwrap().to_owned();
    Tool::of(&front.lease("demo", &json!({"s3": true})));
    let left = || {
        let listed =
            front.keystone.admin().call(Method::GET, &format!("/credentials?user_id={user}&type=ec2"));
        listed.json["credentials"].as_array().unwrap().len()
    };
    assert_eq!(left(), 1);
    front.sandbox.kill_agent();
    front.browsers.ended();
    front.ksb(&["login"]).ok();
    assert_eq!(left(), 0);
}
