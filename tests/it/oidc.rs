//! OpenID Connect's authorization code flow, and the renewal that follows from it.

use serde_json::{Value, json};

use crate::support::api::{Answer, scope};
use crate::support::browser::Browser;
use crate::support::keystone::{FEDERATED, Fault, Lie, TOKEN_ENDPOINT};
use crate::support::lab::{Lab, until};
use crate::support::world::World;

/// Alice signs in; one token of her project is made.
fn signed_in(lab: &Lab) -> String {
    let sign_in = lab.api().login(&lab.oidc()).sign_in();
    assert_eq!(lab.browse(&sign_in.url, "alice"), "done");
    assert_eq!(lab.api().over(&sign_in.id)["state"], "done");
    unprompted(lab).token_id()
}

fn unprompted(lab: &Lab) -> Answer {
    lab.api().token_unprompted(&lab.oidc(), &scope::project("demo"))
}

fn session(lab: &Lab) -> Value {
    lab.api().status()["sessions"][0].clone()
}

// --- signing in ---

#[test]
fn a_code_is_exchanged_and_keystone_takes_the_access_token() {
    let lab = Lab::new();
    let token = signed_in(&lab);
    assert!(lab.keystone.accepts(&token));
    let session = session(&lab);
    assert_eq!(session["user"]["name"], "alice");
    assert_eq!(session["renews"], true);
    assert_eq!(lab.keystone.count(FEDERATED), 1);
    // Signed in by the identity provider itself, this is another identity than the one through Keystone.
    lab.api().token_unprompted(&lab.cloud(), &scope::project("demo")).problem("sign-in-needed");
}

#[test]
fn what_the_identity_provider_sends_is_checked_to_the_last_letter() {
    let lies = [
        (Lie::State, "refused", "does not answer this sign-in"),
        (Lie::Issuer, "refused", "https://idp.example"),
        (Lie::NoIssuer, "refused", "which identity provider"),
        (Lie::Nonce, "failed", "nonce"),
        (Lie::Audience, "failed", "ID token is not valid"),
        (Lie::Ended, "failed", "ID token is not valid"),
        (Lie::Key, "failed", "ID token is not valid"),
        (Lie::Hash, "failed", "another access token"),
        (Lie::None, "failed", "no ID token"),
        (Lie::Denied, "failed", "access_denied (The person said no)"),
    ];
    let lab = Lab::new();
    let sign_in = lab.api().login(&lab.oidc()).sign_in();
    let browser = Browser::of("alice");
    for (lie, state, why) in lies {
        lab.keystone.lies(Some(lie));
        let shown = browser.tab().open(&sign_in.url);
        assert_eq!(shown.state, state, "{lie:?}: {shown:?}");
        let said = shown.reply["message"].as_str().unwrap();
        assert!(said.contains(why), "{lie:?}: {said}");
    }
    // None of it ended the sign-in, and no token was asked of Keystone.
    assert_eq!(lab.keystone.count(FEDERATED), 0);
    lab.keystone.lies(None);
    assert_eq!(browser.tab().sign_in(&sign_in.url).state, "done");
    assert_eq!(lab.api().over(&sign_in.id)["state"], "done");
}

#[test]
fn an_answer_in_a_tab_that_did_not_begin_here_is_not_used() {
    let lab = Lab::new();
    let sign_in = lab.api().login(&lab.oidc()).sign_in();
    let (victim, attacker) = (Browser::of("alice"), Browser::of("mallory"));
    let mut theirs = attacker.tab();
    assert_eq!(theirs.open(&sign_in.url).state, "confirm");
    let callback = theirs.callback().to_owned();
    // The attacker's code, in the victim's browser: no proof, and nothing is exchanged.
    let stolen = callback.replace("code=", "code=x");
    let exchanged = lab.keystone.count(TOKEN_ENDPOINT);
    assert_eq!(victim.tab().open(&stolen).state, "unproven");
    assert_eq!(lab.keystone.count(TOKEN_ENDPOINT), exchanged);
    assert_eq!(lab.api().get(&format!("/v1/sign-ins/{}/offers", sign_in.id)).json["offers"], json!([]));
}

#[test]
fn a_bearer_that_keystone_refuses_is_said_with_whom_to_ask() {
    let lab = Lab::new();
    let sign_in = lab.api().login(&lab.oidc()).sign_in();
    let _refuses = lab.keystone.on(FEDERATED, Fault::Says(401, "<title>401 Unauthorized</title>".into()));
    let shown = Browser::of("alice").tab().open(&sign_in.url);
    assert_eq!(shown.state, "failed");
    let (said, remedy) = (&shown.reply["message"], shown.reply["remedy"].as_str().unwrap());
    assert!(said.as_str().unwrap().contains("does not take the identity provider's token"), "{said}");
    assert!(
        remedy.contains("/v3/OS-FEDERATION/identity_providers/lab-idp/protocols/openid/auth"),
        "{remedy}"
    );
    assert!(remedy.contains("sign_in: websso"), "{remedy}");
}

#[test]
fn no_page_log_or_reply_holds_what_the_identity_provider_gave() {
    let lab = Lab::new();
    signed_in(&lab);
    lab.clock.advance(3600);
    unprompted(&lab).token_id();
    let status = lab.api().status().to_string();
    let secrets = lab.keystone.secrets();
    assert!(secrets.len() >= 3, "{secrets:?}");
    assert!(secrets.iter().all(|secret| !status.contains(secret)), "{status}");
}

// --- with a browser on another machine ---

#[test]
fn the_address_at_which_another_machines_browser_ended_may_be_pasted() {
    let lab = Lab::new();
    let answer = lab.api().login(&lab.oidc());
    let sign_in = answer.sign_in();
    let elsewhere = answer.json["sign_in"]["elsewhere"].as_str().unwrap();
    let ended = Browser::of("alice").ends_at(elsewhere);
    let paste =
        |url: &str| lab.api().post(&format!("/v1/sign-ins/{}/redirected", sign_in.id), &json!({"url": url}));
    for (wrong, code) in [
        ("nonsense", "invalid-request"),
        ("http://127.0.0.1:1/callback", "invalid-request"),
        (&ended.replace("state=", "state=x"), "token-refused"),
    ] {
        paste(wrong).problem(code);
    }
    assert_eq!(lab.api().look(&sign_in.id)["state"], "waiting");
    assert_eq!(paste(&format!(" {ended}\n")).status, 204);
    assert_eq!(lab.api().over(&sign_in.id)["state"], "done");
    assert_eq!(session(&lab)["user"]["name"], "alice");

    // Keystone's own WebSSO sends a form.
    let websso = lab.login();
    let nothing = lab.api().post(&format!("/v1/sign-ins/{}/redirected", websso.id), &json!({"url": ended}));
    assert!(nothing.problem("invalid-request")["detail"].as_str().unwrap().contains("nothing to paste"));
    assert_eq!(lab.api().look(&websso.id).get("elsewhere"), None);
}

// --- how the user proved who they are ---

#[test]
fn status_shows_how_the_person_signed_in() {
    let lab = Lab::new();
    signed_in(&lab);
    let evidence = json!({"acr": "2", "amr": ["pwd", "otp"], "auth_time": "2026-03-29T00:59:57Z"});
    assert_eq!(session(&lab)["evidence"], evidence);
    lab.clock.advance(3600);
    unprompted(&lab).token_id();
    assert_eq!(session(&lab)["evidence"], evidence, "a renewal is no new proof");
}

fn requiring(lab: &Lab, what: &Value) -> Value {
    let mut cloud = lab.oidc();
    cloud["sign_in"]["oidc"]["require"] = what.clone();
    cloud
}

#[test]
fn a_sign_in_that_shows_less_than_required_is_not_used() {
    let lab = Lab::new();
    let strict = requiring(&lab, &json!({"amr": ["hwk"]}));
    let sign_in = lab.api().login(&strict).sign_in();
    let shown = Browser::of("alice").tab().open(&sign_in.url);
    assert_eq!(shown.state, "refused");
    let said = shown.reply["message"].as_str().unwrap();
    assert!(said.contains("requires the method hwk (amr), the sign-in shows pwd, otp"), "{said}");
    assert_eq!(lab.keystone.count(FEDERATED), 0);
    lab.api().delete(&format!("/v1/sign-ins/{}", sign_in.id));
    lab.api().over(&sign_in.id);

    // Another entry of the same identity is content; the session is still not enough for the strict one.
    signed_in(&lab);
    lab.api().token_unprompted(&strict, &scope::project("demo")).problem("sign-in-needed");
    lab.api().login(&strict).sign_in();
    let content = requiring(&lab, &json!({"amr": ["otp"], "max_auth_age": 60}));
    assert_eq!(lab.api().token_unprompted(&content, &scope::project("demo")).status, 200);
}

#[test]
fn a_proof_that_is_too_old_asks_for_a_new_one() {
    let lab = Lab::new();
    let recent = requiring(&lab, &json!({"max_auth_age": 1800}));
    let sign_in = lab.api().login(&recent).sign_in();
    assert_eq!(lab.browse(&sign_in.url, "alice"), "done");
    lab.api().over(&sign_in.id);
    assert_eq!(lab.api().token_unprompted(&recent, &scope::project("demo")).status, 200);
    lab.clock.advance(1801);
    lab.api().token_unprompted(&recent, &scope::project("demo")).problem("sign-in-needed");
    assert_eq!(unprompted(&lab).status, 200, "for an entry without a limit");
}

// --- on another device ---

fn on_another_device(lab: &Lab) -> Value {
    let mut cloud = lab.oidc();
    cloud["sign_in"]["way"] = "oidc_device".into();
    cloud
}

#[test]
fn a_person_approves_on_another_device() {
    let lab = Lab::new();
    let cloud = on_another_device(&lab);
    let answer = lab.api().login(&cloud);
    let (sign_in, shown) = (answer.sign_in(), &answer.json["sign_in"]);
    assert_eq!((&shown["user_code"], &shown["opener"]), (&json!("WDJB-MJHT"), &json!(false)));
    assert!(sign_in.url.ends_with("/idp/device?user_code=WDJB-MJHT"), "{}", sign_in.url);
    let notice = shown["notices"][0].as_str().unwrap();
    assert!(notice.contains("WDJB-MJHT") && notice.contains("client cli"), "{notice}");
    assert!(notice.contains("only what you started yourself"), "{notice}");

    // Asked every five seconds; every ten, once the provider finds that too often.
    asked(&lab);
    assert!(seconds_to_next_answer(&lab) >= 5);
    lab.keystone.decide(Some("slow_down"), "");
    assert!(seconds_to_next_answer(&lab) >= 5);
    lab.keystone.decide(None, "alice");
    assert!(seconds_to_next_answer(&lab) >= 10);
    assert_eq!(lab.api().over(&sign_in.id)["state"], "done");
    let token = lab.api().token_unprompted(&cloud, &scope::project("demo")).token_id();
    assert!(lab.keystone.accepts(&token));
    assert_eq!((&session(&lab)["user"]["name"], &session(&lab)["renews"]), (&json!("alice"), &json!(true)));
}

/// Returns when the provider has answered the first question.
fn asked(lab: &Lab) {
    while lab.keystone.answered(TOKEN_ENDPOINT) == 0 {
        lab.api().status();
    }
}

/// Moves time until the provider has answered another question.
fn seconds_to_next_answer(lab: &Lab) -> i64 {
    let before = lab.keystone.answered(TOKEN_ENDPOINT);
    for seconds in 1..600 {
        lab.clock.advance(1);
        // The agent has one thread: once it answers this, it has looked at its clock.
        lab.api().status();
        if lab.keystone.answered(TOKEN_ENDPOINT) > before {
            return seconds;
        }
    }
    panic!("the identity provider is not asked again");
}

#[test]
fn a_person_who_says_no_or_nothing_there_ends_the_sign_in() {
    for (says, code) in [("access_denied", "sign-in-cancelled"), ("expired_token", "sign-in-timed-out")] {
        let lab = Lab::new();
        let sign_in = lab.api().login(&on_another_device(&lab)).sign_in();
        asked(&lab);
        lab.keystone.decide(Some(says), "");
        seconds_to_next_answer(&lab);
        let over = lab.api().over(&sign_in.id);
        assert_eq!((&over["state"], &over["problem"]["code"]), (&json!("failed"), &json!(code)));
        assert_eq!(over["problem"]["remedy"], "ksb login demo");
    }
}

#[test]
fn another_user_than_before_is_not_taken_from_another_device() {
    let lab = Lab::new();
    let cloud = on_another_device(&lab);
    let sign_in = lab.api().login(&cloud).sign_in();
    asked(&lab);
    lab.keystone.decide(None, "alice");
    seconds_to_next_answer(&lab);
    assert_eq!(lab.api().over(&sign_in.id)["state"], "done");
    lab.keystone.end_grants();
    lab.clock.advance(3600);
    let before = lab.keystone.answered(TOKEN_ENDPOINT);
    let again = lab.api().token(&cloud, &scope::project("demo")).sign_in();
    // The ended grant, and the first question.
    while lab.keystone.answered(TOKEN_ENDPOINT) < before + 2 {
        lab.api().status();
    }
    lab.keystone.decide(None, "mallory");
    seconds_to_next_answer(&lab);
    let over = lab.api().over(&again.id);
    assert_eq!(over["problem"]["code"], "token-refused", "{over}");
}

// --- renewal ---

#[test]
fn a_session_that_has_nothing_left_is_no_answer_to_a_login_however_new_it_is() {
    let lab = Lab::new();
    signed_in(&lab);
    let unscoped = lab.api().token_unprompted(&lab.oidc(), &scope::unscoped()).token_id();
    lab.keystone.end_grants();
    lab.keystone.revoke(&unscoped);
    let refused = lab.api().token_instead_of(&unscoped, &lab.oidc(), &scope::unscoped());
    refused.sign_in();
    lab.api().login(&lab.oidc()).sign_in();
}

#[test]
fn after_an_outage_that_outlasted_the_token_renewal_goes_on_once_somebody_has_asked() {
    let lab = Lab::new();
    signed_in(&lab);
    let away = lab.keystone.on(TOKEN_ENDPOINT, Fault::Status(503));
    lab.clock.advance(3600);
    lab.keystone.wait_for(TOKEN_ENDPOINT, 2);
    drop(away);
    until("it is renewed for who asks", || {
        lab.api().token_unprompted(&lab.oidc(), &scope::project("demo")).status == 200
    });
    let renewals = lab.keystone.count(FEDERATED);
    lab.clock.advance(3600 - 600);
    lab.keystone.wait_for(FEDERATED, renewals + 1);
}

#[test]
fn a_session_is_renewed_before_it_ends_and_nobody_notices() {
    let lab = Lab::new();
    let mut token = signed_in(&lab);
    for round in 2..=4 {
        // A tenth of the hour is left, or ten minutes; a little more, so that many do not come at once.
        lab.clock.advance(3600 - 600);
        lab.keystone.wait_for(FEDERATED, round);
        lab.clock.advance(600 - 130);
        let next = unprompted(&lab).token_id();
        assert_ne!(next, token);
        token = next;
    }
    assert_eq!(lab.keystone.count(TOKEN_ENDPOINT), 4, "the sign-in, and once for each hour");
    assert_eq!((lab.keystone.grants(), lab.keystone.saw_reuse()), (1, false));
    assert_eq!(session(&lab)["user"]["name"], "alice");
}

#[test]
fn two_hundred_callers_at_expiry_cost_one_refresh_and_one_exchange() {
    let lab = Lab::new();
    signed_in(&lab);
    let (refreshed, exchanged) = (lab.keystone.count(TOKEN_ENDPOINT), lab.exchanges());
    lab.clock.advance(3600);
    std::thread::scope(|threads| {
        let callers: Vec<_> = (0..200).map(|_| threads.spawn(|| unprompted(&lab).token_id())).collect();
        let tokens: Vec<_> = callers.into_iter().map(|caller| caller.join().unwrap()).collect();
        assert!(tokens.iter().all(|token| *token == tokens[0]));
    });
    assert_eq!((lab.keystone.count(TOKEN_ENDPOINT), lab.exchanges()), (refreshed + 1, exchanged + 1));
    assert!(!lab.keystone.saw_reuse());
}

#[test]
fn a_grant_that_the_identity_provider_ended_asks_for_a_sign_in() {
    let lab = Lab::new();
    signed_in(&lab);
    lab.keystone.end_grants();
    lab.clock.advance(3600);
    let refused = unprompted(&lab);
    refused.problem("sign-in-needed");
    // The provider's name and words, not a guess.
    let why =
        "its renewal by 127.0.0.1 failed: the identity provider answered: invalid_grant (not (any more))";
    assert_eq!(refused.json["detail"], format!("the session has ended: {why}"));
    assert_eq!((&session(&lab)["renews"], &session(&lab)["renewal_failure"]), (&json!(false), &json!(why)));
    let again = lab.api().token(&lab.oidc(), &scope::project("demo")).sign_in();
    assert_eq!(lab.browse(&again.url, "alice"), "done");
}

#[test]
fn an_identity_provider_in_trouble_signs_nobody_out() {
    for fault in [Fault::Status(500), Fault::Status(429), Fault::Hangs] {
        let lab = Lab::new();
        let token = signed_in(&lab);
        let trouble = lab.keystone.on(TOKEN_ENDPOINT, fault);
        lab.clock.advance(3600 - 600);
        lab.keystone.wait_for(TOKEN_ENDPOINT, 2);
        assert_eq!(unprompted(&lab).token_id(), token, "still good for ten minutes");
        lab.clock.advance(600);
        let failed = unprompted(&lab);
        assert!(matches!(failed.status, 502 | 503), "{}", failed.text);
        let why = session(&lab)["renewal_failure"].as_str().unwrap().to_owned();
        assert!(why.starts_with("its renewal by 127.0.0.1 failed: the identity provider "), "{why}");
        drop(trouble);
        assert_ne!(unprompted(&lab).token_id(), token);
        assert_eq!(session(&lab)["renewal_failure"], json!(null));
        assert!(!lab.keystone.saw_reuse());
    }
}

#[test]
fn a_session_that_keystone_ended_is_renewed_without_the_person() {
    let lab = Lab::new();
    signed_in(&lab);
    for token in lab.keystone.all_tokens() {
        lab.keystone.revoke(&token);
    }
    let held = unprompted(&lab).token_id();
    let next = lab.api().token_instead_of(&held, &lab.oidc(), &scope::project("demo")).token_id();
    assert!(lab.keystone.accepts(&next));
}

#[test]
fn a_renewal_that_comes_back_as_somebody_else_is_not_used() {
    let lab = Lab::new();
    signed_in(&lab);
    lab.keystone.hand_grants_to("bob");
    lab.clock.advance(3600);
    let refused = unprompted(&lab);
    let detail = refused.problem("token-refused")["detail"].as_str().unwrap();
    assert!(detail.contains("bob") && detail.contains("alice"), "{detail}");
}

#[test]
fn signing_out_says_what_the_identity_provider_cannot_end() {
    let lab = Lab::new();
    signed_in(&lab);
    let ended = lab.api().logout(&lab.oidc());
    let left = ended[0]["not_revoked"].as_array().unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0]["scope"], "the identity provider's refresh");
    assert!(left[0]["reason"].as_str().unwrap().contains("no revocation endpoint"), "{left:?}");
    assert!(lab.keystone.all_tokens().iter().all(|token| !lab.keystone.accepts(token)));
    // And nobody goes on renewing what is over.
    lab.clock.advance(3600);
    unprompted(&lab).problem("sign-in-needed");
    assert_eq!(lab.keystone.count(TOKEN_ENDPOINT), 1);
}

#[test]
fn tokens_that_are_over_at_once_are_not_renewed_without_end() {
    let lab = Lab::new();
    lab.keystone.lifetime(0);
    let sign_in = lab.api().login(&lab.oidc()).sign_in();
    assert_eq!(lab.browse(&sign_in.url, "alice"), "done");
    lab.api().over(&sign_in.id);
    // The sign-in, and one renewal that helped nothing.
    lab.keystone.wait_for(TOKEN_ENDPOINT, 2);
    for _ in 0..50 {
        lab.api().status();
    }
    assert_eq!(lab.keystone.count(TOKEN_ENDPOINT), 2);
}
