//! `kill -9` at every step: what had been answered is still there, nothing is left behind, and nobody hangs.

use serde_json::{Value, json};

use crate::support::api::{Api, scope};
use crate::support::browser::Browser;
use crate::support::desk::Desk;
use crate::support::keystone::{TOKEN_ENDPOINT, When};
use crate::support::killing::{Step, at_every_step, at_every_word};
use crate::support::lab::until;
use crate::support::tool::{Tool, token};

/// A user signs in from the beginning to the end.
#[track_caller]
fn sign_in(api: &Api, cloud: &Value) {
    let sign_in = api.login(cloud).sign_in();
    assert_eq!(Browser::of("alice").tab().sign_in(&sign_in.url).state, "done");
    assert_eq!(api.over(&sign_in.id)["state"], "done");
}

/// Nobody is signed in.
fn signed_out(desk: &Desk) {
    let said = desk.api_of_a_new_agent().post("/v1/logout", &json!({}));
    assert_eq!(said.status, 200, "{}", said.text);
}

/// Somebody is.
fn signed_in(desk: &Desk, cloud: &Value) {
    let api = desk.api_of_a_new_agent();
    if api.token_unprompted(cloud, &scope::project("demo")).status != 200 {
        sign_in(&api, cloud);
    }
}

/// The next program has its token, or asks for one sign-in. Whether it had.
#[track_caller]
fn goes_on(desk: &Desk, cloud: &Value, step: &Step) -> bool {
    let api = desk.api_of_a_new_agent();
    let answer = api.token_unprompted(cloud, &scope::project("demo"));
    let has_token = answer.status == 200;
    if !has_token {
        answer.problem("sign-in-needed");
        sign_in(&api, cloud);
    }
    let token = api.token_unprompted(cloud, &scope::project("demo")).token_id();
    assert!(desk.keystone.accepts(&token), "{step:?}");
    assert_eq!(api.status()["sign_ins"], json!([]), "{step:?}");
    has_token
}

/// The user signs out: no credential is left at Keystone.
#[track_caller]
fn leaves_nothing(desk: &Desk, step: &Step) {
    signed_out(desk);
    let left = desk.keystone.credentials();
    assert_eq!(left, [] as [&str; 0], "{step:?}");
}

fn sign_ins(desk: &Desk) {
    let cloud = desk.cloud();
    at_every_step(
        desk,
        || signed_out(desk),
        |answered| {
            sign_in(&desk.api(), &cloud);
            answered.note("signed in");
            desk.api().token_unprompted(&cloud, &scope::project("demo")).token_id();
        },
        |step, answered| {
            let has_token = goes_on(desk, &cloud, step);
            assert!(has_token || answered.is_empty(), "{step:?}: {answered:?}");
        },
    );
}

#[test]
fn a_sign_in_by_websso() {
    sign_ins(&Desk::with_quick_vault());
}

#[test]
fn a_sign_in_at_the_identity_provider() {
    let desk = Desk::with_quick_vault().with_refresh_tokens();
    sign_ins(&desk);
    assert!(!desk.keystone.saw_reuse());
}

/// The identity provider's answer that never arrived cannot be had again: using the old refresh token once more tells it of
/// a theft (RFC 9700 section 4.14.2). Nothing else costs a sign-in.
#[test]
fn a_renewal() {
    let desk = Desk::with_quick_vault().with_refresh_tokens();
    let cloud = desk.cloud();
    let ask = |scope: &Value| desk.api().token_unprompted(&cloud, scope).token_id();
    at_every_step(
        &desk,
        || {
            signed_in(&desk, &cloud);
            for token in [ask(&scope::unscoped()), ask(&scope::project("demo"))] {
                desk.keystone.revoke(&token);
            }
        },
        |answered| {
            let refused = ask(&scope::project("demo"));
            let next = desk.api().token_instead_of(&refused, &cloud, &scope::project("demo")).token_id();
            answered.note(next);
        },
        |step, answered| {
            let lost = *step == Step::Request(TOKEN_ENDPOINT.into(), When::Done);
            assert_eq!(goes_on(&desk, &cloud, step), !lost, "{step:?}");
            assert!(answered.iter().all(|token| desk.keystone.accepts(token)), "{step:?}");
            assert_eq!(desk.keystone.grants(), 1, "{step:?}");
        },
    );
}

#[test]
fn a_lease_and_its_first_token() {
    let desk = Desk::with_quick_vault();
    let cloud = desk.cloud();
    for more in [json!({}), json!({"confined": true}), json!({"unattended": true, "ttl": 3600})] {
        let mut request = json!({"cloud": cloud, "scope": scope::project("demo")});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        at_every_step(
            &desk,
            || signed_in(&desk, &cloud),
            |answered| {
                let tool = Tool::of(&desk.api().post("/v1/leases", &request));
                answered.note((tool.clone(), None));
                let first = tool.token();
                answered.note((tool, Some(first)));
            },
            |step, answered| {
                assert!(goes_on(&desk, &cloud, step), "{more} {step:?}");
                for (tool, first) in answered {
                    let next = token(&tool.ask());
                    assert!(desk.keystone.accepts(&next), "{more} {step:?}");
                    // An apply goes on with what it had.
                    if let Some(first) = first {
                        assert_eq!(tool.with(&first, "GET", "/v3/auth/projects").send().status, 200);
                    }
                }
                leaves_nothing(&desk, step);
            },
        );
    }
}

#[test]
fn the_end_of_a_lease() {
    let desk = Desk::with_quick_vault();
    let cloud = desk.cloud();
    at_every_step(
        &desk,
        || {
            signed_in(&desk, &cloud);
            let request = json!({
                "cloud": cloud, "scope": scope::project("demo"), "name": "one", "confined": true,
            });
            desk.api().delete("/v1/leases/one");
            Tool::of(&desk.api().post("/v1/leases", &request)).token();
        },
        |answered| {
            assert_eq!(desk.api().delete("/v1/leases/one").status, 200);
            answered.note(());
        },
        |step, answered| {
            assert!(goes_on(&desk, &cloud, step), "{step:?}");
            let leases = desk.api().get("/v1/leases").json["leases"].clone();
            if !answered.is_empty() || leases == json!([]) {
                // Whoever began it, the next agent finishes it by itself.
                until("nothing is left", || desk.keystone.credentials().is_empty());
                assert_eq!(leases, json!([]), "{step:?}");
            }
            leaves_nothing(&desk, step);
        },
    );
}

#[test]
fn a_logout() {
    let desk = Desk::with_quick_vault().with_refresh_tokens();
    let cloud = desk.cloud();
    let living = || desk.keystone.all_tokens().iter().filter(|token| desk.keystone.accepts(token)).count();
    at_every_step(
        &desk,
        || signed_in(&desk, &cloud),
        |answered| {
            assert_eq!(desk.api().logout(&cloud).len(), 1);
            answered.note(());
        },
        |step, answered| {
            let api = desk.api_of_a_new_agent();
            let is_out = api.status()["sessions"] == json!([]);
            assert!(is_out || answered.is_empty(), "{step:?}");
            if is_out {
                until("every token is revoked", || living() == 0);
            } else {
                goes_on(&desk, &cloud, step);
            }
        },
    );
}

/// What was answered "locked" is locked, and whatever was signed in is there after the unlock.
#[test]
fn a_lock() {
    let mut desk = Desk::with_quick_vault();
    desk.sandbox.set("KSB_LOG", "debug");
    let cloud = desk.cloud();
    sign_in(&desk.api_of_a_new_agent(), &cloud);
    let is_locked = |api: &Api| !api.status()["locked"].is_null();
    at_every_word(
        &desk,
        || {
            desk.api_of_a_new_agent().post("/v1/unlock", &json!({}));
        },
        |answered| {
            assert_eq!(desk.api().post("/v1/lock", &json!({})).status, 200);
            answered.note(());
            // The one that answers this knows nothing any more.
            until("a fresh process", || desk.api().status()["sessions"] == json!([]));
        },
        |word, answered| {
            let api = desk.api_of_a_new_agent();
            assert!(is_locked(&api) || answered.is_empty(), "{word}");
            assert_eq!(api.post("/v1/unlock", &json!({})).json["state"], "open", "{word}");
            api.token_unprompted(&cloud, &scope::project("demo")).token_id();
        },
    );
    assert_eq!(desk.keystone.logins(), 1);
}
