//! Keystone's own users: a password, a one-time code, and nothing sent twice.

use serde_json::{Value, json};

use crate::support::api::{Answer, scope};
use crate::support::keystone::{EXCHANGE, Fault, PASSWORD};
use crate::support::lab::Lab;
use crate::support::world::World;

fn cloud(lab: &Lab) -> Value {
    json!({
        "name": "demo",
        "auth_url": format!("{}/v3", lab.keystone.url()),
        "sign_in": {"way": "password", "password": {"user": {"name": "mfa0", "domain": {"name": "Default"}}}},
    })
}

/// The same with the password in the entry.
fn cloud_with_password(lab: &Lab, password: &str) -> Value {
    let mut cloud = cloud(lab);
    cloud["sign_in"]["password"]["password"] = password.into();
    cloud
}

/// A sign-in that asks.
fn asked(lab: &Lab, cloud: &Value) -> String {
    let answer = lab.api().post("/v1/sign-ins", &json!({"cloud": cloud}));
    assert_eq!(answer.status, 202, "{}", answer.text);
    let sign_in = &answer.json["sign_in"];
    assert_eq!((&sign_in["state"], sign_in.get("url")), (&json!("asking"), None));
    sign_in["id"].as_str().unwrap().to_owned()
}

fn type_in(lab: &Lab, id: &str, factor: &str, text: &str) -> Answer {
    lab.api().post(&format!("/v1/sign-ins/{id}/factors"), &json!({"factors": {factor: text}}))
}

/// What is asked for next.
fn next(lab: &Lab, id: &str, factor: &str) -> Value {
    lab.api().wait(id, |sign_in| sign_in["asks"][0]["factor"] == factor)
}

fn signed_in(lab: &Lab) {
    let id = asked(lab, &cloud(lab));
    assert_eq!(type_in(lab, &id, "password", PASSWORD).status, 204);
    next(lab, &id, "totp");
    assert_eq!(type_in(lab, &id, "totp", "123 456").status, 204);
    assert_eq!(lab.api().over(&id)["state"], "done");
}

fn token(lab: &Lab) -> Answer {
    lab.api().token_unprompted(&cloud(lab), &scope::project("demo"))
}

#[test]
fn a_password_and_a_code_are_asked_for_once_and_told_apart() {
    let lab = Lab::new();
    let id = asked(&lab, &cloud(&lab));
    assert_eq!(lab.api().look(&id)["asks"][0]["text"], "Password of mfa0 (Default)");
    let wrong = type_in(&lab, &id, "password", "hunter2");
    let said = wrong.problem("factor-refused")["detail"].as_str().unwrap();
    assert_eq!(said, "Keystone does not take the password of mfa0 (Default)");
    assert_eq!(type_in(&lab, &id, "password", PASSWORD).status, 204);
    assert_eq!(next(&lab, &id, "totp")["asks"][0]["text"], "One-time code of mfa0 (Default)");
    let wrong = type_in(&lab, &id, "totp", "000000");
    let said = wrong.problem("factor-refused")["detail"].as_str().unwrap();
    assert_eq!(said, "Keystone does not take the one-time code of mfa0 (Default)");
    assert_eq!(type_in(&lab, &id, "totp", "123456").status, 204);
    assert_eq!(lab.api().over(&id)["state"], "done");

    for _ in 0..10 {
        assert!(lab.keystone.accepts(&token(&lab).token_id()));
    }
    let tried = lab.keystone.tried();
    let sent: Vec<_> = tried.iter().map(|(method, _)| method.as_str()).collect();
    assert_eq!(sent, ["password", "password", "totp", "totp"], "each once, and none with another");
    let session = &lab.api().status()["sessions"][0];
    assert_eq!((&session["user"]["name"], &session["renews"]), (&json!("mfa0"), &json!(false)));
    lab.clock.advance(3600);
    token(&lab).problem("sign-in-needed");
}

#[test]
fn a_code_that_was_sent_is_not_sent_again_although_keystone_would_take_it() {
    let lab = Lab::new();
    signed_in(&lab);
    lab.api().logout(&cloud(&lab));
    let id = asked(&lab, &cloud_with_password(&lab, PASSWORD));
    let before = lab.keystone.tried().len();
    let again = type_in(&lab, &id, "totp", "123456");
    let said = again.problem("factor-refused")["detail"].as_str().unwrap();
    assert!(said.contains("was used before: wait for the next one"), "{said}");
    assert_eq!(lab.keystone.tried().len(), before, "it is not sent");

    // One that may or may not have arrived counts as used, too.
    lab.keystone.shows("222222");
    let trouble = lab.keystone.on(EXCHANGE, Fault::Hangs);
    type_in(&lab, &id, "totp", "222222").problem("keystone-unreachable");
    drop(trouble);
    type_in(&lab, &id, "totp", "222222").problem("factor-refused");
    lab.keystone.shows("333333");
    assert_eq!(type_in(&lab, &id, "totp", "333333").status, 204);
    assert_eq!(lab.api().over(&id)["state"], "done");
}

#[test]
fn the_entrys_password_is_sent_once_and_never_after_a_no() {
    let lab = Lab::new();
    let refused = lab.api().login(&cloud_with_password(&lab, "hunter2"));
    let problem = refused.problem("factor-refused");
    assert!(problem["remedy"].as_str().unwrap().contains("the entry's `password`"), "{problem}");
    assert!(!refused.text.contains("hunter2"));
    assert_eq!(lab.keystone.tried().len(), 1);

    // Where no rule asks for more, nobody is asked anything.
    lab.keystone.asks_for(&["password"]);
    let answer = lab.api().login(&cloud_with_password(&lab, PASSWORD));
    let id = answer.json["sign_in"]["id"].as_str().unwrap();
    assert_eq!(lab.api().over(id)["state"], "done");
    assert_eq!(token(&lab).status, 200, "the password is no part of who somebody is");
}

#[test]
fn three_wrong_answers_end_the_sign_in() {
    let lab = Lab::new();
    let id = asked(&lab, &cloud_with_password(&lab, PASSWORD));
    for code in ["000001", "000002"] {
        type_in(&lab, &id, "totp", code).problem("factor-refused");
    }
    type_in(&lab, &id, "totp", "000003").problem("unknown-sign-in");
    let over = lab.api().over(&id);
    assert_eq!((&over["state"], &over["problem"]["code"]), (&json!("failed"), &json!("factor-refused")));
    assert_eq!(over["problem"]["remedy"], "ksb login demo");
}

#[test]
fn who_is_slower_than_keystones_receipt_begins_again() {
    let lab = Lab::new();
    let mut cloud = cloud(&lab);
    cloud["sign_in"]["timeout"] = 3600.into();
    let id = asked(&lab, &cloud);
    type_in(&lab, &id, "password", PASSWORD);
    next(&lab, &id, "totp");
    lab.clock.advance(301);
    assert_eq!(type_in(&lab, &id, "totp", "123456").status, 204);
    let again = next(&lab, &id, "password");
    assert!(again["notices"][0].as_str().unwrap().contains("took too long"), "{again}");
}

#[test]
fn a_rule_that_cannot_be_met_is_named() {
    let lab = Lab::new();
    lab.keystone.asks_for(&["password", "totp", "x509"]);
    let refused = lab.api().login(&cloud_with_password(&lab, PASSWORD));
    let said = refused.problem("invalid-config")["detail"].as_str().unwrap();
    assert!(said.contains("Keystone asks for totp with x509 besides"), "{said}");
}

#[test]
fn nobody_is_asked_for_a_program_that_runs_by_itself() {
    let lab = Lab::new();
    let refused = token(&lab);
    assert_eq!(refused.problem("sign-in-needed")["remedy"], "ksb login demo");
    assert_eq!(lab.keystone.count(EXCHANGE), 0);
}

#[test]
fn a_sign_in_that_nobody_finishes_is_given_up() {
    let lab = Lab::new();
    let id = asked(&lab, &cloud(&lab));
    lab.clock.advance(300);
    let over = lab.api().over(&id);
    assert_eq!(over["problem"]["code"], "sign-in-timed-out", "{over}");
    let id = asked(&lab, &cloud(&lab));
    lab.api().delete(&format!("/v1/sign-ins/{id}"));
    assert_eq!(lab.api().over(&id)["problem"]["code"], "sign-in-cancelled");
}
