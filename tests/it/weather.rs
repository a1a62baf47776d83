//! What stands before Keystone answers for it: a balancer while Keystone is rolled out, a login page, a limiter. Only
//! Keystone's own word ends a token, and what it says of time is passed on.

use serde_json::{Value, json};

use crate::support::api::scope;
use crate::support::keystone::{EXCHANGE, Fault, REVOCATION, VALIDATION};
use crate::support::lab::{Lab, until};
use crate::support::tool::Tool;
use crate::support::world::World;

/// Answers that are not Keystone's, each with what is said of it.
fn strangers() -> Vec<(u16, String, &'static str)> {
    let page = |title: &str| format!("<html><head><title>{title}</title></head><body>x</body></html>");
    vec![
        (404, "default backend - 404".into(), "answered 404 (default backend - 404)"),
        (401, page("Sign in to the portal"), "answered 401 (Sign in to the portal)"),
        (403, page("403 Forbidden"), "answered 403 (403 Forbidden)"),
        (404, r#"{"message": "no Route matched with those values"}"#.into(), "answered 404 ({\"message\""),
        // Keystone's shape, and another status: an error page that was written after it.
        (401, r#"{"error": {"code": 503, "message": "m", "title": "t"}}"#.into(), "answered 401"),
        (404, r#"{"error": {"message": "m", "title": "t"}}"#.into(), "answered 404"),
        (401, String::new(), "answered 401, and"),
        (302, String::new(), "answered 302, and"),
        (200, page("Welcome"), ""),
        (204, String::new(), ""),
    ]
}

#[test]
fn only_keystones_own_word_ends_a_session() {
    for (status, body, said) in strangers() {
        let lab = Lab::new();
        lab.signed_in("alice");
        let held = lab.api().token(&lab.cloud(), &scope::project("demo")).token_id();
        let fault = || Fault::Says(status, body.clone());
        {
            let _exchange = lab.keystone.on(EXCHANGE, fault());
            let _validation = lab.keystone.on(VALIDATION, fault());
            // A token that is not there yet, one that a service refused, and what Keystone is asked when in doubt.
            let answers = [
                lab.api().token_unprompted(&lab.cloud(), &scope::project("staging")),
                lab.api().token_instead_of(&held, &lab.cloud(), &scope::project("demo")),
            ];
            for answer in answers {
                let code = answer.json["code"].as_str().unwrap_or_default();
                assert_eq!((answer.status, code), (502, "not-keystone"), "{status} {body}: {}", answer.text);
                assert!(answer.text.replace("\\\"", "\"").contains(said), "{said}: {}", answer.text);
            }
        }
        assert_eq!(
            lab.api().token(&lab.cloud(), &scope::project("demo")).token_id(),
            held,
            "{status} {body}"
        );
        lab.api().token(&lab.cloud(), &scope::project("staging")).token_id();
        assert_eq!(lab.keystone.logins(), 1, "{status} {body}");
    }
}

#[test]
fn only_keystones_own_word_revokes_a_token() {
    for (status, body, _) in strangers().into_iter().filter(|(status, ..)| *status != 204) {
        let lab = Lab::new();
        lab.signed_in("alice");
        let held = lab.api().token(&lab.cloud(), &scope::project("demo")).token_id();
        {
            let _revocation = lab.keystone.on(REVOCATION, Fault::Says(status, body.clone()));
            let ended = lab.api().logout(&lab.cloud());
            assert_eq!(ended[0]["not_revoked"].as_array().unwrap().len(), 2, "{status} {body}: {ended:?}");
            assert!(lab.keystone.accepts(&held));
        }
        until("it is tried again", || {
            lab.clock.advance(60);
            !lab.keystone.all_tokens().iter().any(|token| lab.keystone.accepts(token))
        });
    }
    // What Keystone does not know any more is revoked.
    let lab = Lab::new();
    lab.signed_in("alice");
    let _revocation = lab.keystone.on(REVOCATION, Fault::Status(404));
    assert_eq!(lab.api().logout(&lab.cloud())[0]["not_revoked"], json!([]));
}

#[test]
fn a_lease_outlives_what_answers_in_keystones_place() {
    let lab = Lab::new();
    lab.signed_in("alice");
    for confined in [false, true] {
        let wish = json!({"cloud": lab.cloud(), "scope": scope::project("demo"), "confined": confined});
        let tool = Tool::of(&lab.api().post("/v1/leases", &wish));
        tool.token();
        // Its token is about to end, and a balancer answers for Keystone.
        lab.clock.advance(50 * 60);
        lab.signed_in("alice");
        lab.clock.advance(9 * 60);
        let away = lab.keystone.on(EXCHANGE, Fault::Says(404, "default backend - 404".into()));
        let refused = tool.ask();
        assert_eq!(refused.status, 502, "{}", refused.body);
        assert!(refused.body.contains("answered 404 (default backend - 404)"), "{}", refused.body);
        drop(away);
        tool.token();
    }
}

/// A limiter's or Keystone's own: (status, `Retry-After`, what a caller gets, and is told to wait).
const BUSY: [(u16, Option<&str>, u16, Option<u64>); 6] = [
    (429, Some("30"), 429, Some(30)),
    (429, None, 429, None),
    (503, Some("120"), 503, Some(120)),
    (503, None, 503, None),
    (504, None, 504, None),
    (408, None, 408, None),
];

#[test]
fn what_says_when_to_come_again_is_passed_on() {
    for (status, after, expected, seconds) in BUSY {
        let lab = Lab::new();
        lab.signed_in("alice");
        let wish = json!({"cloud": lab.cloud(), "scope": scope::project("demo")});
        let tool = Tool::of(&lab.api().post("/v1/leases", &wish));
        let headers = after.map(|after| ("Retry-After", after.to_owned()));
        let _busy = lab.keystone.on(EXCHANGE, Fault::Heads(status, headers.into_iter().collect()));
        let answer = lab.api().token_unprompted(&lab.cloud(), &scope::project("staging"));
        let after = answer.json["retry_after"].as_u64();
        assert_eq!((answer.status, after), (expected, seconds), "{status}: {}", answer.text);
        assert_eq!(answer.json["status"], expected);
        assert_eq!(answer.json["code"], "keystone-error");
        let refused = tool.ask();
        let after = refused.header("retry-after").map(|after| after.parse().unwrap());
        assert_eq!((refused.status, after), (expected, seconds), "{status}: {}", refused.body);
        assert_eq!(refused.json()["error"]["code"], expected);
    }
}

#[test]
fn a_short_rest_is_taken_for_the_caller() {
    let lab = Lab::new();
    lab.signed_in("alice");
    let busy = lab.keystone.on(EXCHANGE, Fault::Heads(429, vec![("Retry-After", "3".into())]));
    let before = lab.keystone.count(EXCHANGE);
    let (api, cloud) = (lab.api().clone(), lab.cloud());
    let waiting = std::thread::spawn(move || api.token_unprompted(&cloud, &scope::project("demo")).status);
    lab.keystone.wait_for(EXCHANGE, before + 1);
    drop(busy);
    until("it asks again", || {
        lab.clock.advance(1);
        waiting.is_finished()
    });
    assert_eq!(waiting.join().unwrap(), 200);
}

/// Keystone's own refusals of a scope: only these mean that the user has no role there.
#[test]
fn no_role_follows_from_keystones_own_refusals_alone() {
    for (status, code, answered) in [
        (401, "scope-refused", 403),
        (403, "scope-refused", 403),
        (404, "scope-refused", 403),
        (400, "keystone-error", 400),
        (409, "keystone-error", 502),
        (429, "keystone-error", 429),
        (500, "keystone-error", 500),
    ] {
        let lab = Lab::new();
        lab.signed_in("alice");
        let _refuses = lab.keystone.on(EXCHANGE, Fault::Status(status));
        let answer = lab.api().token_unprompted(&lab.cloud(), &scope::project("demo"));
        let said: &Value = &answer.json["code"];
        assert_eq!((answer.status, said.as_str().unwrap()), (answered, code), "{status}: {}", answer.text);
        assert_eq!(answer.text.contains("has no role there"), code == "scope-refused", "{}", answer.text);
    }
}

/// As after Keystone's keys were rotated, or its clock was set.
#[test]
fn a_lease_of_a_session_that_renews_itself_outlives_all_of_keystones_tokens() {
    for wish in [json!({}), json!({"confined": true}), json!({"prompt": true})] {
        let lab = Lab::new();
        let sign_in = lab.api().login(&lab.oidc()).sign_in();
        assert_eq!(lab.browse(&sign_in.url, "alice"), "done");
        let mut request = json!({"cloud": lab.oidc(), "scope": scope::project("demo")});
        request.as_object_mut().unwrap().extend(wish.as_object().unwrap().clone());
        let tool = Tool::of(&lab.api().post("/v1/leases", &request));
        let before = tool.token();
        for token in lab.keystone.all_tokens() {
            lab.keystone.revoke(&token);
        }
        // Past the time for which Keystone's word for a token counts.
        lab.clock.advance(10);
        let after = tool.token();
        assert!(after != before && lab.keystone.accepts(&after), "{wish}");
        assert_eq!(lab.api().status()["sign_ins"], json!([]), "{wish}: nobody was asked");
    }
}
